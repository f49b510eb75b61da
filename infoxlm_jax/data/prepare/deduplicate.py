"""Finds examples that occurred before, by hash, with bounded memory.

Hashes have 64 bits: of 10^9 different sentences about 0.03 are mistaken for
duplicates. Each pass reads one range of hashes from all chunks.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from infoxlm_jax.data.prepare.array_files import read_arrays, write_arrays


def hash_range(number: int, count: int) -> tuple[np.uint64, np.uint64]:
  """First and last hash of range `number` of `count` equal ones."""
  first = number * 2**64 // count
  last = (number + 1) * 2**64 // count - 1
  return np.uint64(first), np.uint64(last)


def within(
  hashes: np.ndarray, first: np.uint64, last: np.uint64
) -> tuple[int, int]:
  """Indices of the sorted hashes from first to last: start and end."""
  return (
    int(np.searchsorted(hashes, first, "left")),
    int(np.searchsorted(hashes, last, "right")),
  )


def find_duplicates(
  chunks: Sequence[Path], number: int, count: int, out: Path
) -> None:
  """Writes the examples of range `number` that occurred before, in a worker.

  Args:
    chunks: the files of a store, in order; the first occurrence is kept.
    number, count: of the range of hashes.
    out: file to write: "dropped", uint64, chunk << 32 | example, sorted.
  """
  first, last = hash_range(number, count)
  hashes, places = [], []
  for place, path in enumerate(chunks):
    _, arrays = read_arrays(path)
    start, end = within(arrays["hashes"], first, last)
    if start == end:
      continue
    hashes.append(arrays["hashes"][start:end])
    examples = arrays["order"][start:end].astype(np.uint64)
    places.append(np.uint64(place << 32) | examples)
  dropped = np.empty(0, np.uint64)
  if hashes:
    all_hashes, all_places = np.concatenate(hashes), np.concatenate(places)
    # Both sorts are stable, this one and the one within a chunk, so the first
    # of equal hashes is the first occurrence.
    order = np.argsort(all_hashes, kind="stable")
    again = np.flatnonzero(np.diff(all_hashes[order]) == 0) + 1
    dropped = np.sort(all_places[order[again]])
  write_arrays(out, {}, dropped=dropped)


def dropped_of(passes: Sequence[Path], place: int) -> np.ndarray:
  """Numbers of chunk `place`'s examples that occurred before, int64."""
  pieces = [np.empty(0, np.int64)]
  for path in passes:
    pieces.append(of_chunk(read_arrays(path)[1]["dropped"], place))
  return np.concatenate(pieces)


def of_chunk(places: np.ndarray, place: int) -> np.ndarray:
  """Numbers of chunk `place`'s examples among sorted places, int64."""
  first, last = np.uint64(place << 32), np.uint64((place + 1 << 32) - 1)
  start, end = within(places, first, last)
  return (places[start:end] & np.uint64((1 << 32) - 1)).astype(np.int64)
