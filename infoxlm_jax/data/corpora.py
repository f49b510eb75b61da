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
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from infoxlm_jax.data import files, tables, tasks, texts
from infoxlm_jax.data.files import Patterns
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
    """Bytes of the files, to tell how far reading is; None if not known."""


@dataclasses.dataclass(frozen=True)
class TextFiles:
  """Plain text, a sentence or a document a line, or JSON lines.

  Attributes:
    input: path, glob, or several, as a list or between commas.
    language: of all the files; None takes it from each file's name
      (files.language_of).
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
      files.check_language(self.language, f"{self.name}: language")

  def splits(self) -> Sequence[str]:
    return FILE_SPLITS

  def examples(self, split: str) -> Iterator[Example]:
    _check_split(self, split)
    # All languages first: an hour of reading shall not end in a bad name.
    languages = {}
    for path in files.find_files(self.input):
      by_field = self.language_field and texts.is_jsonl(path, self.format)
      languages[path] = self.language or (
        None if by_field else files.language_of(path)
      )
    for path, language in languages.items():
      if texts.is_jsonl(path, self.format):
        yield from texts.read_json_lines(
          path, language, self.text_field, self.language_field
        )
      else:
        for _, text in files.read_lines(path):
          yield {"text": text, "language": language}

  def fingerprint(self, split: str) -> dict[str, Any]:
    return _fingerprint(self, files.describe(files.find_files(self.input)))

  def size(self, split: str) -> int | None:
    return files.plain_size(files.find_files(self.input))


@dataclasses.dataclass(frozen=True)
class Tsv:
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

  def splits(self) -> Sequence[str]:
    return FILE_SPLITS

  def examples(self, split: str) -> Iterator[Example]:
    _check_split(self, split)
    for path in files.find_files(self.input):
      rows = tables.read_pairs(path, self.columns, self.languages)
      for (language_a, language_b), text_a, text_b in rows:
        yield {
          "text_a": text_a,
          "language_a": language_a,
          "text_b": text_b,
          "language_b": language_b,
        }

  def fingerprint(self, split: str) -> dict[str, Any]:
    return _fingerprint(self, files.describe(files.find_files(self.input)))

  def size(self, split: str) -> int | None:
    return files.plain_size(files.find_files(self.input))


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
    return None


def _name(corpus: Any) -> None:
  """Gives a corpus without a name one that a folder can have."""
  if corpus.name:
    return
  kind = re.sub("(?<=[a-z])(?=[A-Z])", "_", type(corpus).__name__).lower()
  given = corpus.input
  text = given if isinstance(given, str) else ",".join(map(str, given))
  slug = re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.")
  if slug != text:
    # What was left out may be all that two inputs differ in.
    slug = f"{slug[-60:]}-{zlib.crc32(text.encode()):08x}"
  object.__setattr__(corpus, "name", f"{kind}-{slug}")


def _check_split(corpus: Corpus, split: str) -> None:
  if split not in FILE_SPLITS:
    raise InputError(
      f"{corpus.name} has no split {split!r}: files are all 'train'."
    )


def _check_pair(languages: Sequence[str] | None, name: str) -> None:
  if languages is None:
    return
  if isinstance(languages, str) or len(languages) != 2:
    raise InputError(
      f"{name}: languages = {languages!r} must be two codes: ('en', 'fr')."
    )
  for language in languages:
    files.check_language(language, f"{name}: languages")


def _fingerprint(
  corpus: Any, described: list[dict[str, Any]]
) -> dict[str, Any]:
  options = {
    field.name: _plain(getattr(corpus, field.name))
    for field in dataclasses.fields(corpus)
  }
  kind = type(corpus).__name__
  return {"corpus": kind, "options": options, "files": described}


def _plain(value: Any) -> Any:
  """A value as JSON gives it back."""
  if value is None or isinstance(value, str | int | bool):
    return value
  return (
    [_plain(v) for v in value] if isinstance(value, Sequence) else str(value)
  )
