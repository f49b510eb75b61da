"""Measures how much of a text is in the scripts of its language."""

import functools
from collections.abc import Sequence

import numpy as np
import regex

from infoxlm_jax.data.languages import scripts_of

_CODE_POINTS = 0x110000


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
