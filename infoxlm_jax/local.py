"""What one device does inside the shard_map of a step.

Each device sees its own groups of the batch, its part of every split array,
and nothing else; the only collectives are the ones written here and in
objectives/info_nce.py.
"""

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from infoxlm_jax import encoder
from infoxlm_jax.encoder_config import EncoderConfig
from infoxlm_jax.negatives import Queue
from infoxlm_jax.objectives.objective import Context, Objective
from infoxlm_jax.partitioning import BATCH_AXES

Objectives = Mapping[str, Objective]
Encode = Callable[..., Any]
Tree = Any  # nested dicts of arrays


def shard_map(
  function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
  """jax.shard_map without its types of what differs between devices.

  With them, differentiation would sum gradients over devices at every use of
  a parameter, inside the loops; without, a gradient is this device's own until
  `reduce_gradients`. All collectives under the gradient are gathers and
  scatters, whose transposes are each other.
  """
  return jax.shard_map(
    function,
    mesh=mesh,
    in_specs=in_specs,
    out_specs=out_specs,
    check_vma=False,
  )


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
  found = jax.tree_util.tree_leaves_with_path(batch)
  return [leaf for path, leaf in found if path[-1].key == "segments"]


def encode_with(model: EncoderConfig, layer_specs: Tree) -> Encode:
  """encoder.encode that gathers each layer's fsdp parts when it gets there."""

  def unshard(layer: Tree) -> Tree:
    # The layer axis is gone inside the scan.
    return jax.tree.map(
      lambda x, spec: _gather(x, P(*spec[1:])), layer, layer_specs
    )

  return functools.partial(encoder.encode, config=model, unshard=unshard)


def whole_outer(params: Tree, specs: Tree) -> Tree:
  """Gathers embeddings and heads; layers stay split until they are used."""
  outer = {
    name: jax.tree.map(_gather, part, specs[name])
    for name, part in params.items()
    if name != "layers"
  }
  return outer | {"layers": params["layers"]}


def reduce_gradients(grads: Tree, specs: Tree) -> Tree:
  """Sums gradients over devices, each left where its parameter lives."""

  def reduce(path: tuple[Any, ...], g: jax.Array, spec: P) -> jax.Array:
    if path[0].key != "layers":  # layers were scattered inside their scan
      for dim, axis in enumerate(spec):
        if axis is not None:
          g = jax.lax.psum_scatter(g, axis, scatter_dimension=dim, tiled=True)
    rest = tuple(axis for axis in BATCH_AXES if axis not in spec)
    return jax.lax.psum(g, rest) if rest else g

  return jax.tree_util.tree_map_with_path(reduce, grads, specs)


def _gather(x: jax.Array, spec: P) -> jax.Array:
  for dim, axis in enumerate(spec):
    if axis is not None:
      x = jax.lax.all_gather(x, axis, axis=dim, tiled=True)
  return x


def contrast_keys(
  contrast: Any,
  key_params: Tree,
  specs: Tree,
  model: EncoderConfig,
  micro: Tree,
) -> jax.Array:
  """This device's keys [microbatches, directions, items, D], no gradient."""
  encode = encode_with(model, specs["layers"])
  params = whole_outer(key_params, specs)
  if jax.tree.leaves(micro)[0].shape[0] == 1:  # no loop around one piece
    return contrast.keys(params, encode, jax.tree.map(lambda x: x[0], micro))[
      None
    ]
  return jax.lax.map(lambda rows: contrast.keys(params, encode, rows), micro)


def contrast_context(keys: jax.Array, queue: Queue | None) -> Context:
  """Context of a whole device's keys [microbatches, directions, items, D]."""
  _, directions, _, dim = keys.shape
  flat = jnp.swapaxes(keys, 0, 1).reshape(directions, -1, dim)
  return Context(
    batch_keys=jax.lax.all_gather(flat, BATCH_AXES, axis=1, tiled=True),
    first=jax.lax.axis_index(BATCH_AXES) * flat.shape[1],
    queue=queue,
    axes=BATCH_AXES,
  )


def scale(
  terms: Mapping[str, jax.Array], loss_norm: str
) -> dict[str, jax.Array]:
  """Factor of every objective's sum in the loss."""
  counts = {
    k: jnp.maximum(v.astype(jnp.float32), 1.0) for k, v in terms.items()
  }
  if loss_norm == "joint_sum":
    total = functools.reduce(jnp.add, counts.values())
    return dict.fromkeys(counts, 1.0 / total)
  if loss_norm == "per_task_mean":
    return {name: 1.0 / count for name, count in counts.items()}
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
