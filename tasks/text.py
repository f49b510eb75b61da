"""seqio tasks on your own text, a sentence or a document a line.

    text_lines  corpora/text/*.txt, also .gz, .xz, .zst; the form of CC-100
    text_jsonl  corpora/text/*.jsonl: a JSON object a line, with a field "text"

The files' names say their languages: de.txt.xz, wiki.sw.jsonl. INFOXLM_CORPORA
names another folder than `corpora`. Copy this file for other places or fields.
"""

import os

from infoxlm_jax.data.corpora.seqio_tasks import add
from infoxlm_jax.data.corpora.sources import TextFiles

FOLDER = os.environ.get("INFOXLM_CORPORA", "corpora")

add("text_lines", TextFiles(f"{FOLDER}/text/*.txt*", format="lines"))
add("text_jsonl", TextFiles(f"{FOLDER}/text/*.jsonl*", format="jsonl"))
