"""Sentences whose words have tags, in the columns of CoNLL's shared tasks.

Three forms, told apart by the file's name and its first row:

    word<TAB>tag                       XTREME's train-en.tsv; WikiANN's own
                                       files have the language before the
                                       word, en:word<TAB>tag
    word pos chunk tag                 CoNLL-2002 and 2003: columns between
                                       spaces, the tag last; -DOCSTART- rows
    id<TAB>form<TAB>lemma<TAB>UPOS...  CoNLL-U (*.conllu): ten cells; the tag is
                                       UPOS

An empty line ends a sentence.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from infoxlm_jax.data.corpora.file_names import plain_name
from infoxlm_jax.data.corpora.open_files import read_lines
from infoxlm_jax.errors import InputError

_DOCUMENT = "-DOCSTART-"
_CONLLU_CELLS = 10
# A word of CoNLL-U; a range 1-2 is one form of several words that follow, and
# 1.1 a word that is not in the text.
_WORD_ID = re.compile(r"\d+")
_NO_WORD_ID = re.compile(r"\d+-\d+|\d+\.\d+")
_BIO = re.compile(r"O|[BI]-(.+)")


class Row(NamedTuple):
  """A word with its tag, and the line that they are in."""

  word: str
  tag: str
  line: int


class Tagged(NamedTuple):
  """Tagged sentences of a file.

  Attributes:
    where: the file, for messages.
    sentences: their rows; none is empty.
  """

  where: str
  sentences: list[list[Row]]


def read(path: Path, language: str) -> Tagged:
  """Reads a file of one of the forms above; it may be compressed.

  Args:
    path: of the file.
    language: of its words; WikiANN's prefix, where the file has one.

  Raises:
    InputError: a row has other cells than it should, no tag or no prefix, or
      there are no rows.
  """
  rows = _conllu(path) if is_conllu(path) else _columns(path, language)
  sentences: list[list[Row]] = [[]]
  for row in rows:
    if row is not None:
      sentences[-1].append(row)
    elif sentences[-1]:
      sentences.append([])
  if not sentences[-1]:
    sentences.pop()
  if not sentences:
    raise InputError(f"{path} has no rows: expected words with their tags.")
  return Tagged(str(path), sentences)


def is_conllu(path: PurePath) -> bool:
  """Whether a file is in CoNLL-U's form, by its name."""
  return PurePath(plain_name(path)).suffix == ".conllu"


def check_tags(
  tagged: Tagged, known: Iterable[str], words: str = "the training data"
) -> None:
  """Raises InputError, naming the line, at a tag that is not known.

  Args:
    tagged: to check.
    known: the tags that there may be.
    words: whose tags these are, for the message.
  """
  known = set(known)
  for row in rows_of([tagged]):
    if row.tag not in known:
      raise InputError(
        f"{tagged.where}, line {row.line}: the tag {row.tag!r} is not among"
        f" those of {words}: {', '.join(sorted(known))}."
      )


def check_bio(tagged: Tagged) -> int:
  """Counts entities that begin with I-, as conlleval reads them.

  After O, after another type and at the start of a sentence I-X begins an
  entity: files in the older IOB1 form begin most of theirs so, and in BIO it
  is an error of the annotation.

  Raises:
    InputError: a tag is neither O nor B-TYPE nor I-TYPE.
  """
  count = 0
  for sentence in tagged.sentences:
    before = "O"
    for row in sentence:
      if not _BIO.fullmatch(row.tag):
        raise InputError(
          f"{tagged.where}, line {row.line}: the tag {row.tag!r} is neither O"
          " nor B-TYPE nor I-TYPE; convert the file to BIO."
        )
      count += row.tag[0] == "I" and before[2:] != row.tag[2:]
      before = row.tag
  return count


def rows_of(files: Iterable[Tagged]) -> Iterator[Row]:
  """All rows of several files."""
  for tagged in files:
    for sentence in tagged.sentences:
      yield from sentence


def _conllu(path: Path) -> Iterator[Row | None]:
  """Words and, as None, ends of sentences."""
  for number, line in read_lines(path):
    if not line.strip():
      yield None
      continue
    if line.startswith("#"):
      continue
    cells = line.split("\t")
    if len(cells) != _CONLLU_CELLS:
      raise _wrong_cells(path, number, cells, str(_CONLLU_CELLS))
    if _NO_WORD_ID.fullmatch(cells[0]):
      continue
    if not _WORD_ID.fullmatch(cells[0]):
      raise InputError(
        f"{path}, line {number}: {cells[0]!r} is no number of a word; CoNLL-U"
        " has 1, 1-2 or 1.1 there."
      )
    if cells[3] == "_":
      raise InputError(
        f"{path}, line {number}: the word {cells[1]!r} has no UPOS (column 4)."
      )
    yield Row(cells[1], cells[3], number)


def _columns(path: Path, language: str) -> Iterator[Row | None]:
  """Words and, as None, ends of sentences."""
  tabs, width, prefix = False, 0, ""
  for number, line in read_lines(path):
    if not line.strip():
      yield None
      continue
    if not width:
      tabs = "\t" in line
    cells = line.split("\t") if tabs else line.split()
    if not tabs and cells[0] == _DOCUMENT:
      yield None
      continue
    if not width:
      # A tab separates exactly two cells; other columns follow spaces.
      width = 2 if tabs else len(cells)
      if tabs and cells[0].startswith(f"{language}:"):
        prefix = f"{language}:"
    if len(cells) != width or width < 2:
      raise _wrong_cells(path, number, cells, str(max(width, 2)))
    if not cells[0].startswith(prefix):
      raise InputError(
        f"{path}, line {number}: the word {cells[0]!r} does not begin with"
        f" {prefix!r}, as that of the first row does."
      )
    if not cells[-1].strip():
      raise InputError(
        f"{path}, line {number}: the word {cells[0]!r} has no tag."
      )
    yield Row(cells[0].removeprefix(prefix), cells[-1].strip(), number)


def _wrong_cells(
  path: Path, number: int, cells: Sequence[str], expected: str
) -> InputError:
  shown = " | ".join(cells)
  return InputError(
    f"{path}, line {number}: {len(cells)} cells ({shown[:60]}) where"
    f" {expected} are expected. A row holds a word and its tag, and an empty"
    " line ends a sentence."
  )
