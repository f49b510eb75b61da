"""F1 and exact match of answers, as the official scripts count them.

SQuAD 1.1 (Rajpurkar et al. 2016), also used for XQuAD and TyDiQA-GoldP in every
language: lower case, no ASCII punctuation, no English article, words at white
space.

MLQA (Lewis et al. 2020), in the language of the context: lower case, no
punctuation of any script, no article of the language. Chinese ideographs are a
word each.
"""

import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from infoxlm_jax.errors import check_choice

# Text to its words.
Words = Callable[[str], list[str]]

# Words that MLQA's script takes for articles; Vietnamese has classifiers and
# others among them.
_ARTICLES = {
  "en": "a an the",
  "es": "un una unos unas el la los las",
  "hi": "",
  "vi": "của là cái chiếc những",
  "de": "ein eine einen einem eines einer der die das den dem des",
  "ar": "",
  "zh": "",
}
_ARABIC_ARTICLE = "ال"
_IDEOGRAPH = re.compile("([\u4e00-\u9fa5])")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_words(text: str) -> list[str]:
  """The words that SQuAD 1.1's script compares."""
  bare = text.lower().translate(_ASCII_PUNCTUATION)
  return _articles("en").sub(" ", bare).split()


def mlqa_words(language: str) -> Words:
  """The function that gives the words that MLQA's script compares.

  Args:
    language: of the context and its answers.

  Raises:
    InputError: it is not one of MLQA's seven.
  """
  check_choice("the language of MLQA", language, _ARTICLES)
  return functools.partial(_mlqa_words, language=language)


def f1(answer: str, reference: str, words: Words) -> float:
  """Harmonic mean of precision and recall of the words; 0 without any."""
  ours, theirs = words(answer), words(reference)
  common = sum((Counter(ours) & Counter(theirs)).values())
  return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def exact_match(answer: str, reference: str, words: Words) -> float:
  """1 where the words are the same in the same order, else 0."""
  return float(words(answer) == words(reference))


def score(
  answers: Sequence[str], references: Sequence[Sequence[str]], words: Words
) -> dict[str, float]:
  """Means over questions, as fractions: "f1" and "exact_match".

  Args:
    answers: one for each question; "" where there is none.
    references: of each question; the best one counts, for each measure alone.
    words: squad_words, or of mlqa_words.
  """
  out = {}
  for name, measure in (("f1", f1), ("exact_match", exact_match)):
    out[name] = float(
      np.mean(
        [
          max(measure(answer, reference, words) for reference in own)
          for answer, own in zip(answers, references, strict=True)
        ]
      )
    )
  return out


def _mlqa_words(text: str, language: str) -> list[str]:
  bare = "".join(c for c in text.lower() if not _is_punctuation(c))
  if language == "ar":
    # Inside words, too: so does the official pattern.
    bare = bare.replace(_ARABIC_ARTICLE, " ")
  elif language == "zh":
    bare = _IDEOGRAPH.sub(r" \1 ", bare)
  elif _ARTICLES[language]:
    bare = _articles(language).sub(" ", bare)
  return bare.split()


@functools.cache
def _articles(language: str) -> re.Pattern[str]:
  words = "|".join(_ARTICLES[language].split())
  return re.compile(rf"\b(?:{words})\b")


def _is_punctuation(character: str) -> bool:
  return (
    character in string.punctuation or unicodedata.category(character)[0] == "P"
  )
