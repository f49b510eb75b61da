"""seqio task on your own pairs in tab-separated files.

    tsv_pairs  corpora/tsv/en-fr.tsv, ..., also .gz, .xz, .zst: two columns

INFOXLM_CORPORA names another folder than `corpora`. Copy this file for columns
with names.
"""

import os

from infoxlm_jax.data.corpora.seqio_tasks import add
from infoxlm_jax.data.corpora.sources import Tsv

FOLDER = os.environ.get("INFOXLM_CORPORA", "corpora")

add("tsv_pairs", Tsv(f"{FOLDER}/tsv/*.tsv*"))
