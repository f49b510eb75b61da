"""Chooses how many rows a batch has, from the prepared data.

A few thousand items are drawn as the stream draws them (its languages, alpha,
mixup and cuts included), the same ones whatever the run's seed. Batches of
items with these lengths are packed on trial.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from infoxlm_jax.data import alternating_stream
from infoxlm_jax.data.packing import pack
from infoxlm_jax.data.sampler import mix
from infoxlm_jax.data.stream_options import check_options

# The share of a row to be filled. Above it first-fit begins to cut items.
TARGET_FILL = 0.95
# The largest share of the tokens that may be cut away.
MAX_CUT = 2e-3

_SAMPLE = 4096  # items drawn for their lengths
_TRIALS = 16384  # items packed on trial
_SEED, _TRIAL = 0, 21

S = TypeVar("S")


class Fit(NamedTuple):
  """The result of packing on trial.

  Attributes:
    rows: of all groups together.
    fill: tokens in the rows / tokens that the rows could hold.
    cut: tokens cut away so that items fit / all tokens of the items.
  """

  rows: int
  fill: float
  cut: float


def with_rows(stream: S, store: Any, groups: int) -> S:
  """The stream with `rows` chosen; a stream that has rows as it is.

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
  """All streams with rows, and the fits of those that had none.

  Raises:
    InputError: options that do not fit the groups or the records.
  """
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
  for name, chosen in fits.items():
    print(f"stream {name}: {in_words(streams[name], chosen)}")


def say_large_batches(streams: Mapping[str, Any], store: Any) -> None:
  """Prints a line for every stream that has fewer items than a batch."""
  for name, stream in streams.items():
    for part, (one, _) in alternating_stream.parts(name, stream, 0).items():
      items = int(one.mixture(store, _SEED).sampler.counts.sum())
      if one.batch > items:
        print(
          f"stream {part}: batch = {one.batch} is more than the {items} items"
          " of the data, so every update has some of them more than once. Set"
          f" BATCH (batch of {type(one).__name__}) to {items} or less, or give"
          " more data."
        )


def in_words(stream: Any, chosen: Fit) -> str:
  """Rows, fill and cut share of a stream."""
  return (
    f"rows = {chosen.rows} of {stream.row_length} tokens for batch ="
    f" {stream.batch}: filled to {100 * chosen.fill:.1f} %,"
    f" {100 * chosen.cut:.2f} % of the tokens cut to fit"
  )


def fit(stream: Any, store: Any, groups: int) -> Fit:
  """Chooses the fewest rows that hold the items with room to spare.

  The rows are a multiple of groups, filled to at most TARGET_FILL, with at
  most MAX_CUT of the tokens cut, and no more than one row an item. With few
  items in a group the fill is lower, since a group has whole rows.

  Raises:
    InputError: options that do not fit the groups or the records.
  """
  check_options(stream, groups)
  each = stream.batch // groups
  lengths = _lengths(stream, store)
  if stream.padded:
    return _pack_on_trial(lengths, each, each, groups, stream)
  rows = int(np.ceil(each * lengths.mean() / (stream.row_length * TARGET_FILL)))
  rows = min(max(rows, 1), each)
  while True:
    trial = _pack_on_trial(lengths, each, rows, groups, stream)
    if trial.cut <= MAX_CUT or rows == each:
      return trial
    rows += 1


def _lengths(stream: Any, store: Any) -> np.ndarray:
  """Tokens of the items drawn, of every side, cut to a row; int64 [lengths]."""
  drawn = stream.draw(store, _SEED, np.arange(_SAMPLE))
  lengths = [len(item) for side in drawn.sides.values() for item in side.items]
  return np.minimum(lengths, stream.row_length)


def _pack_on_trial(
  lengths: np.ndarray, each: int, rows: int, groups: int, stream: Any
) -> Fit:
  """Packs trial groups of `each` items with these lengths into `rows` rows."""
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
