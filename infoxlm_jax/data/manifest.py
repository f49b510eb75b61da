"""manifest.json: what the prepared records hold, and how they were made."""

import dataclasses
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

from infoxlm_jax.errors import InputError

FORMAT = 2
MANIFEST = "manifest.json"

_VERSIONED = ("infoxlm_jax", "array_record", "sentencepiece", "numpy")


@dataclasses.dataclass(frozen=True)
class Shard:
  """One ArrayRecord file; its name is relative to the store's folder."""

  name: str
  records: int
  size: int
  sha256: str


@dataclasses.dataclass(frozen=True)
class Corpus:
  """All records of one language or of one pair of languages.

  Attributes:
    languages: one or two codes.
    records: number of records.
    sentences: sentences in the records; a pair has two, and each piece of a
      split text counts.
    tokens: tokens in the records, with the special tokens that are stored.
    dropped, truncated: sentences by reason.
    shards: the files that hold the records.
  """

  languages: tuple[str, ...]
  records: int
  sentences: int
  tokens: int
  dropped: dict[str, int]
  truncated: dict[str, int]
  shards: tuple[Shard, ...]

  @property
  def name(self) -> str:
    return "-".join(self.languages)


@dataclasses.dataclass(frozen=True)
class Counts:
  """Counts of the sentences of one input corpus in one language or pair.

  read = sentences + all of dropped; records that are held out from training
  count, too. truncated and split are parts of `sentences`. A pair has two
  sentences.
  """

  corpus: str
  split_name: str
  languages: tuple[str, ...]
  read: int
  sentences: int
  tokens: int
  dropped: dict[str, int]
  truncated: dict[str, int]
  split: int


@dataclasses.dataclass(frozen=True)
class Manifest:
  """The content of `manifest.json`.

  Attributes:
    tokenizer_sha256, vocab_size, special_ids: of the tokenizer; special_ids
      has bos, pad, eos, unk and mask.
    row_length, max_side: the most tokens of a text record and of a pair's
      side.
    corpora: the records, by language and pair.
    counts: the sentences read, by input corpus.
    request: the options that the data was prepared with.
    versions: of the packages that decide the content of records.
  """

  tokenizer_sha256: str
  vocab_size: int
  special_ids: dict[str, int]
  row_length: int
  max_side: int
  corpora: tuple[Corpus, ...]
  counts: tuple[Counts, ...]
  request: dict[str, Any]
  versions: dict[str, str]
  format: int = FORMAT

  def to_json(self) -> str:
    return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False)

  @classmethod
  def from_json(cls, text: str) -> "Manifest":
    fields = json.loads(text)
    corpora = []
    for entry in fields.pop("corpora"):
      shards = tuple(Shard(**shard) for shard in entry.pop("shards"))
      languages = tuple(entry.pop("languages"))
      corpora.append(Corpus(languages=languages, shards=shards, **entry))
    counts = []
    for entry in fields.pop("counts"):
      languages = tuple(entry.pop("languages"))
      counts.append(Counts(languages=languages, **entry))
    return cls(corpora=tuple(corpora), counts=tuple(counts), **fields)


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
  """Reads a store's manifest.

  Raises:
    InputError: missing, damaged, or of another format version.
  """
  path = Path(folder) / MANIFEST
  try:
    text = path.read_text("utf-8")
  except OSError as error:
    raise InputError(
      f"{folder} holds no prepared data: cannot read {path} "
      f"({error.strerror}). Prepare the corpus into it first, or set DATA to "
      "the folder that prepare wrote."
    ) from error
  try:
    version = json.loads(text)["format"]
  except (ValueError, KeyError, TypeError) as error:
    raise InputError(
      f"{path} is damaged: it is not the JSON that prepare wrote ({error!r}). "
      "Prepare the data again."
    ) from error
  if version != FORMAT:
    raise InputError(
      f"{path} has format {version}, this version reads format {FORMAT}: "
      "prepare the data again with it."
    )
  try:
    return Manifest.from_json(text)
  except (TypeError, KeyError, AttributeError) as error:
    raise InputError(
      f"{path} is damaged: {error!r}. Prepare the data again."
    ) from error


def versions() -> dict[str, str]:
  """Versions of the packages that decide the content of records."""
  out = {}
  for package in _VERSIONED:
    try:
      out[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      out[package] = "not installed"
  return out
