"""Sets of translations for retrieval, from files of pairs."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from infoxlm_jax.data.corpora.open_files import (
  Patterns,
  count_lines,
  find_files,
  read_lines,
)
from infoxlm_jax.data.corpora.tsv import read_pairs
from infoxlm_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class PairSet:
  """Translations between the pivot and one language.

  Attributes:
    language: the one that is not the pivot.
    pivot_texts: sentences of the pivot.
    texts: their translations, in the same order.
    source: the files, for people.
  """

  language: str
  pivot_texts: Sequence[str]
  texts: Sequence[str]
  source: str


def data_hash(sets: Iterable[PairSet]) -> str:
  """16 hexadecimal digits of a SHA-256 of languages, texts and their order."""
  digest = hashlib.sha256()
  for one in sets:
    for part in (one.language, *one.pivot_texts, "", *one.texts, ""):
      digest.update(part.encode() + b"\n")
  return digest.hexdigest()[:16]


def read_tsv_sets(
  patterns: Patterns,
  *,
  pivot: str = "en",
  columns: Sequence[str] | Sequence[int] | None = None,
  languages: Sequence[str] | None = None,
  max_pairs: int | None = None,
) -> list[PairSet]:
  """Reads tab-separated pairs, one file for each language.

  Args:
    patterns: files or globs, see `find_files`; their names have the languages,
      such as `en-fr.tsv.xz`.
    pivot: the language that every file has.
    columns: see `tsv.read_pairs`.
    languages: see `tsv.read_pairs`.
    max_pairs: use only the first pairs of each file; None: all.

  Raises:
    InputError: no file, a broken line, an empty side, a file without the
      pivot, or two files of one language.
  """
  if max_pairs is not None and max_pairs < 1:
    raise InputError(f"MAX_PAIRS = {max_pairs}: give at least 1, or None.")
  sets: dict[str, PairSet] = {}
  for path in find_files(patterns):
    one = _tsv_set(path, pivot, columns, languages, max_pairs)
    if one.language in sets:
      raise InputError(
        f"{path}: {sets[one.language].source} has pairs of {pivot} and"
        f" {one.language} already. Give one file for each language: put them"
        " together, or measure them in two runs."
      )
    sets[one.language] = one
  return list(sets.values())


def _tsv_set(
  path: Path,
  pivot: str,
  columns: Sequence[str] | Sequence[int] | None,
  languages: Sequence[str] | None,
  max_pairs: int | None,
) -> PairSet:
  rows = list(read_pairs(path, columns, languages))
  pair = rows[0][0]
  if pivot not in pair or pair[0] == pair[1]:
    raise InputError(
      f"{path}: its languages are {pair[0]} and {pair[1]}, and one of the two"
      f" has to be {pivot}. Set PIVOT to the language that all files have."
    )
  side = pair.index(pivot)
  header = count_lines(path) - len(rows)  # 1 or 0
  sides: tuple[list[str], list[str]] = [], []
  for number, (_, *texts) in enumerate(rows[:max_pairs], 1 + header):
    for language, text in zip(pair, texts, strict=True):
      if not text.strip():
        raise _empty(path, number, language)
    for texts_of_side, text in zip(sides, texts, strict=True):
      texts_of_side.append(text)
  return PairSet(pair[1 - side], sides[side], sides[1 - side], str(path))


def read_aligned(language: str, pivot_path: Path, path: Path) -> PairSet:
  """Reads two files whose lines are translations of each other.

  Raises:
    InputError: a file is missing or not UTF-8, a line is empty, or the files
      have different numbers of lines.
  """
  for one, other in ((pivot_path, path), (path, pivot_path)):
    if not one.is_file():
      raise InputError(
        f"{one}: no such file, but {other.name} needs it: it has the"
        " translations, line by line."
      )
  sides = []
  for one in (pivot_path, path):
    texts = []
    for number, text in read_lines(one):
      if not text.strip():
        raise _empty(one, number, None)
      texts.append(text)
    sides.append(texts)
  if len(sides[0]) != len(sides[1]):
    shorter = min(map(len, sides))
    raise InputError(
      f"{pivot_path} has {len(sides[0])} lines and {path} has"
      f" {len(sides[1])}: from line {shorter + 1} on there is no translation."
      " The two files have to be aligned line by line; fetch them again."
    )
  return PairSet(language, sides[0], sides[1], f"{pivot_path}, {path}")


def _empty(path: Path, line: int, language: str | None) -> InputError:
  side = f"the side in {language} is empty" if language else "it is empty"
  return InputError(
    f"{path}, line {line}: {side}, so there is nothing to find. Complete the"
    " pair, or remove it on both sides."
  )
