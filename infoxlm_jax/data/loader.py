"""Batches for the step: a function of (seed, positions), prefetched by Grain.

Each host builds only its own groups; the groups of all hosts together are the
same batch whatever the number of hosts.
"""

import contextlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from infoxlm_jax.data.groups import STATS, build_groups
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.sampler import mix
from infoxlm_jax.data.streams import Shapes, Stream
from infoxlm_jax.errors import InputError

Batch = dict[str, Any]
BatchStats = dict[str, dict[str, int]]

# Grain wants a length; no run takes so many steps.
_ENDLESS = 1 << 40


def stream_seed(seed: int, name: str) -> int:
  """The seed of a stream: streams of one run draw independently."""
  return int(mix(seed, zlib.crc32(name.encode())))


def build(
  streams: Mapping[str, Stream],
  store: Store,
  *,
  seed: int,
  positions: Mapping[str, int],
  groups: int,
  local_groups: Sequence[int] | None = None,
) -> tuple[Batch, BatchStats]:
  """Builds one batch, the first that `batches` would yield, without threads.

  Returns:
    {stream: nested arrays [local groups, rows / groups, row_length]} and
    {stream: counts} of the local groups.

  Raises:
    InputError: a stream's options do not fit the groups or the records.
  """
  chosen = range(groups) if local_groups is None else local_groups
  batch: Batch = {}
  stats: BatchStats = {}
  for name, stream in streams.items():
    own = stream_seed(seed, name)
    built = build_groups(stream, store, own, positions[name], chosen, groups)
    batch[name] = _stack([arrays for arrays, _ in built])
    stats[name] = {k: sum(counts[k] for _, counts in built) for k in STATS}
  return batch, stats


def batches(
  streams: Mapping[str, Stream],
  store: Store,
  *,
  seed: int,
  positions: Mapping[str, int],
  groups: int,
  local_groups: Sequence[int] | None = None,
  steps: int | None = None,
  prefetch: int = 4,
  threads: int = 1,
) -> Iterator[tuple[Batch, BatchStats]]:
  """Yields batches from these positions on, which grow by each stream's batch.

  Args:
    streams: {name: stream}; the name enters the stream's seed.
    store: prepared records.
    seed: of the run; the queue is filled at the start with seed + 1.
    positions: samples drawn so far, for each stream.
    groups: number of groups of the whole batch.
    local_groups: the groups of this host; None for all.
    steps: number of batches; None: without end.
    prefetch: batches built ahead; 0 builds each when asked, without threads.
    threads: number of threads that build batches.

  Returns:
    A generator of `build`'s results; closing it stops the threads.

  Raises:
    InputError: options that do not fit, at the call; records that do not, at
      the first batch.
  """
  missing = [name for name in streams if name not in positions]
  if missing:
    raise InputError(f"no position is given for the streams {missing}.")
  for stream in streams.values():
    stream.shapes(groups)
  start = dict(positions)

  def at(step: int) -> tuple[Batch, BatchStats]:
    now = {
      name: start[name] + step * stream.batch
      for name, stream in streams.items()
    }
    return build(
      streams,
      store,
      seed=seed,
      positions=now,
      groups=groups,
      local_groups=local_groups,
    )

  options = grain.ReadOptions(
    num_threads=threads if prefetch else 0, prefetch_buffer_size=prefetch
  )
  length = _ENDLESS if steps is None else steps
  dataset = grain.MapDataset.range(length).map(at).to_iter_dataset(options)
  return _iterate(dataset)


def abstract(streams: Mapping[str, Stream], groups: int) -> dict[str, Shapes]:
  """Shapes of the whole batch, {stream: nested dicts of tuples}.

  Raises:
    InputError: a stream's options do not fit the groups.
  """
  return {name: stream.shapes(groups) for name, stream in streams.items()}


def _iterate(dataset: Any) -> Iterator[tuple[Batch, BatchStats]]:
  iterator = iter(dataset)
  with contextlib.closing(iterator):
    yield from iterator


def _stack(trees: Sequence[Any]) -> Any:
  first = trees[0]
  if isinstance(first, dict):
    return {key: _stack([tree[key] for tree in trees]) for key in first}
  return np.stack(trees)
