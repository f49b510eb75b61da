"""The arrays of the groups of a batch, packed from a stream's items.

A batch is cut into G groups of batch / G items; a device computes whole
groups. Item j of group g has the number position + g * batch / G + j,
whichever host builds it. A group is a function of the stream's options, the
prepared records, the seed, the position and its own number.
Its arrays, all int32 [rows / G, row_length]:

    tokens     ids; <pad> where there is no item
    segments   n + 1 for the n-th item of the group; 0 for padding
    positions  0, 1, ... within each item; 0 for padding

Streams may have more of them (token_arrays.py), and "labels" [batch / G].
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from infoxlm_jax.data.alternating_stream import turn
from infoxlm_jax.data.mixture import ONLY_SIDE, Drawn
from infoxlm_jax.data.packing import place
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.stream_options import check_options, rows_of
from infoxlm_jax.data.streams import Stream
from infoxlm_jax.special_ids import Ids

# The counts of a group.
STATS = ("items", "tokens", "slots", "truncated_items", "cut_tokens")

Arrays = dict[str, Any]
Stats = dict[str, int]


def build_groups(
  stream: Stream,
  store: Store,
  seed: int,
  position: int,
  chosen: Sequence[int],
  groups: int,
) -> list[tuple[Arrays, Stats]]:
  """Builds groups of a batch.

  Args:
    stream: its rows must have been chosen.
    store: prepared records.
    seed: of the stream.
    position: samples drawn before this batch.
    chosen: numbers of the groups to build.
    groups: number of groups of the whole batch.

  Returns:
    The arrays (without an axis of groups) and the counts of each group.

  Raises:
    InputError: the options do not fit the groups or the records.
  """
  stream, position = turn(stream, position)
  check_options(stream, groups)
  each = stream.batch // groups
  numbers = [item_numbers(stream, position, g, groups) for g in chosen]
  drawn = stream.draw(store, seed, np.concatenate(numbers))
  return [
    _build_group(
      stream, drawn, slice(n * each, (n + 1) * each), groups, store.ids
    )
    for n in range(len(chosen))
  ]


def _build_group(
  stream: Any, drawn: Drawn, own: slice, groups: int, ids: Ids
) -> tuple[Arrays, Stats]:
  stats = dict.fromkeys(STATS, 0)
  stats["items"] = own.stop - own.start
  rows = rows_of(stream) // groups
  sides = {
    name: place(
      side.items[own],
      side.full[own],
      rows,
      stream.row_length,
      stream.padded,
      ids,
      stats,
      {key: values[own] for key, values in side.arrays.items()},
    )
    for name, side in drawn.sides.items()
  }
  if ONLY_SIDE in sides:
    labels = {} if drawn.labels is None else {"labels": drawn.labels[own]}
    return sides[ONLY_SIDE] | labels, stats
  return {"items": drawn.source[own].astype(np.int32)} | sides, stats


def item_numbers(
  stream: Stream, position: int, group: int, groups: int
) -> np.ndarray:
  """Numbers of the items of a group, int64 [batch / groups]."""
  each = stream.batch // groups
  return position + group * each + np.arange(each, dtype=np.int64)
