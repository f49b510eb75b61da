"""Makes the records of one chunk, sorted by group and key.

The key of a record is a hash of the seed and of its tokens, so the order of
the records depends on no state, process or restart. Pairs that are to stay
together have the key of the first of them, but for the last bits, which count
up. A file of records holds

    data   int32, all records, one after the other
    ends   int64 [records], where each ends in data
    keys   uint64 [records], sorted within each group

and in meta["groups"] the languages of each group, "rows" (its first record and
the one after its last), "size" (its numbers) and "counts".
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from infoxlm_jax.data.prepare.array_files import read_arrays, write_arrays
from infoxlm_jax.data.prepare.blocks import copy_runs, cut, fill
from infoxlm_jax.data.prepare.deduplicate import dropped_of
from infoxlm_jax.data.prepare.filters import DUPLICATE
from infoxlm_jax.data.sampler import mix


class Layout(NamedTuple):
  """The options that decide how sentences become records.

  See pipeline.prepare; split: whether long texts are split or truncated;
  together: its pairs_together.
  """

  row_length: int
  max_side: int
  split: bool
  seed: int
  bos: int
  eos: int
  together: int = 1


class _Made(NamedTuple):
  """Records of a group, in any order, as runs of the chunk's tokens.

  Attributes:
    keys: uint64 [records].
    lengths: int64 [records], numbers in each record.
    marks: (record, place in it, number) of each number that is not a token of
      a sentence: special tokens, and the length of a pair's first side.
    runs: (record, place in it, start among the chunk's tokens, length).
    counts: sentences, tokens, truncated and split.
  """

  keys: np.ndarray
  lengths: np.ndarray
  marks: tuple[np.ndarray, np.ndarray, np.ndarray]
  runs: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
  counts: dict[str, Any]


def make_records(
  chunk: Path, passes: Sequence[Path], place: int, layout: Layout, out: Path
) -> int:
  """Writes a chunk's records, without duplicates, in a worker.

  Args:
    chunk: its file, which is removed at the end.
    passes: files of find_duplicates.
    place: of the chunk in its store.
    layout: of the records.
    out: file to write.

  Returns:
    The number of tokens and marks in the records.
  """
  meta, arrays = read_arrays(chunk)
  lengths = arrays["lengths"].astype(np.int64)
  hashes = np.empty(len(lengths), np.uint64)
  hashes[arrays["order"]] = arrays["hashes"]
  stays = np.ones(len(lengths), bool)
  stays[dropped_of(passes, place)] = False
  ends = np.cumsum(lengths.reshape(-1)).reshape(lengths.shape)
  make = _texts if lengths.shape[1] == 1 else _pairs
  groups, data, all_ends, all_keys = [], [], [], []
  rows = size = 0
  for number, languages in enumerate(meta["groups"]):
    member = arrays["group"] == number
    chosen = np.flatnonzero(member & stays)
    made = make(
      lengths[chosen], (ends - lengths)[chosen], hashes[chosen], layout
    )
    order = np.argsort(made.keys, kind="stable")
    block = _materialise(made, order, arrays["tokens"])
    counts = meta["counts"][number] | made.counts
    if again := int((member & ~stays).sum()) * len(languages):
      counts["dropped"] = counts["dropped"] | {DUPLICATE: again}
    groups.append(
      {
        "languages": languages,
        "rows": [rows, rows + len(order)],
        "size": len(block),
        "counts": counts,
      }
    )
    data.append(block)
    all_ends.append(size + np.cumsum(made.lengths[order]))
    all_keys.append(made.keys[order])
    rows, size = rows + len(order), size + len(block)
  write_arrays(
    out,
    {"groups": groups},
    data=np.concatenate(data),
    ends=np.concatenate(all_ends),
    keys=np.concatenate(all_keys),
  )
  chunk.unlink()
  return size


def _texts(
  lengths: np.ndarray, starts: np.ndarray, hashes: np.ndarray, layout: Layout
) -> _Made:
  """Blocks of a language: `<s> s1 </s> s2 </s> ...`."""
  limit = layout.row_length - 2
  lengths, starts = lengths[:, 0], starts[:, 0]
  sentence, offset, size = cut(lengths, limit, layout.split)
  block, count = fill((size + 1).tolist(), layout.row_length - 1)
  by_block = np.argsort(block, kind="stable")
  block, sentence, offset, size = (
    a[by_block] for a in (block, sentence, offset, size)
  )
  totals = 1 + np.bincount(block, size + 1, count).astype(np.int64)
  # The start of each piece in its block, after <s> and the pieces before it.
  before = np.cumsum(size + 1) - (size + 1)
  place = before - _of_first(before, block, count)[block] + 1
  keys: np.ndarray = np.zeros(count, np.uint64)
  np.add.at(
    keys,
    block,
    mix(
      layout.seed,
      hashes[sentence],
      offset.astype(np.uint64),
      place.astype(np.uint64),
    ),
  )
  marks = (
    np.concatenate([np.arange(count), block]),
    np.concatenate([np.zeros(count, np.int64), place + size]),
    np.repeat([layout.bos, layout.eos], [count, len(block)]),
  )
  long = int((lengths > limit).sum())
  counts = {
    "sentences": len(lengths),
    "tokens": int(totals.sum()),
    "truncated": {"longer_than_row": long} if long and not layout.split else {},
    "split": long if layout.split else 0,
  }
  runs = (block, place, starts[sentence] + offset, size)
  return _Made(mix(keys), totals, marks, runs, counts)


def _of_first(values: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
  """The first value of each group; the groups are in order."""
  return values[np.searchsorted(group, np.arange(count))]


def _pairs(
  lengths: np.ndarray, starts: np.ndarray, hashes: np.ndarray, layout: Layout
) -> _Made:
  """Pairs of two languages, each as length of side a, side a, side b."""
  kept = np.minimum(lengths, layout.max_side)
  number = np.arange(len(kept))
  zero = np.zeros(len(kept), np.int64)
  long = int((lengths > layout.max_side).sum())
  counts = {
    "sentences": 2 * len(kept),
    "tokens": int(kept.sum()),
    "truncated": {"longer_than_side": long} if long else {},
    "split": 0,
  }
  runs = (
    np.concatenate([number, number]),
    np.concatenate([zero + 1, 1 + kept[:, 0]]),
    starts.T.reshape(-1),
    kept.T.reshape(-1),
  )
  place = number % layout.together
  bits = np.uint64((layout.together - 1).bit_length())
  first = mix(layout.seed, hashes[number - place])
  return _Made(
    (first >> bits << bits) | place.astype(np.uint64),
    1 + kept.sum(axis=1),
    (number, zero, kept[:, 0]),
    runs,
    counts,
  )


def _materialise(
  made: _Made, order: np.ndarray, tokens: np.ndarray
) -> np.ndarray:
  """The numbers of the records in this order, int32."""
  ends = np.cumsum(made.lengths[order])
  starts = np.empty_like(ends)
  starts[order] = ends - made.lengths[order]
  out = np.empty(int(ends[-1]) if len(ends) else 0, np.int32)
  record, place, number = made.marks
  out[starts[record] + place] = number
  record, place, source, size = made.runs
  copy_runs(out, starts[record] + place, tokens, source, size)
  return out
