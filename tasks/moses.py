"""seqio task on your own pairs in Moses files, a form that OPUS has.

    moses_pairs  corpora/moses/NAME.en-fr.en and NAME.en-fr.fr, ...

INFOXLM_CORPORA names another folder than `corpora`.
"""

import os

from infoxlm_jax.data.corpora.seqio_tasks import add
from infoxlm_jax.data.corpora.sources import Moses

FOLDER = os.environ.get("INFOXLM_CORPORA", "corpora")

add("moses_pairs", Moses(f"{FOLDER}/moses/*-*"))
