"""Scores of examples: the encoder and a head, without dropout."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from infoxlm_jax.data.groups import STATS
from infoxlm_jax.data.labelled.examples import Examples
from infoxlm_jax.data.packing import place
from infoxlm_jax.evaluation.embed import by_row_length
from infoxlm_jax.model import partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.partitioning import BATCH
from infoxlm_jax.objectives.labelled import Labelled
from infoxlm_jax.training import collectives

# Examples go into the shortest of these rows that hold them, one a row, so that
# none is cut and few shapes are compiled.
_ROW_LENGTHS = (32, 64, 128, 256, 384, 512)
# Tokens that a device encodes at a time.
BATCH_TOKENS = 8192

Done = Callable[[int], Any]
Predict = Callable[..., list[np.ndarray]]


def make_predict(
  objective: Labelled, model: EncoderConfig, specs: Any, mesh: Mesh
) -> Predict:
  """Builds `predict(params, examples, done)` -> scores of each example.

  The scores of an example are what the head gives: logits of its classes [C],
  or of its tokens [length, C]. `done` is called with the number of examples
  of every batch.

  Args:
    objective: of the head.
    model: the encoder's shapes.
    specs: PartitionSpecs of the parameters.
    mesh: over which the examples are split.
  """

  def device_scores(params: Any, rows: Any) -> jax.Array:
    encode = collectives.encode_with(model, specs)
    whole = collectives.whole_outer(params, specs)
    return objective.scores(whole, encode, rows, model)

  # Every process gets all scores.
  scores_of = jax.jit(
    collectives.shard_map(
      device_scores, mesh, in_specs=(specs, BATCH), out_specs=BATCH
    ),
    out_shardings=NamedSharding(mesh, P()),
  )

  def predict(
    params: Any, examples: Examples, done: Done = lambda count: None
  ) -> list[np.ndarray]:
    out: list[np.ndarray] = [np.zeros(0)] * len(examples)
    groups = mesh.size
    mine = partitioning.local_groups(mesh, groups)
    for numbers, row_length, rows in _batches(examples, model, groups):
      batch = _batch(examples, numbers, groups, rows, row_length, model)
      local = {k: v[mine.start : mine.stop] for k, v in batch.items()}
      scores = np.asarray(
        scores_of(params, partitioning.global_batch(local, mesh))
      )
      # Items [groups, rows, C], or tokens [groups, rows, row_length, C].
      flat = scores.reshape(groups * rows, *scores.shape[2:])
      for row, number in enumerate(numbers.tolist()):
        own = flat[row]
        if own.ndim > 1:
          own = own[: len(examples.tokens[number])]
        out[number] = own.copy()
      done(len(numbers))
    return out

  return predict


def _batches(
  examples: Examples, model: EncoderConfig, groups: int
) -> Iterator[tuple[np.ndarray, int, int]]:
  """(numbers of examples, row length, rows of a group), in order of length."""
  for row_length, numbers in by_row_length(
    examples.tokens.lengths, model.max_positions, _ROW_LENGTHS
  ):
    rows = max(1, BATCH_TOKENS // row_length)
    for start in range(0, len(numbers), rows * groups):
      yield numbers[start : start + rows * groups], row_length, rows


def _batch(
  examples: Examples,
  numbers: np.ndarray,
  groups: int,
  rows: int,
  row_length: int,
  model: EncoderConfig,
) -> dict[str, np.ndarray]:
  """Arrays [groups, rows, row_length], and labels that say nothing."""
  read = examples.read(numbers)
  # A batch that is not full repeats its last example.
  read += read[-1:] * (groups * rows - len(read))
  parts = []
  for start in range(0, groups * rows, rows):
    some = read[start : start + rows]
    tokens = [example.tokens for example in some]
    arrays = {
      name: [example.arrays[name] for example in some]
      for name in examples.arrays
    }
    stats = dict.fromkeys(STATS, 0)
    lengths = [len(one) for one in tokens]
    parts.append(
      place(tokens, lengths, rows, row_length, True, model.ids, stats, arrays)
    )
  batch = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
  return batch | {"labels": np.full((groups, rows), -1, np.int32)}
