"""Prepared records: their bytes, the files that hold them, random access.

A folder ("store") holds ArrayRecord files (shards), a set for each language
and each pair of languages, and `manifest.json`, which lists them.

    text record   the ids of one block: <s> s1 </s> s2 </s> ...
    pair record   length of side a, then the ids of both sides, without special
                  tokens

All numbers are little-endian int32.
"""

import concurrent.futures
import os
import stat
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python import array_record_module

from infoxlm_jax.data.manifest import MANIFEST, Shard, read_manifest
from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime import read_files
from infoxlm_jax.special_ids import Ids

# One record in an ArrayRecord group, so that reading a record unpacks no other.
# Pairs are too short for zstd: it takes three times as long to write and twice
# as long to read as snappy, for 13 % fewer bytes.
_WRITER_OPTIONS = {
  "text": "group_size:1,zstd:3",
  "pairs": "group_size:1,snappy",
}
# Records are read in random order: reading ahead would be thrown away.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"

_HASHERS = 8  # threads

Pair = tuple[str, str]


def encode_text(tokens: np.ndarray) -> bytes:
  """The bytes of a text record."""
  return np.asarray(tokens, "<i4").tobytes()


def decode_text(record: bytes) -> np.ndarray:
  """The block of a text record, int32 [length]."""
  return np.frombuffer(record, "<i4").astype(np.int32)


def encode_pair(a: np.ndarray, b: np.ndarray) -> bytes:
  """The bytes of a pair record."""
  return np.concatenate([[len(a)], a, b]).astype("<i4").tobytes()


def decode_pair(record: bytes) -> tuple[np.ndarray, np.ndarray]:
  """Both sides of a pair record, int32 [length a], int32 [length b]."""
  numbers = decode_text(record)
  end = 1 + int(numbers[0])
  return numbers[1:end], numbers[end:]


def write_shard(
  folder: Path, name: str, records: Iterable[bytes], kind: str = "text"
) -> Shard:
  """Writes one ArrayRecord file and returns its entry of the manifest.

  Args:
    folder, name: of the file.
    records: bytes of encode_text or encode_pair.
    kind: "text" or "pairs".

  Raises:
    StorageError: writing failed.
  """
  path = folder / name
  count = 0
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = array_record_module.ArrayRecordWriter(
      str(path), _WRITER_OPTIONS[kind]
    )
    for record in records:
      writer.write(record)
      count += 1
    writer.close()
    return Shard(name, count, path.stat().st_size, _sha256(path))
  except (OSError, RuntimeError) as error:
    raise StorageError(f"cannot write {path}: {error}") from error


class Store:
  """Random access to a prepared folder; thread safe and picklable.

  Attributes:
    folder: the folder.
    manifest: the content of `manifest.json`.
    text_counts: {language: records}; text_tokens: {language: tokens}.
    pair_counts: {(a, b): pairs}.
  """

  def __init__(self, folder: str | os.PathLike[str]):
    """Opens the folder; readers of its files open on first use.

    Raises:
      InputError: the manifest is missing, damaged or of another format, or a
        shard is missing, no regular file, or has another size than in the
        manifest.
    """
    self.folder = Path(folder)
    self.manifest = read_manifest(folder)
    self._corpora = {c.languages: c for c in self.manifest.corpora}
    # A corpus of which every sentence was dropped is in the manifest only.
    held = [c for c in self.manifest.corpora if c.records]
    text = [c for c in held if len(c.languages) == 1]
    pairs = [c for c in held if len(c.languages) == 2]
    self.text_counts = {c.languages[0]: c.records for c in text}
    self.text_tokens = {c.languages[0]: c.tokens for c in text}
    self.pair_counts: dict[Pair, int] = {
      (c.languages[0], c.languages[1]): c.records for c in pairs
    }
    for corpus in self.manifest.corpora:
      for shard in corpus.shards:
        self._check_size(shard)
    self._reset()

  @property
  def manifest_sha256(self) -> str:
    """Hash of manifest.json, which has every shard's hash: names the data."""
    return _sha256(self.folder / MANIFEST)

  @property
  def ids(self) -> Ids:
    """The special ids of the tokenizer that the records were made with."""
    return Ids(**self.manifest.special_ids, size=self.manifest.vocab_size)

  @property
  def languages(self) -> list[str]:
    """All languages of texts and pairs, sorted."""
    return sorted({x for c in self.manifest.corpora for x in c.languages})

  def read_text(
    self, language: str, indices: Sequence[int] | np.ndarray
  ) -> list[np.ndarray]:
    """Blocks of a language, int32 [length] each.

    Raises:
      InputError: a shard is damaged, or a record is no record of text.
    """
    return [decode_text(r) for r in self._read((language,), indices)]

  def read_pairs(
    self, pair: Pair, indices: Sequence[int] | np.ndarray
  ) -> list[tuple[np.ndarray, np.ndarray]]:
    """Both sides of pairs, without special tokens, int32 [length] each.

    Raises:
      InputError: a shard is damaged, or a record is no record of a pair.
    """
    return [decode_pair(r) for r in self._read(pair, indices)]

  @property
  def size(self) -> int:
    """Bytes of all shards."""
    return sum(s.size for c in self.manifest.corpora for s in c.shards)

  def verify(self) -> None:
    """Compares the hash of every shard with the manifest's.

    Raises:
      InputError: a shard differs.
    """
    shards = [s for c in self.manifest.corpora for s in c.shards]
    # Hashing releases Python's lock, so threads run at the same time.
    with concurrent.futures.ThreadPoolExecutor(_HASHERS) as pool:
      hashes = pool.map(lambda s: _sha256(self.folder / s.name), shards)
      for shard, sha256 in zip(shards, hashes, strict=True):
        self._check_size(shard)
        if sha256 != shard.sha256:
          raise InputError(
            f"{self.folder / shard.name} has changed since it was prepared: "
            "its hash is not the manifest's. Prepare the data again."
          )

  def __getstate__(self) -> dict[str, Any]:
    return {
      k: v for k, v in vars(self).items() if k not in ("_lock", "_readers")
    }

  def __setstate__(self, state: dict[str, Any]) -> None:
    vars(self).update(state)
    self._reset()

  def _reset(self) -> None:
    self._lock = threading.Lock()
    self._readers: dict[str, Any] = {}

  def _read(
    self, languages: tuple[str, ...], indices: Sequence[int] | np.ndarray
  ) -> list[bytes]:
    try:
      corpus = self._corpora[languages]
    except KeyError:
      known = ", ".join(c.name for c in self.manifest.corpora)
      raise InputError(
        f"{self.folder} holds no records of {'-'.join(languages)}: it holds "
        f"{known}."
      ) from None
    wanted = np.asarray(indices, np.int64)
    if wanted.size and not 0 <= wanted.min() <= wanted.max() < corpus.records:
      raise IndexError(f"{corpus.name}: a record outside 0..{corpus.records}")
    out: list[bytes] = [b""] * len(wanted)
    start = 0
    for shard in corpus.shards:
      places = np.flatnonzero(
        (wanted >= start) & (wanted < start + shard.records)
      )
      if places.size:
        try:
          contents = self._reader(shard).read((wanted[places] - start).tolist())
        # ArrayRecord checks hashes of its own.
        except (RuntimeError, IndexError) as error:
          raise InputError(
            f"{self.folder / shard.name} is damaged or was changed after it"
            f" was prepared ({str(error)[:120]}). Prepare the data again, or"
            " copy the folder again from a place where it is whole."
          ) from error
        for place, record in zip(places.tolist(), contents, strict=True):
          if problem := _problem(record, pair=len(languages) == 2):
            raise InputError(
              f"{self.folder / shard.name}, record {wanted[place] - start}:"
              f" {problem}: it is damaged, or another program wrote it. Prepare"
              " the data again."
            )
          out[place] = record
      start += shard.records
    return out

  def _reader(self, shard: Shard) -> Any:
    with self._lock:
      if shard.name not in self._readers:
        reader = array_record_module.ArrayRecordReader(
          str(self.folder / shard.name), _READER_OPTIONS
        )
        if reader.num_records() != shard.records:
          raise RuntimeError(
            f"it has {reader.num_records()} records, {shard.records} in the"
            " manifest"
          )
        self._readers[shard.name] = reader
      return self._readers[shard.name]

  def _check_size(self, shard: Shard) -> None:
    path = self.folder / shard.name
    try:
      status = path.stat()
    except OSError as error:
      raise InputError(
        f"{path} is missing, but the manifest lists it ({error.strerror}). "
        "Copy the whole folder, or prepare the data again."
      ) from error
    if not stat.S_ISREG(status.st_mode):
      raise InputError(
        f"{path} is no regular file, as the records of a manifest are. Copy the"
        " whole folder again, or prepare the data again."
      )
    size = status.st_size
    if size != shard.size:
      raise InputError(
        f"{path} has {size} bytes, but {shard.size} in the manifest: it was "
        "changed, or copied only in part. Prepare the data again."
      )


def _problem(record: bytes, pair: bool) -> str:
  """The reason why bytes are no record of text or of a pair; "" if they are."""
  if not record or len(record) % 4:
    return f"it has {len(record)} bytes, which are no whole numbers"
  if pair:
    length = int.from_bytes(record[:4], "little", signed=True)
    if not 0 <= length < len(record) // 4:
      return (
        f"its first side has {length} tokens, but both sides together"
        f" {len(record) // 4 - 1}"
      )
  return ""


def _sha256(path: Path) -> str:
  try:
    return read_files.sha256_of(path)
  except OSError as error:
    raise InputError(f"cannot read {path}: {error.strerror}.") from error
