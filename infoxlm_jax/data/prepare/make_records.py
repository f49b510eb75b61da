"""Makes the records of one chunk, sorted by group and key.

The key of a record is a hash of the seed and of its tokens, so the order of
the records depends on no state, process or restart. Pairs that are to stay
together have the key of the first of them, but for the last bits, which count
up. A file of records holds

    data   int32, all records, one after the other
    ends   int64 [records], where each ends in data
    keys   uint64 [records], sorted within each group

and in meta["groups"] the languages of each group, "part" ("dev" or "test" for
records that are held out of training, else ""), "rows" (its first record and
the one after its last), "size" (its numbers) and "counts", which those of the
part "" have for all parts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from infoxlm_jax.data.prepare.array_files import read_arrays, write_arrays
from infoxlm_jax.data.prepare.blocks import copy_runs
from infoxlm_jax.data.prepare.deduplicate import dropped_of
from infoxlm_jax.data.prepare.filters import DUPLICATE, HELD_OUT
from infoxlm_jax.data.prepare.held_sentences import NOTHING_HELD, Held
from infoxlm_jax.data.prepare.layout import Examples, Layout
from infoxlm_jax.data.prepare.sentences import contains
from infoxlm_jax.data.prepare.text_blocks import Blocks, make_blocks
from infoxlm_jax.data.sampler import mix

PARTS = ("", "dev", "test")


class _Made(NamedTuple):
  """Records of a group, in any order, as runs of the chunk's tokens.

  Attributes:
    keys: uint64 [records].
    part: int [records], index in PARTS.
    lengths: int64 [records], numbers in each record.
    marks: (record, place in it, number) of each number that is not a token of
      a sentence: special tokens, and the length of a pair's first side.
    runs: (record, place in it, start among the chunk's tokens, length).
    counts: sentences, tokens, truncated and split.
  """

  keys: np.ndarray
  part: np.ndarray
  lengths: np.ndarray
  marks: tuple[np.ndarray, np.ndarray, np.ndarray]
  runs: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
  counts: dict[str, Any]


def make_records(
  chunk: Path,
  passes: Sequence[Path],
  place: int,
  layout: Layout,
  held: Path | None,
  gives: bool,
  out: Path,
) -> int:
  """Writes a chunk's records, without duplicates, in a worker.

  Args:
    chunk: its file, which is removed at the end.
    passes: files of find_duplicates.
    place: of the chunk in its store.
    layout: of the records.
    held: the file of what is held out of training; None where all records
      are of one part.
    gives: whether some of the chunk's own records are held out.
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
  out_of_training = NOTHING_HELD if held is None else Held.read(held, place)
  groups, data, all_ends, all_keys = [], [], [], []
  rows = size = 0
  for number, languages in enumerate(meta["groups"]):
    member = arrays["group"] == number
    chosen = np.flatnonzero(member & stays)
    examples = Examples(
      lengths[chosen],
      (ends - lengths)[chosen],
      hashes[chosen],
      None if held is None else arrays["sentences"][chosen],
    )
    made = (
      _texts(examples, layout, out_of_training, languages[0], gives)
      if lengths.shape[1] == 1
      else _pairs(examples, layout, out_of_training, chosen)
    )
    counts = meta["counts"][number] | made.counts
    sides = len(languages)
    for reason, dropped in (
      (DUPLICATE, int((member & ~stays).sum())),
      (HELD_OUT, len(chosen) - made.counts["sentences"] // sides),
    ):
      if dropped:
        counts["dropped"] = counts["dropped"] | {reason: dropped * sides}
    for part, name in enumerate(PARTS):
      own = np.flatnonzero(made.part == part)
      if part and not len(own):
        continue
      order = own[np.argsort(made.keys[own], kind="stable")]
      block = _materialise(made, order, arrays["tokens"])
      groups.append(
        {
          "languages": languages,
          "part": name,
          "rows": [rows, rows + len(order)],
          "size": len(block),
          "counts": counts if not part else None,
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
  examples: Examples, layout: Layout, held: Held, language: str, gives: bool
) -> _Made:
  """Blocks of a language: `<s> s1 </s> s2 </s> ...`.

  Sentences that pairs hold out for dev have blocks of their own, which go to
  dev as well; those of test are left out.
  """
  dev, ordinary = held.split(examples, gives)
  made = make_blocks(ordinary, layout)
  limit = held.limits.get(language) if gives else None
  part = np.zeros(len(made.keys), np.int64)
  if limit is not None:
    part[made.keys <= limit] = PARTS.index("dev")
  if len(held.pieces):
    gone = contains(held.pieces, made.pieces) & (part == 0)[made.block]
    made, part = made.without(gone, part)
  if len(dev.lengths):
    more = make_blocks(dev, layout)
    part = np.concatenate([part, np.full(len(more.keys), PARTS.index("dev"))])
    made = made.joined(more)
  return _of_blocks(made, part, layout)


def _of_blocks(made: Blocks, part: np.ndarray, layout: Layout) -> _Made:
  count = len(made.keys)
  totals = 1 + np.bincount(made.block, made.size + 1, count).astype(np.int64)
  marks = (
    np.concatenate([np.arange(count), made.block]),
    np.concatenate([np.zeros(count, np.int64), made.place + made.size]),
    np.repeat([layout.bos, layout.eos], [count, len(made.block)]),
  )
  long = len(np.unique(made.start[made.long]))
  counts = {
    "sentences": len(np.unique(made.start)),
    "tokens": int(totals.sum()),
    "truncated": {"longer_than_row": long} if long and not layout.split else {},
    "split": long if layout.split else 0,
  }
  runs = (made.block, made.place, made.start + made.offset, made.size)
  return _Made(made.keys, part, totals, marks, runs, counts)


def _pairs(
  examples: Examples, layout: Layout, held: Held, numbers: np.ndarray
) -> _Made:
  """Pairs of two languages, each as length of side a, side a, side b."""
  keys = pair_keys(examples.hashes, layout)
  part = held.parts(examples, numbers)
  stay = part >= 0
  lengths, starts = examples.lengths[stay], examples.starts[stay]
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
  return _Made(
    keys[stay],
    part[stay],
    1 + kept.sum(axis=1),
    (number, zero, kept[:, 0]),
    runs,
    counts,
  )


def pair_keys(hashes: np.ndarray, layout: Layout) -> np.ndarray:
  """Keys of the pairs of a group in a chunk, uint64 [pairs]."""
  place = np.arange(len(hashes)) % layout.together
  bits = np.uint64((layout.together - 1).bit_length())
  first = mix(layout.seed, hashes[np.arange(len(hashes)) - place])
  return (first >> bits << bits) | place.astype(np.uint64)


def _materialise(
  made: _Made, order: np.ndarray, tokens: np.ndarray
) -> np.ndarray:
  """The numbers of these records, in their order, int32."""
  ends = np.cumsum(made.lengths[order])
  starts = np.full(len(made.lengths), -1)
  starts[order] = ends - made.lengths[order]
  out = np.empty(int(ends[-1]) if len(ends) else 0, np.int32)
  record, place, number = made.marks
  own = starts[record] >= 0
  out[(starts[record] + place)[own]] = number[own]
  record, place, source, size = made.runs
  own = starts[record] >= 0
  targets = (starts[record] + place)[own]
  copy_runs(out, targets, tokens, source[own], size[own])
  return out
