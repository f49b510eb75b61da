"""What prepare is to do, and the names of what its phases leave.

    work/STORE/CORPUS/000012.chunk      phase 1; removed when the next is there
    work/STORE/CORPUS/read.json         when all its chunks are there
    work/STORE/duplicates/0003          phase 2, one range of hashes
    work/STORE/CORPUS/000012.records    phase 3
    work/STORE/shards/*.json            phase 4, an entry of the manifest each
    work/STORE/finished/                phase 4, the shards

A file that is there is complete, so what is there is not made again.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from infoxlm_jax.data.corpora.base import Corpus
from infoxlm_jax.data.prepare.filters import Cleaning
from infoxlm_jax.data.prepare.make_records import Layout
from infoxlm_jax.data.tokenizers.base import Tokenizer


class Sizes(NamedTuple):
  """Of the pieces that work is cut into.

  Attributes:
    chunk: characters of a chunk.
    shard: bytes of a shard's records, before they are packed.
    hashes: that one pass over the duplicates looks at.
  """

  chunk: int
  shard: int
  hashes: int


SIZES = Sizes(chunk=4 << 20, shard=64 << 20, hashes=2 << 20)


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is to be done, and where."""

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
    )


class Part(NamedTuple):
  """One split of one corpus, for one store.

  held_out: whether records of it may go to dev.
  """

  corpus: Corpus
  split: str
  folder: Path
  held_out: bool


class File(NamedTuple):
  """Records of a chunk, and its groups (shuffle.py)."""

  path: Path
  part: Part
  groups: list[dict[str, Any]]


def chunk_path(part: Part, number: int) -> Path:
  """Where a chunk of a part is."""
  return part.folder / f"{number:06d}.chunk"


def records_path(chunk: Path) -> Path:
  """Where a chunk's records are."""
  return chunk.with_suffix(".records")


def read_json(path: Path) -> Any:
  """What an earlier phase, or start, has left."""
  return json.loads(path.read_text("utf-8"))
