"""Corpora that `prepare` reads, each a frozen dataclass of a few options.

A corpus yields the same examples in the same order each time, all of one kind:

    text      {"text", "language"}: a sentence, or a whole document
    pairs     {"text_a", "language_a", "text_b", "language_b"}
    multiway  {"id", and a text for each language}, empty where there is none

Ids may replace the texts: "ids", or "ids_a" and "ids_b", int32 [length],
without special tokens. Each format is read by a module of its own; only
seqio's needs TensorFlow. docs/data.md shows each format.
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
  tmx_pairs,
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
  """Plain text with a sentence or a document on each line, or JSON lines.

  Attributes:
    input: path or glob; or several, as a list or with commas between them.
    language: of all files; None takes it from each file's name
      (file_names.language_of).
    format: "lines" or "jsonl"; None chooses by each file's name.
    text_field: the field of a JSON line that holds the text.
    language_field: the field that holds the language; None: see language.
    name: of the corpus; "" makes one from the input.
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
    # All names first, so that a bad one is not found after hours of reading.
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
  """Sentence pairs in tab-separated files, without quoting, or JSON lines.

  Files with .jsonl, .ndjson or .json in their names are JSON lines, whose
  fields are the columns (jsonl.read_pairs).

  Attributes:
    input: path or glob; or several, as a list or with commas between them.
    columns: names of the two columns with text (the first line is a header
      then), or their numbers from 1; None where there are only two.
    languages: of the two; None takes them from the header, if its names are
      languages, or from each file's name, such as en-fr.tsv.xz.
    name: of the corpus; "" makes one from the input.
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
      read = jsonl.read_pairs if jsonl.is_jsonl(path, None) else tsv.read_pairs
      rows = read(path, self.columns, self.languages)
      for languages, text_a, text_b in rows:
        yield pair_example(languages, text_a, text_b)


@dataclasses.dataclass(frozen=True)
class Moses(Files):
  """Sentence pairs in two files, line by line.

  Attributes:
    input: the beginning of both names, such as `Europarl.en-fr` for
      Europarl.en-fr.en and Europarl.en-fr.fr; globs, or several.
    languages: of the first and second side, the endings of the two names;
      None takes them from `input`, such as en-fr.
    name: of the corpus; "" makes one from the input.
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
    found = moses.find_pairs(self.input, self.languages)
    for pair, languages in found.pairs:
      for text_a, text_b in moses.read_pairs(pair):
        yield pair_example(languages, text_a, text_b)

  def _paths(self) -> list[Path]:
    return moses.all_files(moses.find_pairs(self.input, self.languages).pairs)

  def unused(self) -> dict[Path, str]:
    return moses.find_pairs(self.input, self.languages).unused


@dataclasses.dataclass(frozen=True)
class Tmx(Files):
  """Sentence pairs in TMX files.

  Attributes:
    input: path or glob; or several, as a list or with commas between them.
    languages: to read, in the order of a pair's sides; en reads en-US and
      en-GB as en. None reads all pairs of languages, by their own tags.
    name: of the corpus; "" makes one from the input.
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
      for languages, text_a, text_b in tmx_pairs.read_pairs(
        path, self.languages
      ):
        yield pair_example(languages, text_a, text_b)


@dataclasses.dataclass(frozen=True)
class FairseqBinary(Files):
  """Token ids that the released code's tools wrote (see fairseq.py).

  Attributes:
    folder: holds train.0.bin, train.0.idx and perhaps dict.txt.
    layout: "mlm", "tlm" or "xlco", by the tool that wrote the files.
    language: of MLM sentences, which the files do not name; "mul" for many.
    languages: of both sides of pairs; None takes them from the folder's name,
      such as en-fr; ("mul", "mul") for many.
    swapped: whether the second half of TLM rows repeats the first with its
      sides swapped; it is left out then. None: decided by comparing rows.
    prefix: the beginning of the files' names.
    name: of the corpus; "" makes one from folder and layout.
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
    """Text for the layout "mlm", else pairs."""
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
      " 'fr'), or to ('mul', 'mul') for pairs of many languages."
    )
