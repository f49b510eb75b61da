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
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from infoxlm_jax.data import (
  fairseq_binary,
  files,
  moses,
  names,
  tables,
  tasks,
  texts,
  tmx,
)
from infoxlm_jax.data.files import Patterns
from infoxlm_jax.data.tokenizer import Tokenizer
from infoxlm_jax.errors import InputError

Example = Mapping[str, Any]

# The one split of what is plain files.
FILE_SPLITS = ("train",)

_KINDS = ("text", "pairs", "multiway")


class Corpus(Protocol):
  """What `prepare` needs of a corpus.

  Attributes:
    name: stable; names the corpus in manifests, work folders and errors.
    kind: "text", "pairs" or "multiway".
  """

  @property
  def name(self) -> str: ...

  @property
  def kind(self) -> str: ...

  def splits(self) -> Sequence[str]:
    """Names of its splits; `("train",)` of files."""

  def examples(self, split: str) -> Iterator[Example]:
    """The examples in order; InputError at the first bad one."""

  def fingerprint(self, split: str) -> dict[str, Any]:
    """JSON that changes when the examples do: options, files or version."""

  def size(self, split: str) -> int | None:
    """Bytes that reading it consumes (consumed.py); None if not known."""

  def check_tokenizer(self, tokenizer: Tokenizer) -> None:
    """Raises InputError where ready-made ids cannot be this tokenizer's."""


class _Files:
  """What all corpora of plain files share."""

  # Whether examples hold ids in the place of texts.
  ready_made: ClassVar[bool] = False

  def _paths(self) -> list[Path]:
    return files.find_files(getattr(self, "input"))  # noqa: B009

  def splits(self) -> Sequence[str]:
    return FILE_SPLITS

  def fingerprint(self, split: str) -> dict[str, Any]:
    _check_split(self, split)
    fields = [field.name for field in dataclasses.fields(self)]  # type: ignore
    return {
      "corpus": type(self).__name__,
      "options": {name: _plain(getattr(self, name)) for name in fields},
      "files": files.describe(self._paths()),
    }

  def size(self, split: str) -> int | None:
    _check_split(self, split)
    return files.total_size(self._paths())

  def check_tokenizer(self, tokenizer: Tokenizer) -> None:
    del tokenizer  # texts are for any


@dataclasses.dataclass(frozen=True)
class TextFiles(_Files):
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
    _name(self)
    if self.format not in (None, "lines", "jsonl"):
      raise InputError(
        f"{self.name}: format = {self.format!r} is neither 'lines' nor 'jsonl'."
      )
    if self.language is not None:
      names.check_language(self.language, f"{self.name}: language")

  def examples(self, split: str) -> Iterator[Example]:
    _check_split(self, split)
    # All languages first: an hour of reading shall not end in a bad name.
    languages = {}
    for path in self._paths():
      by_field = self.language_field and texts.is_jsonl(path, self.format)
      languages[path] = self.language or (
        None if by_field else names.language_of(path)
      )
    for path, language in languages.items():
      if texts.is_jsonl(path, self.format):
        yield from texts.read_json_lines(
          path, language, self.text_field, self.language_field
        )
      else:
        for _, text in files.read_lines(path):
          yield {"text": text, "language": language}


@dataclasses.dataclass(frozen=True)
class Tsv(_Files):
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
    _name(self)
    if self.columns is not None:
      kinds = {type(column) for column in self.columns}
      if len(self.columns) != 2 or kinds not in ({str}, {int}):
        raise InputError(
          f"{self.name}: columns = {self.columns!r} must be two names, such as"
          " ('en', 'fr'), or two numbers from 1."
        )
    _check_pair(self.languages, self.name)

  def examples(self, split: str) -> Iterator[Example]:
    _check_split(self, split)
    for path in self._paths():
      rows = tables.read_pairs(path, self.columns, self.languages)
      for languages, text_a, text_b in rows:
        yield _pair(languages, text_a, text_b)


@dataclasses.dataclass(frozen=True)
class Moses(_Files):
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
    _name(self)
    _check_pair(self.languages, self.name)

  def examples(self, split: str) -> Iterator[Example]:
    _check_split(self, split)
    for pair, languages in moses.find_pairs(self.input, self.languages):
      for text_a, text_b in moses.read_pairs(pair):
        yield _pair(languages, text_a, text_b)

  def _paths(self) -> list[Path]:
    return moses.all_files(moses.find_pairs(self.input, self.languages))


@dataclasses.dataclass(frozen=True)
class Tmx(_Files):
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
    _name(self)
    _check_pair(self.languages, self.name, more=True)

  def examples(self, split: str) -> Iterator[Example]:
    _check_split(self, split)
    for path in self._paths():
      for languages, text_a, text_b in tmx.read_pairs(path, self.languages):
        yield _pair(languages, text_a, text_b)


@dataclasses.dataclass(frozen=True)
class FairseqBinary(_Files):
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
    if self.layout not in fairseq_binary.LAYOUTS:
      raise InputError(
        f"{self.folder}: layout = {self.layout!r} is not one of"
        f" {', '.join(fairseq_binary.LAYOUTS)}."
      )
    _name(self)
    names.check_language(self.language, f"{self.name}: language")
    _check_pair(self.languages, self.name)

  @property
  def kind(self) -> str:
    """Sentences of "mlm", else pairs."""
    return "text" if self.layout == "mlm" else "pairs"

  def examples(self, split: str) -> Iterator[Example]:
    _check_split(self, split)
    if self.layout == "mlm":
      for index in self._indexes():
        for ids in fairseq_binary.read_sentences(fairseq_binary.Rows(index)):
          yield {"ids": ids, "language": self.language}
      return
    a, b = self._languages()
    for index in self._indexes():
      rows = fairseq_binary.Rows(index)
      for ids_a, ids_b in fairseq_binary.read_pairs(
        rows, self.layout, self.swapped
      ):
        yield {
          "ids_a": ids_a,
          "language_a": a,
          "ids_b": ids_b,
          "language_b": b,
        }

  def size(self, split: str) -> int | None:
    _check_split(self, split)
    return files.total_size([p.with_suffix(".bin") for p in self._indexes()])

  def check_tokenizer(self, tokenizer: Tokenizer) -> None:
    dictionary = Path(self.folder).expanduser() / "dict.txt"
    fairseq_binary.check_tokenizer(self._indexes(), tokenizer, dictionary)

  def _indexes(self) -> list[Path]:
    return fairseq_binary.find_indexes(self.folder, self.prefix)

  def _paths(self) -> list[Path]:
    return [
      path.with_suffix(suffix)
      for path in self._indexes()
      for suffix in (".bin", ".idx")
    ]

  def _languages(self) -> tuple[str, str]:
    if self.languages:
      return self.languages[0], self.languages[1]
    if pair := names.pair_of(Path(self.folder).resolve().name):
      return pair
    raise InputError(
      f"{self.folder}: which languages? Set languages, for example to ('en',"
      " 'fr'), or to ('mul', 'mul') where the pairs are of many."
    )


@dataclasses.dataclass(frozen=True)
class SeqioTask:
  """A registered seqio Task, or all tasks of a Mixture one after the other.

  Attributes:
    name: of the Task or Mixture.
    modules: to import first, which register it, such as ("tasks.verses",).
    kind: "text", "pairs" or "multiway".
  """

  name: str
  modules: Sequence[str]
  kind: str

  def __post_init__(self) -> None:
    if self.kind not in _KINDS:
      raise InputError(
        f"task {self.name!r}: kind = {self.kind!r} is not one of"
        f" {', '.join(_KINDS)}."
      )

  def splits(self) -> Sequence[str]:
    tasks.import_tasks(self.modules)
    return tasks.splits_of(self.name)

  def examples(self, split: str) -> Iterator[Example]:
    tasks.import_tasks(self.modules)
    return tasks.read_task(self.name, split)

  def fingerprint(self, split: str) -> dict[str, Any]:
    tasks.import_tasks(self.modules)
    sources = tasks.describe(self.name, split)
    return {"corpus": "SeqioTask", "task": self.name, "sources": sources}

  def size(self, split: str) -> int | None:
    tasks.import_tasks(self.modules)
    return tasks.size_of(self.name, split)

  def check_tokenizer(self, tokenizer: Tokenizer) -> None:
    tasks.import_tasks(self.modules)
    for corpus in tasks.corpora_of(self.name):
      corpus.check_tokenizer(tokenizer)


def _name(corpus: Any) -> None:
  """Gives a corpus without a name one that a folder can have."""
  if corpus.name:
    return
  kind = re.sub("(?<=[a-z])(?=[A-Z])", "_", type(corpus).__name__).lower()
  if getattr(corpus, "input", "") is None:
    raise InputError(
      f"{type(corpus).__name__}.input names no files: set INPUT (for text MONO,"
      " for pairs PAIRS, where the gin file has these), or DATA, a folder that"
      " is prepared already."
    )
  if isinstance(corpus, FairseqBinary):
    text = f"{corpus.layout}-{corpus.folder}"
  elif isinstance(corpus.input, str | os.PathLike):
    text = str(corpus.input)
  else:
    text = ",".join(map(str, corpus.input))
  slug = re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.")
  if slug != text:
    # What was left out may be all that two inputs differ in.
    slug = f"{slug[-60:]}-{zlib.crc32(text.encode()):08x}"
  object.__setattr__(corpus, "name", f"{kind}-{slug}")


def _pair(languages: tuple[str, str], text_a: str, text_b: str) -> Example:
  return {
    "text_a": text_a,
    "language_a": languages[0],
    "text_b": text_b,
    "language_b": languages[1],
  }


def _check_split(corpus: Any, split: str) -> None:
  if split not in FILE_SPLITS:
    raise InputError(
      f"{corpus.name} has no split {split!r}: files are all 'train'."
    )


def _check_pair(
  languages: Sequence[str] | None, name: str, more: bool = False
) -> None:
  if languages is None:
    return
  count = 0 if isinstance(languages, str) else len(languages)
  if count < 2 or (count > 2 and not more):
    raise InputError(
      f"{name}: languages = {languages!r} must be two codes"
      f"{' or more' if more else ''}, such as ('en', 'fr')."
    )
  for language in languages:
    names.check_language(language, f"{name}: languages")


def _plain(value: Any) -> Any:
  """A value as JSON gives it back."""
  if value is None or isinstance(value, str | int | bool):
    return value
  return (
    [_plain(v) for v in value] if isinstance(value, Sequence) else str(value)
  )
