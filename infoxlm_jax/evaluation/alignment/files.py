"""Pairs of sentences, and the links that people drew between their words.

Pairs are `source ||| target` (fast_align's form) or `source<TAB>target`, with
spaces between words. Gold links are in Pharaoh's form, a line for each pair:

    0-0 1-2 3?2 4p3      a-b is sure; a?b and apb are possible
"""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from infoxlm_jax.data.corpora.open_files import read_lines
from infoxlm_jax.errors import InputError

_BARS = " ||| "
_LINK = re.compile(r"(\d+)([-?p])(\d+)")

Link = tuple[int, int]  # words of source and target, from 0


class WordPair(NamedTuple):
  """The words of a sentence and of its translation."""

  source: list[str]
  target: list[str]


class Gold(NamedTuple):
  """The links of a pair; every sure link is a possible one, too."""

  sure: frozenset[Link]
  possible: frozenset[Link]


class GoldSet(NamedTuple):
  """Pairs with their links.

  Attributes:
    where: the file of the pairs, for messages.
    pairs: the words; line n of the file is pair n - 1.
    gold: the links of each.
    digest: of what both files hold.
  """

  where: str
  pairs: list[WordPair]
  gold: list[Gold]
  digest: str


def read_set(pairs: str, gold: str, first_word: int) -> GoldSet:
  """Reads pairs and their links, a line for each pair.

  Args:
    pairs, gold: paths; the files may be compressed.
    first_word: the number that GOLD gives to the first word, 0 or 1.

  Raises:
    InputError: a line is broken, a sentence has no words, a link is outside of
      its sentences, the numbers of lines differ, or no link is sure.
  """
  if first_word not in (0, 1):
    raise InputError(f"FIRST_WORD = {first_word!r} must be 0 or 1")
  read = _pairs(Path(pairs))
  links = [
    _gold(line, f"{gold}, line {number}", first_word)
    for number, line in read_lines(gold)
  ]
  if len(read) != len(links):
    raise InputError(
      f"{pairs} has {len(read):,} lines and {gold} {len(links):,}: line n of"
      " one must belong to line n of the other, and a pair without links needs"
      " an empty line."
    )
  for number, (pair, own) in enumerate(zip(read, links, strict=True), 1):
    _check_inside(pair, own, f"{gold}, line {number}", first_word)
  if not any(own.sure for own in links):
    raise InputError(
      f"{gold} has no sure link (a-b), so recall and AER are not defined."
    )
  content = repr([read, [sorted(map(sorted, own)) for own in links]])
  digest = hashlib.sha256(content.encode()).hexdigest()
  return GoldSet(str(pairs), read, links, digest)


def _pairs(path: Path) -> list[WordPair]:
  out = []
  separator = ""
  for number, line in read_lines(path):
    separator = separator or (_BARS if _BARS in line else "\t")
    sides = line.split(separator)
    if len(sides) != 2:
      form = "source ||| target" if separator == _BARS else "source<TAB>target"
      raise InputError(
        f"{path}, line {number}: {len(sides)} parts where 2 are expected:"
        f" {form}."
      )
    # Not at other white space, which may be within a word.
    words = [[word for word in side.split(" ") if word] for side in sides]
    for name, own in zip(("source", "target"), words, strict=True):
      if not own:
        raise InputError(f"{path}, line {number}: the {name} has no words.")
    out.append(WordPair(*words))
  return out


def _gold(line: str, where: str, first_word: int) -> Gold:
  sure, possible = set(), set()
  for part in line.split():
    match = _LINK.fullmatch(part)
    if not match:
      raise InputError(
        f"{where}: {part!r} is no link; expected 0-0 for a sure link, 0?0 or"
        " 0p0 for a possible one."
      )
    link = int(match[1]) - first_word, int(match[3]) - first_word
    if min(link) < 0:
      raise InputError(
        f"{where}: the link {part!r} has word 0, but words count from 1, as"
        " FIRST_WORD says."
      )
    possible.add(link)
    if match[2] == "-":
      sure.add(link)
  return Gold(frozenset(sure), frozenset(possible))


def _check_inside(
  pair: WordPair, own: Gold, where: str, first_word: int
) -> None:
  sizes = len(pair.source), len(pair.target)
  for a, b in sorted(own.possible):
    if a >= sizes[0] or b >= sizes[1]:
      hint = "" if first_word else "; if GOLD counts from 1, set FIRST_WORD=1"
      raise InputError(
        f"{where}: the link of words {a + first_word} and {b + first_word} is"
        f" outside of the pair, which has {sizes[0]} and {sizes[1]} words,"
        f" counted from {first_word}{hint}."
      )
