"""The plan of prepare, and the names of the files that its phases leave.

    work/STORE/CORPUS/000012.chunk      phase 1; phase 3 removes it
    work/STORE/CORPUS/read.json         phase 1, after the last chunk
    work/STORE/duplicates/0003          phase 2, one for each range of hashes
    work/held_out                       before phase 3 (held_sentences.py)
    work/STORE/CORPUS/000012.records    phase 3
    work/STORE/shards/*.json            phase 4, the manifest's entry of a shard
    work/STORE/finished/                phase 4, the shards

A file that exists is complete, so it is not made again.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from infoxlm_jax.data.corpora.base import Corpus
from infoxlm_jax.data.prepare.filters import Cleaning
from infoxlm_jax.data.prepare.layout import Layout
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime.json_crc import read_checked


class Sizes(NamedTuple):
  """Sizes of the pieces of work.

  Attributes:
    chunk: characters of a chunk.
    shard: bytes of a shard's records, uncompressed.
    hashes: that one pass over the duplicates reads.
  """

  chunk: int
  shard: int
  hashes: int


SIZES = Sizes(chunk=4 << 20, shard=64 << 20, hashes=2 << 20)


@dataclasses.dataclass(frozen=True)
class Plan:
  """The work of prepare.

  Attributes:
    folder: for files of the phases.
    output: folder to fill with stores, tokenizer and report.
    corpora: to read.
    request: all options, as JSON (request.py).
    cleaning: rules for examples.
    sizes: of the pieces of work.
    tokenizer: of the records.
  """

  folder: Path
  output: Path
  corpora: Sequence[Corpus]
  request: Mapping[str, Any]
  cleaning: Cleaning
  sizes: Sizes
  tokenizer: Tokenizer

  @property
  def layout(self) -> Layout:
    return Layout(
      self.request["row_length"],
      self.request["max_side"],
      self.cleaning.on_long == "split",
      self.request["seed"],
      int(self.tokenizer.bos_id),
      int(self.tokenizer.eos_id),
      self.request.get("pairs_together", 1),
    )


class Part(NamedTuple):
  """One split of one corpus, for one store.

  Attributes:
    corpus: to read.
    split: of the corpus.
    folder: for its chunks and records.
    held_out: whether some of its records may go to dev or test.
  """

  corpus: Corpus
  split: str
  folder: Path
  held_out: bool


class File(NamedTuple):
  """A file of a chunk's records, and its groups (make_records.py)."""

  path: Path
  part: Part
  groups: list[dict[str, Any]]


def chunk_path(part: Part, number: int) -> Path:
  """The file of a part's chunk."""
  return part.folder / f"{number:06d}.chunk"


def records_path(chunk: Path) -> Path:
  """The file of a chunk's records."""
  return chunk.with_suffix(".records")


def read_json(path: Path) -> dict[str, Any]:
  """Reads a JSON object that an earlier phase, or start, has left.

  Raises:
    StorageError: the file is damaged.
  """
  try:
    return read_checked(path)
  except InputError as error:
    raise StorageError(
      f"{error} Remove the folder {path.parent} and start again, which makes it"
      " anew."
    ) from error
