"""How many rows a batch needs: chosen from the prepared data.

The lengths of the items that a stream really draws (its languages, alpha,
mixup and cuts included) are taken from a few thousand of them, always the
same ones whatever the run's seed. Batches put together from these lengths are
packed on trial.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from infoxlm_jax.data.packing import pack
from infoxlm_jax.data.sampler import mix
from infoxlm_jax.data.stream_options import check_options

# Rows are to be filled to this. Above it first-fit begins to cut.
TARGET_FILL = 0.95
# More rows are taken until no larger part of the tokens is cut away.
MAX_CUT = 2e-3

_SAMPLE = 4096  # items whose lengths are looked at
_TRIALS = 16384  # items packed on trial
_SEED, _TRIAL = 0, 21

S = TypeVar("S")


class Fit(NamedTuple):
  """What packing gives.

  Attributes:
    rows: of all groups together.
    fill: tokens over places for tokens.
    cut: tokens cut away so that items fit, over all their tokens.
  """

  rows: int
  fill: float
  cut: float


def with_rows(stream: S, store: Any, groups: int) -> S:
  """The stream with `rows` chosen, or as it is where it has them.

  Raises:
    InputError: its options do not fit the groups or the records.
  """
  options: Any = stream
  if options.rows is not None:
    return stream
  return dataclasses.replace(options, rows=fit(options, store, groups).rows)


def fit_all(
  streams: Mapping[str, Any], store: Any, groups: int
) -> tuple[dict[str, Any], dict[str, Fit]]:
  """All streams with rows, and what was found for those that had none."""
  fits = {
    name: fit(stream, store, groups)
    for name, stream in streams.items()
    if stream.rows is None
  }
  fitted = {
    name: dataclasses.replace(stream, rows=fits[name].rows)
    if name in fits
    else stream
    for name, stream in streams.items()
  }
  return fitted, fits


def say(streams: Mapping[str, Any], fits: Mapping[str, Fit]) -> None:
  """Prints a line for every stream whose rows were chosen."""
  for name, found in fits.items():
    print(f"stream {name}: {in_words(streams[name], found)}")


def in_words(stream: Any, found: Fit) -> str:
  """Rows, fill and cut share of a stream."""
  return (
    f"rows = {found.rows} of {stream.row_length} tokens for batch ="
    f" {stream.batch}: filled to {100 * found.fill:.1f} %,"
    f" {100 * found.cut:.2f} % of the tokens cut to fit"
  )


def fit(stream: Any, store: Any, groups: int) -> Fit:
  """The fewest rows that hold the items with room to spare.

  A multiple of groups, filled to TARGET_FILL at most and with no more than
  MAX_CUT of the tokens cut, unless one row an item is fewer. With few items in
  a group the fill is lower: rows are whole.
  """
  check_options(stream, groups)
  each = stream.batch // groups
  lengths = _lengths(stream, store)
  if stream.padded:
    return _tried(lengths, each, each, groups, stream)
  rows = int(np.ceil(each * lengths.mean() / (stream.row_length * TARGET_FILL)))
  rows = min(max(rows, 1), each)
  while True:
    found = _tried(lengths, each, rows, groups, stream)
    if found.cut <= MAX_CUT or rows == each:
      return found
    rows += 1


def _lengths(stream: Any, store: Any) -> np.ndarray:
  """Tokens of sampled items, at most a row's; both sides' where there are."""
  drawn = stream.draw(store, _SEED, np.arange(_SAMPLE))
  found = [len(item) for side in drawn.sides.values() for item in side.items]
  return np.minimum(found, stream.row_length)


def _tried(
  lengths: np.ndarray, each: int, rows: int, groups: int, stream: Any
) -> Fit:
  """Packs groups of `each` items into `rows`."""
  trials = max(8, min(64, _TRIALS // each))
  chosen = mix(_TRIAL, np.arange(trials * each)) % np.uint64(len(lengths))
  wanted = lengths[chosen.astype(np.int64)].reshape(trials, each)
  if stream.padded or rows == each:
    kept = int(wanted.sum())
  else:
    kept = sum(
      int(pack(group, rows, stream.row_length).kept.sum()) for group in wanted
    )
  return Fit(
    rows * groups,
    kept / (trials * rows * stream.row_length),
    1 - kept / int(wanted.sum()),
  )
