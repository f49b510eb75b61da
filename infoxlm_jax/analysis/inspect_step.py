"""Shows the batch of an update, before and after masking.

Batches come from the loader and masks from the function that the step calls,
so the tokens are the same that the update trains on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from infoxlm_jax.checkpoint.metadata import POSITION
from infoxlm_jax.data import loader, row_budget
from infoxlm_jax.data.alternating_stream import turn
from infoxlm_jax.data.groups import item_numbers
from infoxlm_jax.data.mixture import ONLY_SIDE, Drawn
from infoxlm_jax.data.records import Store
from infoxlm_jax.errors import InputError
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.runtime import read_files
from infoxlm_jax.runtime.run_layout import CHECKPOINTS, FILES
from infoxlm_jax.training import device_step, validation
from infoxlm_jax.training import state as train_state

Arrays = dict[str, Any]


class Run(NamedTuple):
  """The arguments of pretrain.pretrain that decide batches and masks."""

  streams: Mapping[str, Any]
  objectives: Mapping[str, Any]
  model: EncoderConfig
  groups: int
  seed: int


class Seen(NamedTuple):
  """One group of one stream, as an update sees it.

  Attributes:
    name, stream, group: which.
    first: number of the group's first item.
    drawn: where its items come from.
    before: by side, tokens, segments and positions [rows, row_length].
    after: by objective, the same as it goes into the encoder.
    chosen: by objective and side, which tokens masking chose, bool; of an
      objective that keeps no list, those that became others.
    counts: items, tokens, places, cuts.
  """

  name: str
  stream: Any
  group: int
  first: int
  drawn: Drawn
  before: dict[str, Arrays]
  after: dict[str, dict[str, Arrays]]
  chosen: dict[str, dict[str, np.ndarray]]
  counts: dict[str, int]


def run_of(arguments: Mapping[str, Any], store: Store) -> Run:
  """The run that these arguments of pretrain.pretrain describe.

  Raises:
    InputError: the arguments are those of another job, or cannot work.
  """
  needed = {"run", "streams", "objectives", "model", "parallelism"}
  if missing := sorted(needed - set(arguments)):
    raise InputError(
      f"the configuration is not that of a pretraining: it sets no {missing}."
      " Give the gin file of a run, or --data FOLDER to look at prepared data"
    )
  parallelism, model = arguments["parallelism"], arguments["model"]
  objectives, groups = arguments["objectives"], parallelism.groups
  streams = validation.used_streams(objectives, arguments["streams"])
  validation.check_counts(parallelism, groups="GROUPS")
  validation.check_training(model, objectives, streams, groups, parts=1)
  streams, _ = row_budget.fit_all(streams, store, groups)
  return Run(streams, objectives, model, groups, arguments["run"].seed)


def positions(
  run: Run, update: int, folder: Path | None = None
) -> dict[str, int]:
  """Samples drawn before an update; updates count from 1, as in metrics.jsonl.

  Args:
    run: whose batches.
    update: which.
    folder: the run's folder, if it exists. Its newest checkpoint before the
      update has the number of samples, which is not updates times batch if the
      batch size was changed between two starts.
  """
  done, samples = 0, dict.fromkeys(run.streams, 0)
  if folder is not None and (folder / CHECKPOINTS).is_dir():
    before = [
      int(path.name)
      for path in (folder / CHECKPOINTS).iterdir()
      if path.name.isdecimal()
      and int(path.name) < update
      and (path / FILES / POSITION).is_file()
    ]
    if before:
      done = max(before)
      stored = folder / CHECKPOINTS / str(done) / FILES / POSITION
      samples |= read_files.read_object(stored, {"samples": dict})["samples"]
  return {
    name: samples[name] + (update - 1 - done) * stream.batch
    for name, stream in run.streams.items()
  }


def see(
  run: Run,
  store: Store,
  update: int,
  samples: Mapping[str, int],
  name: str,
  groups: Sequence[int],
) -> list[Seen]:
  """Groups of one stream as an update sees them.

  Args:
    run: whose.
    store: prepared records.
    update: from 1.
    samples: drawn before, by stream.
    name: of the stream.
    groups: which of the batch's.

  Raises:
    InputError: the run has no such stream.
  """
  if name not in run.streams:
    raise InputError(
      f"the run reads no stream {name!r}: it has {', '.join(run.streams)}"
    )
  rng = device_step.update_key(train_state.first_rng(run.seed), update - 1)
  return [
    _see_group(run, store, rng, samples[name], name, group) for group in groups
  ]


def _see_group(
  run: Run, store: Store, rng: jax.Array, position: int, name: str, group: int
) -> Seen:
  stream = run.streams[name]
  batch, counts = loader.build(
    {name: stream},
    store,
    seed=run.seed,
    positions={name: position},
    groups=run.groups,
    local_groups=[group],
  )
  stream, position = turn(stream, position)
  readers = {k: o for k, o in run.objectives.items() if o.stream == name}
  rows, _ = _corrupted(readers, run.model, rng, batch, group)
  numbers = item_numbers(stream, position, group, run.groups)
  before = _sides(batch[name])
  after = {k: _sides(jax.device_get(v)) for k, v in rows.items()}
  return Seen(
    name,
    stream,
    group,
    int(numbers[0]),
    stream.draw(store, loader.stream_seed(run.seed, name), numbers),
    before,
    after,
    {
      objective: {
        side: _chosen(before[side]["tokens"], arrays)
        for side, arrays in sides.items()
      }
      for objective, sides in after.items()
    },
    counts[name],
  )


def _corrupted(
  objectives: Mapping[str, Any],
  model: EncoderConfig,
  rng: jax.Array,
  batch: Arrays,
  group: int,
) -> Any:
  """device_step.corrupt_groups, compiled."""
  return jax.jit(
    lambda rng, batch: device_step.corrupt_groups(
      objectives, model, rng, batch, group
    )
  )(rng, batch)


def _sides(rows: Arrays) -> dict[str, Arrays]:
  """The parts of a stream that are rows, without the axis of one group."""
  sides = {ONLY_SIDE: rows} if "tokens" in rows else rows
  return {
    name: jax.tree.map(lambda x: x[0], dict(side))
    for name, side in sides.items()
    if isinstance(side, Mapping)
  }


def _chosen(before: np.ndarray, after: Arrays) -> np.ndarray:
  """Which tokens masking chose, including those that it left unchanged."""
  if "slots" not in after:
    return before != after["tokens"]
  chosen = np.zeros(before.shape, bool)
  slots = after["slots"]
  row, slot = np.nonzero(slots["valid"])
  chosen[row, slots["place"][row, slot]] = True
  return chosen
