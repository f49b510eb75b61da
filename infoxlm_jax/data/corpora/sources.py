"""Corpora: what `prepare` reads, each described by a few options.

A corpus gives examples, in order, the same each time, of one kind:

    text      {"text", "language"}: a sentence, or a whole document
    pairs     {"text_a", "language_a", "text_b", "language_b"}
    multiway  {"id", and a text a language}, empty where there is none

Ready-made tokens take the place of texts: "ids", or "ids_a" and "ids_b", int32
[length], without special tokens. The readers stand in modules of their own;
none but seqio's needs TensorFlow. docs/data.md shows each format.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from infoxlm_jax.data.corpora import (
  fairseq,
  file_names,
  jsonl,
  moses,
  open_files,
  tmx,
  tsv,
)
from infoxlm_jax.data.corpora.base import (
  Example,
  Files,
  check_pair,
  check_split,
  give_name,
  pair_example,
)
from infoxlm_jax.data.corpora.open_files import Patterns
from infoxlm_jax.data.corpora.seqio_reader import SeqioTask
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import InputError

# The names that gin files use, as sources.Tsv.
__all__ = ["FairseqBinary", "Moses", "SeqioTask", "TextFiles", "Tmx", "Tsv"]


@dataclasses.dataclass(frozen=True)
class TextFiles(Files):
  """Plain text, a sentence or a document a line, or JSON lines.

  Attributes:
    input: path, glob, or several, as a list or between commas.
    language: of all the files; None takes it from each file's name
      (names.language_of).
    format: "lines", "jsonl", or None: jsonl where the file's name says so.
    text_field: of a JSON line, holds the text.
    language_field: of a JSON line, holds the language, if given.
    name: "" makes one of the input.
  """

  input: Patterns
  language: str | None = None
  format: str | None = None
  text_field: str = "text"
  language_field: str | None = None
  name: str = ""
  kind: str = dataclasses.field(default="text", init=False)

  def __post_init__(self) -> None:
    give_name(self)
    if self.format not in (None, "lines", "jsonl"):
      raise InputError(
        f"{self.name}: format = {self.format!r} is neither 'lines' nor 'jsonl'."
      )
    if self.language is not None:
      file_names.check_language(self.language, f"{self.name}: language")

  def examples(self, split: str) -> Iterator[Example]:
    check_split(self, split)
    # All languages first: an hour of reading shall not end in a bad name.
    languages = {}
    for path in self._paths():
      by_field = self.language_field and jsonl.is_jsonl(path, self.format)
      languages[path] = self.language or (
        None if by_field else file_names.language_of(path)
      )
    for path, language in languages.items():
      if jsonl.is_jsonl(path, self.format):
        yield from jsonl.read_json_lines(
          path, language, self.text_field, self.language_field
        )
      else:
        for _, text in open_files.read_lines(path):
          yield {"text": text, "language": language}


@dataclasses.dataclass(frozen=True)
class Tsv(Files):
  """Sentence pairs in tab-separated files, without quoting.

  Attributes:
    input: path, glob, or several, as a list or between commas.
    columns: names of the two columns with text (the first line is a header
      then), or their numbers from 1; None where there are only two.
    languages: of the two; None takes them from the header, where its names
      are languages, or from each file's name, such as en-fr.tsv.xz.
    name: "" makes one of the input.
  """

  input: Patterns
  columns: Sequence[str] | Sequence[int] | None = None
  languages: Sequence[str] | None = None
  name: str = ""
  kind: str = dataclasses.field(default="pairs", init=False)

  def __post_init__(self) -> None:
    give_name(self)
    if self.columns is not None:
      kinds = {type(column) for column in self.columns}
      if len(self.columns) != 2 or kinds not in ({str}, {int}):
        raise InputError(
          f"{self.name}: columns = {self.columns!r} must be two names, such as"
          " ('en', 'fr'), or two numbers from 1."
        )
    check_pair(self.languages, self.name)

  def examples(self, split: str) -> Iterator[Example]:
    check_split(self, split)
    for path in self._paths():
      rows = tsv.read_pairs(path, self.columns, self.languages)
      for languages, text_a, text_b in rows:
        yield pair_example(languages, text_a, text_b)


@dataclasses.dataclass(frozen=True)
class Moses(Files):
  """Sentence pairs in two files, line by line.

  Attributes:
    input: what both names begin with, such as `Europarl.en-fr` for
      Europarl.en-fr.en and Europarl.en-fr.fr; globs, or several.
    languages: of the first and second side, the endings of the two names;
      None takes them from `input`'s own, en-fr.
    name: "" makes one of the input.
  """

  input: Patterns
  languages: Sequence[str] | None = None
  name: str = ""
  kind: str = dataclasses.field(default="pairs", init=False)

  def __post_init__(self) -> None:
    give_name(self)
    check_pair(self.languages, self.name)

  def examples(self, split: str) -> Iterator[Example]:
    check_split(self, split)
    for pair, languages in moses.find_pairs(self.input, self.languages):
      for text_a, text_b in moses.read_pairs(pair):
        yield pair_example(languages, text_a, text_b)

  def _paths(self) -> list[Path]:
    return moses.all_files(moses.find_pairs(self.input, self.languages))


@dataclasses.dataclass(frozen=True)
class Tmx(Files):
  """Sentence pairs in TMX files.

  Attributes:
    input: path, glob, or several, as a list or between commas.
    languages: which to read, the earlier one first in a pair; en takes en-US
      and en-GB as en. None reads all pairs of languages, with their tags.
    name: "" makes one of the input.
  """

  input: Patterns
  languages: Sequence[str] | None = None
  name: str = ""
  kind: str = dataclasses.field(default="pairs", init=False)

  def __post_init__(self) -> None:
    give_name(self)
    check_pair(self.languages, self.name, more=True)

  def examples(self, split: str) -> Iterator[Example]:
    check_split(self, split)
    for path in self._paths():
      for languages, text_a, text_b in tmx.read_pairs(path, self.languages):
        yield pair_example(languages, text_a, text_b)


@dataclasses.dataclass(frozen=True)
class FairseqBinary(Files):
  """Token ids that the released code's tools wrote (data/fairseq_binary.py).

  Attributes:
    folder: with train.0.bin, train.0.idx and perhaps dict.txt.
    layout: "mlm", "tlm" or "xlco", by the tool that wrote them.
    language: of MLM sentences; the files do not tell. "mul" is many.
    languages: of both sides of pairs; None takes them from the folder's
      name, such as en-fr. ("mul", "mul") where they are many.
    swapped: whether the second half of TLM rows is the first with its sides
      swapped, and is left out; None looks.
    prefix: what the names of the files begin with.
    name: "" makes one of folder and layout.
  """

  ready_made: ClassVar[bool] = True

  folder: str
  layout: str = "mlm"
  language: str = "mul"
  languages: Sequence[str] | None = None
  swapped: bool | None = None
  prefix: str = "train"
  name: str = ""

  def __post_init__(self) -> None:
    if self.layout not in fairseq.LAYOUTS:
      raise InputError(
        f"{self.folder}: layout = {self.layout!r} is not one of"
        f" {', '.join(fairseq.LAYOUTS)}."
      )
    give_name(self)
    file_names.check_language(self.language, f"{self.name}: language")
    check_pair(self.languages, self.name)

  @property
  def kind(self) -> str:
    """Sentences of "mlm", else pairs."""
    return "text" if self.layout == "mlm" else "pairs"

  def examples(self, split: str) -> Iterator[Example]:
    check_split(self, split)
    if self.layout == "mlm":
      for index in self._indexes():
        for ids in fairseq.read_sentences(fairseq.Rows(index)):
          yield {"ids": ids, "language": self.language}
      return
    a, b = self._languages()
    for index in self._indexes():
      rows = fairseq.Rows(index)
      for ids_a, ids_b in fairseq.read_pairs(rows, self.layout, self.swapped):
        yield {
          "ids_a": ids_a,
          "language_a": a,
          "ids_b": ids_b,
          "language_b": b,
        }

  def size(self, split: str) -> int | None:
    check_split(self, split)
    return open_files.total_size(
      [p.with_suffix(".bin") for p in self._indexes()]
    )

  def check_tokenizer(self, tokenizer: Tokenizer) -> None:
    dictionary = Path(self.folder).expanduser() / "dict.txt"
    fairseq.check_tokenizer(self._indexes(), tokenizer, dictionary)

  def _indexes(self) -> list[Path]:
    return fairseq.find_indexes(self.folder, self.prefix)

  def _paths(self) -> list[Path]:
    return [
      path.with_suffix(suffix)
      for path in self._indexes()
      for suffix in (".bin", ".idx")
    ]

  def _languages(self) -> tuple[str, str]:
    if self.languages:
      return self.languages[0], self.languages[1]
    if pair := file_names.pair_of(Path(self.folder).resolve().name):
      return pair
    raise InputError(
      f"{self.folder}: which languages? Set languages, for example to ('en',"
      " 'fr'), or to ('mul', 'mul') where the pairs are of many."
    )
