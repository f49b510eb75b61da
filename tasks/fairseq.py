"""seqio tasks on binary data of the released code's tools.

    fairseq_mlm   corpora/fairseq/mlm: train.0.bin, train.0.idx (txt2bin.py)
    fairseq_tlm   corpora/fairseq/tlm (para2bin.py)
    fairseq_xlco  corpora/fairseq/xlco (para2bin4xlco.py)

The files do not say their languages, so the language is "mul" (multiple). They
hold token ids: prepare them with the tokenizer that they were made with.
INFOXLM_CORPORA names another folder than `corpora`.
"""

import os

from infoxlm_jax.data.corpora.fairseq import LAYOUTS
from infoxlm_jax.data.corpora.seqio_tasks import add
from infoxlm_jax.data.corpora.sources import FairseqBinary

FOLDER = os.environ.get("INFOXLM_CORPORA", "corpora")

for _layout in LAYOUTS:
  _folder = f"{FOLDER}/fairseq/{_layout}"
  add(
    f"fairseq_{_layout}",
    FairseqBinary(_folder, _layout, languages=("mul", "mul")),
  )
