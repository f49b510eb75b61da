"""Adjacent segments of documents: text files with blank lines in between."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from infoxlm_jax.data.corpora import file_names, open_files
from infoxlm_jax.data.corpora.base import (
  Example,
  Files,
  check_split,
  give_name,
  pair_example,
)
from infoxlm_jax.data.corpora.open_files import Patterns
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import limits


@dataclasses.dataclass(frozen=True)
class Documents(Files):
  """Pairs of adjacent segments, both of one language: for NextSentenceStream.

  A segment is consecutive sentences of a document, without a change.

  Attributes:
    input: path or glob; or several, as a list or with commas between them. A
      file has a sentence on each line and a blank line after each document.
    language: of all files; None takes it from each file's name.
    segment_bytes: the most bytes of a segment, see `segments`. Texts have
      about three to four bytes a token in all scripts.
    name: of the corpus; "" makes one from the input.
  """

  input: Patterns
  language: str | None = None
  segment_bytes: int = 700
  name: str = ""
  kind: str = dataclasses.field(default="pairs", init=False)

  def __post_init__(self) -> None:
    give_name(self)
    if self.segment_bytes < 1:
      raise InputError(
        f"{self.name}: segment_bytes = {self.segment_bytes} must be at least 1,"
        " which makes every sentence a segment."
      )
    if self.language is not None:
      file_names.check_language(self.language, f"{self.name}: language")

  def examples(self, split: str) -> Iterator[Example]:
    check_split(self, split)
    languages = {
      path: self.language or file_names.language_of(path)
      for path in self._paths()
    }
    for path, language in languages.items():
      for document in read_documents(path):
        for a, b in adjacent(segments(document, self.segment_bytes)):
          yield pair_example((language, language), a, b)


def read_documents(path: Path) -> Iterator[list[str]]:
  """The documents of a file, each a list of its sentences.

  A sentence stands on a line; one or more blank lines end a document.

  Raises:
    InputError: the file is missing, empty or damaged, a document is larger
      than limits.DOCUMENT, or there is no blank line: then the file does not
      say where its documents end.
  """
  document: list[str] = []
  size = 0
  blank = False
  for number, line in open_files.read_lines(path):
    if sentence := line.strip():
      document.append(sentence)
      size += len(sentence)
      limits.DOCUMENT.check(size, f"{path}, line {number}")
      continue
    blank = True
    size = 0
    if document:
      yield document
      document = []
  if not blank:
    raise InputError(
      f"{path} has no blank line: it should have a sentence on each line and a"
      " blank line after each document. Text without document boundaries is"
      " prepared by gin/prepare/text.gin."
    )
  if document:
    yield document


def segments(document: Sequence[str], segment_bytes: int) -> list[str]:
  """Consecutive sentences, joined by a space while they have room.

  Args:
    document: its sentences.
    segment_bytes: the most bytes of UTF-8 of a segment; a sentence that is
      longer is a segment of its own. 1: every sentence is.
  """
  out: list[str] = []
  size = segment_bytes + 1
  for sentence in document:
    more = len(sentence.encode("utf-8"))
    if size + 1 + more <= segment_bytes:
      out[-1] += f" {sentence}"
      size += 1 + more
    else:
      out.append(sentence)
      size = more
  return out


def adjacent(segments: Sequence[str]) -> Iterator[tuple[str, str]]:
  """Pairs of neighbours that use every segment.

  The first and second, the third and fourth, and so on; the last of an odd
  number goes with the one before it, which so stands in two pairs. A single
  segment has no neighbour: its second side is empty, and the filters of
  `prepare` drop and count it as such.
  """
  for start in range(0, len(segments) - 1, 2):
    yield segments[start], segments[start + 1]
  if len(segments) == 1:
    yield segments[0], ""
  elif len(segments) % 2:
    yield segments[-2], segments[-1]
