"""What one device does inside the shard_map of a step.

Each device sees its own groups of the batch, its part of every split array,
and nothing else; the only collectives are the ones written here and in
objectives/info_nce.py.
"""

import functools
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from infoxlm_jax.model import embedding
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.partitioning import BATCH_AXES
from infoxlm_jax.objectives.base import Targets
from infoxlm_jax.training import collectives
from infoxlm_jax.training.state import Objectives

Tree = Any  # nested dicts of arrays
# Of Objective.collect: items are split over devices, pushes are not.
COLLECTED = P(None, BATCH_AXES)


def corrupt(
  objectives: Objectives, model: EncoderConfig, rng: jax.Array, batch: Tree
) -> tuple[dict[str, Tree], dict[str, dict[str, jax.Array]]]:
  """Masks and dropout keys of this device's groups, and counts of terms."""
  groups = segments(batch)[0].shape[0]
  first = jax.lax.axis_index(BATCH_AXES) * groups
  return corrupt_groups(objectives, model, rng, batch, first)


def update_key(rng: jax.Array, update: jax.Array | int) -> jax.Array:
  """The key of all that an update draws.

  Args:
    rng: TrainState.rng.
    update: TrainState.step before it; 0 for the first.
  """
  return jax.random.fold_in(jax.random.wrap_key_data(rng), update)


def corrupt_groups(
  objectives: Objectives,
  model: EncoderConfig,
  rng: jax.Array,
  batch: Tree,
  first: jax.Array | int,
) -> tuple[dict[str, Tree], dict[str, dict[str, jax.Array]]]:
  """What `corrupt` gives, for groups `first`, `first` + 1, ... of a batch.

  Every random number is a function of (rng, group, objective), so no mesh and
  no number of microbatches changes it. Whoever looks at a step's masks from
  outside calls this too.
  """
  groups = segments(batch)[0].shape[0]
  keys_G = jax.vmap(jax.random.fold_in, (None, 0))(
    rng, first + jnp.arange(groups)
  )
  rows, counts = {}, {}
  for name, objective in objectives.items():
    own_G = _fold(keys_G, name)
    rows[name], counts[name] = objective.corrupt(
      own_G, batch[objective.stream], model
    )
    if model.dropout or model.attention_dropout:
      rows[name] = _with_dropout_keys(rows[name], _fold(own_G, "dropout"))
  return rows, counts


def _fold(keys_G: jax.Array, name: str) -> jax.Array:
  number = zlib.crc32(name.encode())
  return jax.vmap(jax.random.fold_in, (0, None))(keys_G, number)


def _with_dropout_keys(rows: Tree, keys_G: jax.Array) -> Tree:
  """A key for every row of every side [groups, rows]."""
  if "tokens" in rows:
    count = rows["tokens"].shape[1]
    split = jax.vmap(lambda key: jax.random.split(key, count))
    return rows | {"dropout_keys": split(keys_G)}
  return {
    name: _with_dropout_keys(part, _fold(keys_G, name))
    if isinstance(part, Mapping)
    else part
    for name, part in rows.items()
  }


def segments(batch: Tree) -> list[jax.Array]:
  """All segment arrays of a batch; above 0 is a token."""
  leaves = jax.tree_util.tree_leaves_with_path(batch)
  return [leaf for path, leaf in leaves if path[-1].key == "segments"]


def with_vectors(
  objectives: Objectives, params: Tree, rows: Mapping[str, Tree], specs: Tree
) -> tuple[Tree, dict[str, Tree]]:
  """Looks up all tokens that the trained encoder reads, at one time.

  Returns:
    Parameters whose table is to be used from here on (see
    embedding.tied_lookup), and rows with "vectors".
  """
  sides = [
    (name, side)
    for name, objective in objectives.items()
    for side in (objective.encoded or (None,))
  ]

  def of(name: str, side: str | None) -> Tree:
    return rows[name] if side is None else rows[name][side]

  ids = [of(*place)["tokens"] for place in sides]
  vectors, table = embedding.tied_lookup(
    params["embed"]["token"],
    jnp.concatenate([i.reshape(-1) for i in ids]),
    collectives.vocab_axis(specs),
  )
  ends = np.cumsum([i.size for i in ids])[:-1]
  out = dict(rows)
  for (name, side), own_ids, own in zip(
    sides, ids, jnp.split(vectors, ends), strict=True
  ):
    added = {"vectors": own.reshape(*own_ids.shape, -1)}
    if side is None:
      out[name] = out[name] | added
    else:
      out[name] = out[name] | {side: out[name][side] | added}
  return params | {"embed": params["embed"] | {"token": table}}, out


def targets_of(
  objectives: Objectives,
  model: EncoderConfig,
  params: Tree,
  states: Mapping[str, Any],
  specs: Tree,
  micro: Mapping[str, Tree],
) -> dict[str, Targets]:
  """What the losses compare with, of each objective that has targets.

  Args:
    objectives: by name.
    model: the encoder's shapes.
    params: the model's parameters, as they are split.
    states: this device's part of each objective's state, by name.
    specs: of a TrainState.
    micro: rows [microbatches, ...] of each objective.
  """

  def unshard(params: Tree, specs: Tree) -> tuple[Tree, collectives.Encode]:
    whole = collectives.whole_outer(params, specs)
    return whole, collectives.encode_with(model, specs)

  targets = {}
  for name, objective in objectives.items():
    own = objective.targets(
      params,
      states.get(name),
      {"params": specs.params, "state": specs.objective_state.get(name)},
      micro[name],
      unshard,
      BATCH_AXES,
    )
    if own is not None:
      targets[name] = own
  return targets


def count_not_finite(tree: Tree) -> jax.Array:
  """How many numbers of this device's arrays are NaN or infinite; int32 []."""
  leaves = [jnp.sum(~jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
  return functools.reduce(jnp.add, leaves, jnp.zeros((), jnp.int32))


def changes_are_finite(
  rate: jax.Array, grad_norm: jax.Array, params: Tree
) -> jax.Array:
  """Whether the squared norm of an update's changes fits into float32; bool.

  It is bounded, not computed: Adam's directions are about 1 for every
  parameter, and those of plain descent are the gradient. A reduction over the
  changes themselves takes, on a CPU, several times as long as the optimizer,
  and memory for them, since XLA does not compute them twice.

  Args:
    rate: the learning rate.
    grad_norm: of the whole gradient.
    params: all parameters, of which the number counts.
  """
  number = float(sum(math.prod(x.shape) for x in jax.tree.leaves(params)))
  return jnp.isfinite(jnp.square(rate) * (number + jnp.square(grad_norm)))


def with_target_terms(
  counts: Mapping[str, dict[str, jax.Array]], targets: Mapping[str, Targets]
) -> dict[str, dict[str, jax.Array]]:
  """Counts whose "terms" include those that only the targets tell."""
  out = dict(counts)
  for name, own in targets.items():
    if own.terms is not None:
      out[name] = out[name] | {"terms": out[name]["terms"] + own.terms}
  return out


def factors(
  objectives: Objectives,
  terms: Mapping[str, jax.Array],
  loss_norm: str,
  updates: jax.Array,
) -> dict[str, jax.Array]:
  """The factor of each objective's terms in the loss.

  Args:
    objectives: by name.
    terms: number of terms of each, over all devices and microbatches.
    loss_norm: see step.make_train_step.
    updates: counted before this one.
  """
  scales = scale(terms, loss_norm)
  return {
    name: scales[name] * objective.weight * objective.counts_at(updates)
    for name, objective in objectives.items()
  }


def scale(
  terms: Mapping[str, jax.Array], loss_norm: str
) -> dict[str, jax.Array]:
  """What loss_norm divides by, as a factor for each objective.

  No terms at all count as one. In a joint sum an objective without terms adds
  nothing to the total, as in the released code.
  """
  counts = {k: v.astype(jnp.float32) for k, v in terms.items()}
  if loss_norm == "joint_sum":
    total = functools.reduce(jnp.add, counts.values())
    return dict.fromkeys(counts, 1.0 / jnp.maximum(total, 1.0))
  if loss_norm == "per_task_mean":
    return {k: 1.0 / jnp.maximum(count, 1.0) for k, count in counts.items()}
  raise ValueError(f"loss_norm={loss_norm!r} is not joint_sum or per_task_mean")


def sum_scan(
  one: Callable[[Any, Tree], tuple[Any, Tree]],
  carry: Any,
  inputs: Tree,
  length: int,
) -> tuple[Any, Tree]:
  """Scans `one` and sums what it gives; no loop around a single piece."""
  first = jax.tree.map(lambda x: x[0], inputs)
  if length == 1:
    return one(carry, first)

  def body(state: Any, piece: Tree) -> tuple[Any, None]:
    carry, total = state
    carry, part = one(carry, piece)
    return (carry, jax.tree.map(jnp.add, total, part)), None

  _, part = jax.eval_shape(one, carry, first)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), part)
  return jax.lax.scan(body, (carry, zeros), inputs)[0]
