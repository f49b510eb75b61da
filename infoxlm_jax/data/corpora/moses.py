"""Moses pairs: two files X.en and X.fr whose lines translate each other."""

import fnmatch
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

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

# The two files of a pair, and their languages.
Files = tuple[Path, Path]
Pair = tuple[str, str]
# The beginning of a name -> what follows it -> files.
Sides = dict[str, dict[str, list[Path]]]


class Found(NamedTuple):
  """What patterns match.

  Attributes:
    pairs: both files of each pair, and their languages.
    unused: all other files, and why they are none of a pair.
  """

  pairs: list[tuple[Files, Pair]]
  unused: dict[Path, str]


def find_pairs(patterns: Patterns, languages: Sequence[str] | None) -> Found:
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
  pairs: dict[Files, Pair] = {}
  unused: dict[Path, str] = {}
  for pattern in split_patterns(patterns):
    sides: Sides = {}
    plain = os.path.normpath(pattern)
    for path in matches(f"{pattern}.*"):
      name, _, language = str(path.with_name(stem(path))).rpartition(".")
      name = os.path.normpath(name)
      if name == plain or fnmatch.fnmatchcase(name, plain):
        sides.setdefault(name, {}).setdefault(language, []).append(path)
    here = _complete(sides, languages)
    if not here.pairs:
      raise _no_pair(pattern, sides, languages)
    pairs |= dict(here.pairs)
    unused |= here.unused
  used = set(itertools.chain.from_iterable(pairs))
  return Found(
    list(pairs.items()), {p: why for p, why in unused.items() if p not in used}
  )


def _no_pair(
  pattern: str, sides: Sides, languages: Sequence[str] | None
) -> InputError:
  """Says which files there are where no two of them are a pair."""
  where = "" if Path(pattern).is_absolute() else f" (from {Path.cwd()})"
  endings = sorted(
    {ending for by_ending in sides.values() for ending in by_ending}
  )
  wanted = languages or pair_of(Path(pattern).name)
  if wanted:
    what = (
      f"no two files {pattern}.{wanted[0]} and {pattern}.{wanted[1]},"
      f" compressed or not{where}"
    )
    if endings:
      what += f"; those that begin so end in {', '.join(endings[:8])}"
    return InputError(
      f"{what}. Give the beginning of both names, for example"
      " 'corpora/Europarl.en-fr', and set languages if they end in others."
    )
  if not endings:
    return InputError(
      f"no files {pattern}.LANGUAGE, compressed or not{where}. Give the"
      " beginning of both names, 'corpora/Europarl.en-fr' for Europarl.en-fr.en"
      " and Europarl.en-fr.fr."
    )
  return InputError(
    f"{pattern}: which languages? The beginning of the names tells none; what"
    f" follows it is {', '.join(endings[:8])}. Set languages"
    " (--gin.LANGUAGES=\"('en', 'fr')\") to two of these."
  )


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


def _complete(sides: Sides, languages: Sequence[str] | None) -> Found:
  """The pairs of which both files exist; one file alone is an InputError."""
  pairs: list[tuple[Files, Pair]] = []
  unused: dict[Path, str] = {}
  for name in sorted(sides):
    named = pair_of(Path(name).name)
    wanted = tuple(languages) if languages else named
    every = list(itertools.chain.from_iterable(sides[name].values()))
    if wanted is None:
      unused |= dict.fromkeys(every, "the name tells no two languages")
      continue
    if named and not _same_pair(named, wanted):
      unused |= dict.fromkeys(every, f"not of {'-'.join(wanted)}")
      continue
    a, b = (
      [
        path
        for ending, paths in sides[name].items()
        if same(ending, language)
        for path in paths
      ]
      for language in wanted
    )
    if more := next((side for side in (a, b) if len(side) > 1), None):
      raise InputError(
        f"{' and '.join(map(str, more))}: which one? Both are one side of the"
        " same pair; remove one."
      )
    unused |= dict.fromkeys(every, f"no side of {'-'.join(wanted)}")
    if a and b:
      pairs.append(((a[0], b[0]), (wanted[0], wanted[1])))
    elif a or b:
      raise InputError(
        f"{name}.{wanted[1] if a else wanted[0]} is missing: there is"
        f" {(a or b)[0]}. A Moses pair is two files, one a language."
      )
  return Found(pairs, unused)


def _same_pair(a: Sequence[str], b: Sequence[str]) -> bool:
  """Whether two pairs are of the same languages, in any order and letters."""
  return any(
    all(same(x, y) for x, y in zip(a, other, strict=True))
    for other in (b, b[::-1])
  )


def all_files(pairs: Sequence[tuple[Files, Pair]]) -> list[Path]:
  """The files of pairs, one after the other."""
  return list(itertools.chain.from_iterable(files for files, _ in pairs))
