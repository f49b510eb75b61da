"""seqio tasks on the parallel text of the paper: English and 14 languages.

The paper names four collections and no list by language. The corpora beside
each language are those that XLM (Lample & Conneau, 2019) names for it, whose
choice the paper's collections contain; WikiMatrix has most of the languages.

    MultiUN     ar es fr ru zh      opus.nlpl.eu, MultiUN
    IITB        hi                  www.cfilt.iitb.ac.in/iitb_parallel
    OPUS        bg de el            opus.nlpl.eu, EUbookshop
                th tr vi            opus.nlpl.eu, OpenSubtitles 2018
                sw ur               opus.nlpl.eu, Tanzil
                sw                  opus.nlpl.eu, GlobalVoices
    WikiMatrix  where it has them   opus.nlpl.eu, WikiMatrix

Take the Moses form of each (two text files) and put all of them, packed or
not, into one folder, `corpora/paper` or INFOXLM_CORPORA/paper:

    MultiUN.ar-en.ar  MultiUN.ar-en.en  IITB.en-hi.en  IITB.en-hi.hi  ...

Tasks: paper_en_ar to paper_en_zh read every corpus there of their pair, English
first; the mixture paper_pairs is all of them. How often each pair is drawn
is decided when training reads the records.
"""

import os

import seqio

from infoxlm_jax.data.corpora.seqio_tasks import add
from infoxlm_jax.data.corpora.sources import Moses

LANGUAGES = (
  *("ar", "bg", "de", "el", "es", "fr", "hi"),
  *("ru", "sw", "th", "tr", "ur", "vi", "zh"),
)
FOLDER = os.environ.get("INFOXLM_CORPORA", "corpora")

for _language in LANGUAGES:
  add(
    f"paper_en_{_language}",
    Moses(f"{FOLDER}/paper/*-*", languages=("en", _language)),
  )

seqio.MixtureRegistry.add(
  "paper_pairs", [f"paper_en_{x}" for x in LANGUAGES], default_rate=1.0
)
