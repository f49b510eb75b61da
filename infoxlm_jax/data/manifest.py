"""manifest.json: what the prepared records hold, and how they were made."""

import dataclasses
import importlib.metadata
import json
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import limits, read_files

FORMAT = 2
MANIFEST = "manifest.json"

_SPECIAL = ("bos", "pad", "eos", "unk", "mask")
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


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
  """Reads a store's manifest.

  Raises:
    InputError: missing, damaged, or of another format version; or a shard
      would be outside of the folder.
  """
  path = Path(folder) / MANIFEST
  try:
    content = read_files.read_regular(path, limits.JSON)
  except OSError as error:
    raise InputError(
      f"{folder} holds no prepared data: cannot read {path} "
      f"({error.strerror}). Prepare the corpus into it first, or set DATA to "
      "the folder that prepare wrote."
    ) from error
  parsed = read_files.parse_json(content, path)
  fields = read_files.check_object(parsed, path, {"format": int})
  if fields["format"] != FORMAT:
    raise InputError(
      f"{path} has format {fields['format']}, this version reads format"
      f" {FORMAT}: prepare the data again with it."
    )
  try:
    manifest = _typed(Manifest, fields, "manifest")
    _check(manifest)
  except ValueError as error:
    raise InputError(
      f"{path} is damaged: {error}. Prepare the data again, or copy the folder"
      " again from a place where it is whole."
    ) from None
  for shard in (s for corpus in manifest.corpora for s in corpus.shards):
    read_files.check_inside(shard.name, path)
  limits.IDS.check(manifest.vocab_size, path)
  return manifest


def _typed(kind: Any, value: Any, where: str) -> Any:
  """A value of JSON as the dataclass, tuple, dict, text or number it is to be.

  Raises:
    ValueError: it is something else.
  """
  if dataclasses.is_dataclass(kind) and isinstance(kind, type):
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    if not isinstance(value, dict) or set(value) != set(types):
      raise ValueError(f"{where} does not have the fields {', '.join(types)}")
    return kind(
      **{
        name: _typed(types[name], inner, f"{where}.{name}")
        for name, inner in value.items()
      }
    )
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if origin is tuple and isinstance(value, list):
    return tuple(
      _typed(arguments[0], inner, f"{where}[{number}]")
      for number, inner in enumerate(value)
    )
  if origin is dict and isinstance(value, dict):
    return {
      name: _typed(arguments[1], inner, f"{where}.{name}")
      for name, inner in value.items()
    }
  whole = type(value) is int and 0 <= value < 1 << 62
  if kind is Any or (kind is str and isinstance(value, str)):
    return value
  if kind is int and whole:
    return value
  raise ValueError(f"{where} is {str(value)[:40]!r}")


def _check(manifest: Manifest) -> None:
  """Raises ValueError where numbers of a manifest contradict each other."""
  ids: Mapping[str, int] = manifest.special_ids
  if set(ids) != set(_SPECIAL) or max(ids.values()) >= manifest.vocab_size:
    raise ValueError(f"special_ids is {ids}")
  languages = [corpus.languages for corpus in manifest.corpora]
  if len(set(languages)) < len(languages):
    raise ValueError("two corpora have the same languages")
  for corpus in manifest.corpora:
    if len(corpus.languages) not in (1, 2):
      raise ValueError(f"a corpus has the languages {corpus.languages}")
    in_shards = sum(shard.records for shard in corpus.shards)
    if corpus.records != in_shards:
      raise ValueError(
        f"{corpus.name} has {corpus.records} records, its shards {in_shards}"
      )


def versions() -> dict[str, str]:
  """Versions of the packages that decide the content of records."""
  out = {}
  for package in _VERSIONED:
    try:
      out[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      out[package] = "not installed"
  return out
