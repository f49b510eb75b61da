"""Measures how much of a text is in the scripts of its language."""

import functools
import re
from collections.abc import Sequence

import numpy as np
import regex

# Languages of each Unicode script (CLDR's main languages, and others that are
# written much). A language that is missing here is not judged.
_LANGUAGES = {
  "Latin": "af az br bs ca cs cy da de en eo es et eu fi fil fr fy ga gd gl ha"
  " hr ht hu id ig is it jv kk ku la lb lt lv mg ms mt nb nl nn no om pl pt rm"
  " ro sk sl so sq sr su sv sw tl tr uz vi wo xh yo zu",
  "Arabic": "ar ckb fa ha kk ku ky pa ps sd ug ur",
  "Cyrillic": "az ba be bg bs kk ky mk mn ru sr tg tt uk uz",
  "Devanagari": "bho hi mr ne sa sd",
  "Armenian": "hy",
  "Bengali": "as bn",
  "Bopomofo": "zh",
  "Ethiopic": "am ti",
  "Georgian": "ka",
  "Greek": "el",
  "Gujarati": "gu",
  "Gurmukhi": "pa",
  "Han": "ja ko yue zh",
  "Hangul": "ko",
  "Hebrew": "he yi",
  "Hiragana": "ja",
  "Kannada": "kn",
  "Katakana": "ja",
  "Khmer": "km",
  "Lao": "lo",
  "Malayalam": "ml",
  "Mongolian": "mn",
  "Myanmar": "my",
  "Oriya": "or",
  "Sinhala": "si",
  "Tamil": "ta",
  "Telugu": "te",
  "Thaana": "dv",
  "Thai": "th",
  "Tibetan": "bo dz",
}
# ISO 15924 codes of several of Unicode's scripts, or of a part of one.
_CODES = {
  "Hans": ("Han", "Bopomofo"),
  "Hant": ("Han", "Bopomofo"),
  "Jpan": ("Han", "Hiragana", "Katakana"),
  "Kore": ("Hangul", "Han"),
}
_SUBTAG = re.compile(r"[-_]([A-Z][a-z]{3})(?:[-_]|$)")
_CODE_POINTS = 0x110000


def scripts_of(language: str) -> tuple[str, ...]:
  """The scripts of a language; () for an unknown language.

  A script in the tag itself decides: "sr-Latn" is Latin only.
  """
  if match := _SUBTAG.search(language):
    code = match[1]
    try:
      regex.compile(rf"\p{{Script={code}}}")
    except regex.error:
      return _CODES.get(code, ())
    return (code,)
  base = re.split("[-_]", language)[0]
  return tuple(
    script for script, names in _LANGUAGES.items() if base in names.split()
  )


def shares(texts: Sequence[str], language: str) -> np.ndarray:
  """The share of each text's letters that are in the language's scripts.

  Letters that many scripts use (Unicode's Common) do not count. A text without
  letters, or in an unknown language, has share 1.

  Returns:
    float64 [texts].
  """
  expected = scripts_of(language)
  if not texts or not expected:
    return np.ones(len(texts))
  joined = "".join(texts).encode("utf-32-le", "surrogatepass")
  codes = np.frombuffer(joined, "<u4")
  ends = np.cumsum([len(text) for text in texts])
  own = _counts(_letters(expected)[codes], ends)
  other = _counts(_other_letters(expected)[codes], ends)
  total = own + other
  return np.where(total > 0, own / np.maximum(total, 1), 1.0)


def _counts(marks: np.ndarray, ends: np.ndarray) -> np.ndarray:
  sums = np.concatenate([[0], np.cumsum(marks, dtype=np.int64)])
  return np.diff(sums[ends], prepend=0)


@functools.cache
def _letters(scripts: tuple[str, ...]) -> np.ndarray:
  """Which code points are letters of these scripts, bool [code points]."""
  marks = np.zeros(_CODE_POINTS, bool)
  text = _all_letters()
  codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
  named = "".join(rf"\p{{Script={script}}}" for script in scripts)
  for match in regex.finditer(f"[{named}]+", text):
    marks[codes[match.start() : match.end()]] = True
  return marks


@functools.cache
def _other_letters(scripts: tuple[str, ...]) -> np.ndarray:
  marks = np.zeros(_CODE_POINTS, bool)
  marks[np.frombuffer(_all_letters().encode("utf-32-le"), "<u4")] = True
  return marks & ~_letters(("Common", "Inherited")) & ~_letters(scripts)


@functools.cache
def _all_letters() -> str:
  codes = np.arange(_CODE_POINTS, dtype="<u4")
  surrogates = (codes >= 0xD800) & (codes < 0xE000)
  every = codes[~surrogates].tobytes().decode("utf-32-le")
  return "".join(regex.findall(r"\p{L}+", every))
