"""seqio task on your own translation memories.

    tmx_pairs  corpora/tmx/*.tmx, also .gz, .xz, .zst: all pairs of languages

INFOXLM_CORPORA names another folder than `corpora`.
"""

import os

from infoxlm_jax.data.corpora.seqio_tasks import add
from infoxlm_jax.data.corpora.sources import Tmx

FOLDER = os.environ.get("INFOXLM_CORPORA", "corpora")

add("tmx_pairs", Tmx(f"{FOLDER}/tmx/*.tmx*"))
