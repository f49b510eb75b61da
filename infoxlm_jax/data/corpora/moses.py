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
from infoxlm_jax.errors import InputError

# The two files, and their languages.
Files = tuple[Path, Path]


def find_pairs(
  patterns: Patterns, languages: Sequence[str] | None
) -> list[tuple[Files, tuple[str, str]]]:
  """Both files of each pair that patterns name, and their languages.

  Args:
    patterns: of X, what the two files' names begin with: `Europarl.en-fr` for
      Europarl.en-fr.en and Europarl.en-fr.fr, also with .txt, .gz, .xz, .zst
      behind. Globs may match several.
    languages: of the first and second side; None takes those in X. Where X
      has languages (in any order), only pairs of these two are read.

  Raises:
    InputError: no pair matches, or one of the two files is missing.
  """
  found: dict[Files, tuple[str, str]] = {}
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
        f"no two files {pattern}.{a} and {pattern}.{b}, packed or"
        f" not{where}. Name what both names begin with, for example"
        " 'corpora/Europarl.en-fr', and set languages where it does not end in"
        " them."
      )
    found |= here
  return list(found.items())


def read_pairs(files: Files) -> Iterator[tuple[str, str]]:
  """Both texts of each line.

  Lines are counted before the first one is given: in a file that lacks one,
  every pair behind it would be wrong.

  Raises:
    InputError: files of unequal length, and what `read_lines` raises.
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
  """The pairs among files by name and language."""
  found = {}
  for name in sorted(sides):
    named = pair_of(Path(name).name)
    wanted = tuple(languages) if languages else named
    if wanted is None or (named and set(named) != set(wanted)):
      continue
    a, b = (sides[name].get(language, []) for language in wanted)
    if more := next((side for side in (a, b) if len(side) > 1), None):
      raise InputError(
        f"{' and '.join(map(str, more))}: which one? Both are one side of the"
        " same pair; remove one."
      )
    if a and b:
      found[a[0], b[0]] = (wanted[0], wanted[1])
    elif a or b:
      raise InputError(
        f"{name}.{wanted[1] if a else wanted[0]} is missing: there is"
        f" {(a or b)[0]}. A Moses pair is two files, one a language."
      )
  return found


def all_files(pairs: Sequence[tuple[Files, tuple[str, str]]]) -> list[Path]:
  """The files of pairs, one after the other."""
  return list(itertools.chain.from_iterable(files for files, _ in pairs))
