"""Moses pairs: two files X.en and X.fr whose lines translate each other."""

import fnmatch
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from infoxlm_jax.data.corpora.file_names import pair_of, stem
from infoxlm_jax.data.corpora.open_files import (
  Patterns,
  count_lines,
  matches,
  read_lines,
  split_patterns,
)
from infoxlm_jax.data.languages import same
from infoxlm_jax.errors import InputError

# The two files, and their languages.
Files = tuple[Path, Path]


def find_pairs(
  patterns: Patterns, languages: Sequence[str] | None
) -> list[tuple[Files, tuple[str, str]]]:
  """Finds both files of each pair that patterns name, and their languages.

  Args:
    patterns: of X, the beginning of both files' names: `Europarl.en-fr` for
      Europarl.en-fr.en and Europarl.en-fr.fr; .txt, .gz, .xz or .zst may
      follow. Globs may match several.
    languages: of the first and second side; None takes those in X. An X that
      names two other languages is left out.

  Raises:
    InputError: no pair matches, or one of the two files is missing.
  """
  pairs: dict[Files, tuple[str, str]] = {}
  for pattern in split_patterns(patterns):
    sides: dict[str, dict[str, list[Path]]] = {}  # X -> language -> files
    plain = os.path.normpath(pattern)
    for path in matches(f"{pattern}.*"):
      name, _, language = str(path.with_name(stem(path))).rpartition(".")
      name = os.path.normpath(name)
      if name == plain or fnmatch.fnmatchcase(name, plain):
        sides.setdefault(name, {}).setdefault(language, []).append(path)
    here = _complete(sides, languages)
    if not here:
      a, b = languages or ("en", "fr")
      where = "" if Path(pattern).is_absolute() else f" (from {Path.cwd()})"
      raise InputError(
        f"no two files {pattern}.{a} and {pattern}.{b}, compressed or"
        f" not{where}. Give the beginning of both names, for example"
        " 'corpora/Europarl.en-fr', and set languages if it does not end in"
        " them."
      )
    pairs |= here
  return list(pairs.items())


def read_pairs(files: Files) -> Iterator[tuple[str, str]]:
  """Yields both texts of each line.

  The lines are counted before the first pair is yielded: where a file lacks a
  line, every pair after it would be wrong.

  Raises:
    InputError: see `read_lines`; files with unequal numbers of lines.
  """
  counts = [count_lines(path) for path in files]
  if counts[0] != counts[1] and all(counts):
    raise InputError(
      f"{files[0]} has {counts[0]} lines, {files[1]} has {counts[1]}: line n of"
      " one must translate line n of the other. Download both again, or find"
      " the line that is missing."
    )
  lines = zip(*map(read_lines, files), strict=True)
  for (_, text_a), (_, text_b) in lines:
    yield text_a, text_b


def _complete(
  sides: dict[str, dict[str, list[Path]]], languages: Sequence[str] | None
) -> dict[Files, tuple[str, str]]:
  """The pairs of which both files exist; one file alone is an InputError."""
  pairs = {}
  for name in sorted(sides):
    named = pair_of(Path(name).name)
    wanted = tuple(languages) if languages else named
    if wanted is None or (named and not _same_pair(named, wanted)):
      continue
    a, b = (
      [
        p
        for ending, paths in sides[name].items()
        if same(ending, x)
        for p in paths
      ]
      for x in wanted
    )
    if more := next((side for side in (a, b) if len(side) > 1), None):
      raise InputError(
        f"{' and '.join(map(str, more))}: which one? Both are one side of the"
        " same pair; remove one."
      )
    if a and b:
      pairs[a[0], b[0]] = (wanted[0], wanted[1])
    elif a or b:
      raise InputError(
        f"{name}.{wanted[1] if a else wanted[0]} is missing: there is"
        f" {(a or b)[0]}. A Moses pair is two files, one a language."
      )
  return pairs


def _same_pair(a: Sequence[str], b: Sequence[str]) -> bool:
  """Whether two pairs are of the same languages, in any order and letters."""
  return any(
    all(same(x, y) for x, y in zip(a, other, strict=True))
    for other in (b, b[::-1])
  )


def all_files(pairs: Sequence[tuple[Files, tuple[str, str]]]) -> list[Path]:
  """The files of pairs, one after the other."""
  return list(itertools.chain.from_iterable(files for files, _ in pairs))
