"""seqio tasks on the parallel text of the paper: English and 14 languages.

The paper names four collections, but not which corpus each language is from.
This list follows XLM (Lample & Conneau, 2019), which names corpora by language
from the same collections; WikiMatrix has most of the languages.

    MultiUN     ar es fr ru zh      opus.nlpl.eu, MultiUN
    IITB        hi                  www.cfilt.iitb.ac.in/iitb_parallel
    OPUS        bg de el            opus.nlpl.eu, EUbookshop
                th tr vi            opus.nlpl.eu, OpenSubtitles 2018
                sw ur               opus.nlpl.eu, Tanzil
                sw                  opus.nlpl.eu, GlobalVoices
    WikiMatrix  where it has them   opus.nlpl.eu, WikiMatrix

Take the Moses form of each (two text files) and put all of them, compressed or
not, into one folder, `corpora/paper` or INFOXLM_CORPORA/paper:

    MultiUN.ar-en.ar  MultiUN.ar-en.en  IITB.en-hi.en  IITB.en-hi.hi  ...

The tasks paper_en_ar to paper_en_zh each read all corpora of their pair in that
folder, English first. The mixture paper_pairs has all of these tasks. The
sampling rates are set when training reads the records.
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
