"""One update as a pure function: (state, batch) -> (state, metrics).

How an update goes, in order:

  1. masks are drawn for every stream, so the number of terms of every loss is
     known and any normalisation costs one backward pass;
  2. the key encoder encodes the key side of the whole batch, no gradient;
  3. per microbatch: the weighted sum of all objectives and its gradient;
  4. gradients are reduced over devices, once, in float32;
  5. the optimiser, the key encoder's moving average, the queue.

1 to 4 run inside one shard_map, each device on its own groups of the batch.
The only collectives there are: batch-sized vectors of the contrast, the
parameters of one layer at a time where `fsdp` splits them, and step 4.
"""

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from infoxlm_jax import encoder, negatives, partitioning
from infoxlm_jax.encoder import EncoderConfig
from infoxlm_jax.objectives.objective import Context, Objective
from infoxlm_jax.optimizer import move_average
from infoxlm_jax.partitioning import BATCH, BATCH_AXES
from infoxlm_jax.schedules import Schedule
from infoxlm_jax.state import TrainState, contrastive

Objectives = Mapping[str, Objective]


def make_train_step(
  state: TrainState,
  mesh: Mesh,
  model: EncoderConfig,
  objectives: Objectives,
  optimizer: optax.GradientTransformation,
  *,
  learning_rate: Schedule,
  momentum: Schedule,
  loss_norm: str = "joint_sum",
  weights: Mapping[str, float] | None = None,
  start_steps: Mapping[str, int] | None = None,
  microbatches: int = 1,
  push_per_microbatch: bool = False,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
  """Builds the jitted update.

  Args:
    state: a state, real or abstract, for its shapes.
    mesh: from partitioning.make_mesh.
    model: the encoder's shapes.
    objectives: by name; names appear in metrics.
    optimizer: takes `learning_rate` already; it is passed for the metrics.
    learning_rate: rate of update n + 1 as a function of n.
    momentum: of the key encoder, as a function of the updates done.
    loss_norm: "joint_sum": the sum of all losses over the number of all
      their terms (the released code: one contrast item weighs as much as one
      masked token). "per_task_mean": the sum of every loss's mean.
    weights: factor of each objective's loss, default 1 (XlCo's is lambda).
    start_steps: an objective's weight is 0 before this step; before the
      contrastive one's, the key encoder is kept a copy of the encoder.
    microbatches: pieces in which a device computes its groups.
    push_per_microbatch: let each microbatch's keys be negatives of the next
      (the released code) instead of pushing all after the update.

  Returns:
    A function that donates the state. Batches are {stream: {name: int32
    [groups, ...]}}. An update whose loss or gradient is not finite changes
    nothing but `step`, and says so in metrics["finite"].
  """
  contrast = contrastive(objectives)
  weights, starts = dict(weights or {}), dict(start_steps or {})
  specs = partitioning.specs(state, mesh)

  def local_update(params, key_params, queue, rng, step, batch):
    """One device's part: gradients, metric sums, keys or new queue."""
    rows, counts = _corrupt(objectives, model, rng, batch)
    counts = jax.lax.psum(counts, BATCH_AXES)
    factors = {
      name: weights.get(name, 1.0) * (step >= starts.get(name, 0))
      for name in objectives
    }
    scale = _scale({k: c["terms"] for k, c in counts.items()}, loss_norm)
    scale = {name: scale[name] * factors[name] for name in objectives}

    encode = _encode(model, specs.params["layers"])
    params = _gather_outer(params, specs.params)
    micro = jax.tree.map(
      lambda x: x.reshape(microbatches, -1, *x.shape[1:]), rows
    )
    keys, context = None, Context(axes=BATCH_AXES)
    if contrast is not None:
      key_encode = _encode(model, specs.key_params["layers"])
      key_params = _gather_outer(key_params, specs.key_params)
      contrast_rows = micro[_name_of(contrast, objectives)]
      keys = _map(
        lambda r: contrast.keys(key_params, key_encode, r), contrast_rows
      )  # [microbatches, directions, n, D]
      flat = jnp.swapaxes(keys, 0, 1).reshape(
        keys.shape[1], -1, keys.shape[-1]
      )
      device = jax.lax.axis_index(BATCH_AXES)
      context = context._replace(
        batch_keys=jax.lax.all_gather(flat, BATCH_AXES, axis=1, tiled=True),
        first=device * flat.shape[1],
        queue=queue,
      )

    def loss(params, rows, context):
      total, sums = 0.0, {}
      for name, objective in objectives.items():
        part = objective.loss(params, encode, rows[name], model, context)
        total += scale[name] * part.sum
        sums |= {f"{name}/{k}": v for k, v in part.metrics.items()}
      return total, sums

    def one(queue, inputs):
      rows, keys, index = inputs
      here = context
      if keys is not None:
        here = context._replace(
          keys=keys, first=context.first + index * keys.shape[1], queue=queue
        )
      (total, sums), grads = jax.value_and_grad(loss, has_aux=True)(
        params, rows, here
      )
      if push_per_microbatch and keys is not None:
        queue = negatives.push(queue, keys[0])
      return queue, jax.tree.map(_varying, (grads, total, sums))

    queue, (grads, total, sums) = _sum_scan(
      one, queue, (micro, keys, jnp.arange(microbatches)), microbatches
    )
    grads = _reduce(grads, specs.params)
    tokens = sum(jnp.sum(s > 0) for s in _segments(batch))
    totals = jax.lax.psum((total, sums, _varying(tokens)), BATCH_AXES)
    if contrast is None:
      pushed = None
    elif push_per_microbatch:
      pushed = queue
    else:
      pushed = keys[:, 0].reshape(-1, keys.shape[-1])
    return grads, totals, counts, pushed

  queue_out = specs.queue if push_per_microbatch else P(BATCH_AXES)
  sharded_update = jax.shard_map(
    local_update,
    mesh=mesh,
    in_specs=(specs.params, specs.key_params, specs.queue, P(), P(), BATCH),
    out_specs=(specs.params, P(), P(), queue_out),
  )

  def train_step(state: TrainState, batch):
    rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    grads, totals, counts, pushed = sharded_update(
      state.params, state.key_params, state.queue, rng, state.step, batch
    )
    loss, sums, tokens = totals
    grad_norm = optax.global_norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)

    def if_finite(new, old):
      return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

    updates, opt_state = optimizer.update(
      grads, state.opt_state, state.params
    )
    params = if_finite(optax.apply_updates(state.params, updates), state.params)
    done = state.step + 1
    metrics = {
      "loss": loss,
      "grad_norm": grad_norm,
      "learning_rate": learning_rate(state.step),
      "finite": finite,
      "tokens": tokens,
    }
    key_params, queue = state.key_params, state.queue
    if contrast is not None:
      started = done >= starts.get(_name_of(contrast, objectives), 0)
      m = jnp.where(started, momentum(done), 0.0)
      key_params = if_finite(
        move_average(key_params, contrast.key_params(params), m), key_params
      )
      if push_per_microbatch:
        queue = if_finite(pushed, queue)
      else:
        queue = negatives.push(queue, pushed, finite)
      metrics["momentum"] = m
    metrics |= {k: s / jnp.maximum(w, 1e-9) for k, (s, w) in sums.items()}
    metrics |= {
      f"{name}/{k}": v for name, c in counts.items() for k, v in c.items()
    }
    state = TrainState(
      step=done,
      params=params,
      key_params=key_params,
      opt_state=if_finite(opt_state, state.opt_state),
      queue=queue,
      rng=state.rng,
    )
    return state, metrics

  shardings = partitioning.shardings(state, mesh)
  return jax.jit(
    train_step,
    donate_argnums=0,
    in_shardings=(shardings, partitioning.batch_sharding(mesh)),
    out_shardings=(shardings, None),
  )


def make_fill_step(
  state: TrainState, mesh: Mesh, model: EncoderConfig, objectives: Objectives
) -> Callable[[TrainState, Any, jax.Array], TrainState]:
  """Builds the step that pushes a batch's keys before training begins.

  `fill(state, batch, n)` encodes with masks drawn for number n, as the
  released code does before its first update; it learns nothing.
  """
  contrast = contrastive(objectives)
  specs = partitioning.specs(state, mesh)
  name = _name_of(contrast, objectives)

  def local_keys(key_params, rng, batch):
    rows, _ = _corrupt({name: contrast}, model, rng, batch)
    encode = _encode(model, specs.key_params["layers"])
    key_params = _gather_outer(key_params, specs.key_params)
    return contrast.keys(key_params, encode, rows[name])[0]

  sharded_keys = jax.shard_map(
    local_keys,
    mesh=mesh,
    in_specs=(specs.key_params, P(), BATCH),
    out_specs=BATCH,
  )

  def fill_step(state: TrainState, batch, number):
    rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), number)
    # Far from the numbers that updates use.
    keys = sharded_keys(state.key_params, jax.random.fold_in(rng, 1), batch)
    slots = keys.reshape(-1, *state.queue.keys.shape[1:])
    queue = state.queue
    for i in range(slots.shape[0]):
      queue = negatives.push(queue, slots[i])
    return state.replace(queue=queue)

  shardings = partitioning.shardings(state, mesh)
  return jax.jit(
    fill_step,
    donate_argnums=0,
    in_shardings=(shardings, partitioning.batch_sharding(mesh), None),
    out_shardings=shardings,
  )


def make_eval_step(
  state: TrainState, mesh: Mesh, model: EncoderConfig, objectives: Objectives
) -> Callable[[TrainState, Any, jax.Array], dict[str, Any]]:
  """Builds the held-out losses: metrics as (sum, weight) pairs by name.

  The contrast is measured among the batch's own keys and the queue as it
  stands; masks depend on the number given, so every evaluation can draw the
  same ones.
  """
  contrast = contrastive(objectives)
  specs = partitioning.specs(state, mesh)

  def local_eval(params, key_params, queue, rng, batch):
    rows, _ = _corrupt(objectives, model, rng, batch)
    encode = _encode(model, specs.params["layers"])
    params = _gather_outer(params, specs.params)
    context = Context(axes=BATCH_AXES)
    if contrast is not None:
      key_encode = _encode(model, specs.key_params["layers"])
      key_params = _gather_outer(key_params, specs.key_params)
      keys = contrast.keys(
        key_params, key_encode, rows[_name_of(contrast, objectives)]
      )
      context = context._replace(
        keys=keys,
        batch_keys=jax.lax.all_gather(keys, BATCH_AXES, axis=1, tiled=True),
        first=jax.lax.axis_index(BATCH_AXES) * keys.shape[1],
        queue=queue,
      )
    sums = {}
    for name, objective in objectives.items():
      part = objective.loss(params, encode, rows[name], model, context)
      sums |= {f"{name}/{k}": v for k, v in part.metrics.items()}
    return jax.lax.psum(jax.tree.map(_varying, sums), BATCH_AXES)

  sharded_eval = jax.shard_map(
    local_eval,
    mesh=mesh,
    in_specs=(specs.params, specs.key_params, specs.queue, P(), BATCH),
    out_specs=P(),
  )

  def eval_step(state: TrainState, batch, number):
    rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), number)
    return sharded_eval(
      state.params, state.key_params, state.queue, rng, batch
    )

  shardings = partitioning.shardings(state, mesh)
  return jax.jit(
    eval_step,
    in_shardings=(shardings, partitioning.batch_sharding(mesh), None),
  )


def _corrupt(objectives: Objectives, model: EncoderConfig, rng, batch):
  """Masks and dropout keys of this device's groups, and counts of terms.

  Every random number is a function of (update, group, objective), so no mesh
  and no number of microbatches changes it.
  """
  groups = _segments(batch)[0].shape[0]
  first = jax.lax.axis_index(BATCH_AXES) * groups
  keys_G = jax.vmap(jax.random.fold_in, (None, 0))(
    rng, first + jnp.arange(groups)
  )
  fold = jax.vmap(jax.random.fold_in, (0, None))
  rows, counts = {}, {}
  for name, objective in objectives.items():
    own_G = fold(keys_G, zlib.crc32(name.encode()))
    rows[name], counts[name] = objective.corrupt(
      own_G, batch[objective.stream], model
    )
    if model.dropout or model.attention_dropout:
      rows[name] = _with_dropout_keys(rows[name], fold(own_G, 7))
    counts[name] = jax.tree.map(_varying, counts[name])
  return rows, counts


def _with_dropout_keys(rows: Any, keys_G: jax.Array) -> Any:
  if "tokens" in rows:
    keys = jax.vmap(lambda key: jax.random.split(key, rows["tokens"].shape[1]))
    return rows | {"dropout_keys": keys(keys_G)}
  fold = jax.vmap(jax.random.fold_in, (0, None))
  return {
    name: _with_dropout_keys(part, fold(keys_G, zlib.crc32(name.encode())))
    if isinstance(part, Mapping)
    else part
    for name, part in rows.items()
  }


def _scale(terms: Mapping[str, jax.Array], loss_norm: str):
  """Factor of every objective's sum in the loss."""
  terms = {k: jnp.maximum(v.astype(jnp.float32), 1.0) for k, v in terms.items()}
  if loss_norm == "joint_sum":
    total = sum(terms.values())
    return {name: 1.0 / total for name in terms}
  if loss_norm == "per_task_mean":
    return {name: 1.0 / count for name, count in terms.items()}
  raise ValueError(
    f"loss_norm={loss_norm!r} is not joint_sum or per_task_mean"
  )


def _encode(model: EncoderConfig, layer_specs: Any):
  """encoder.encode that gathers each layer's fsdp parts as it gets there."""

  def unshard(layer):
    # The layer axis is gone inside the scan.
    return jax.tree.map(
      lambda x, spec: _gather(x, P(*spec[1:])), layer, layer_specs
    )

  return functools.partial(encoder.encode, config=model, unshard=unshard)


def _gather_outer(params: Any, specs: Any) -> Any:
  """Whole embeddings and heads, layers left split; all marked as this
  device's own, so that gradients stay local until `_reduce`."""
  outer = {
    name: jax.tree.map(_gather, part, specs[name])
    for name, part in params.items()
    if name != "layers"
  }
  return jax.tree.map(_varying, outer | {"layers": params["layers"]})


def _gather(x: jax.Array, spec: P) -> jax.Array:
  for dim, axis in enumerate(spec):
    if axis is not None:
      x = jax.lax.all_gather(x, axis, axis=dim, tiled=True)
  return x


def _reduce(grads: Any, specs: Any) -> Any:
  """Sums gradients over devices, each left where its parameter lives."""

  def reduce(path, g, spec):
    names = {axis for axis in spec if axis is not None}
    if path[0].key != "layers":  # layers were scattered inside the scan
      for dim, axis in enumerate(spec):
        if axis is not None:
          g = jax.lax.psum_scatter(g, axis, scatter_dimension=dim, tiled=True)
    rest = tuple(axis for axis in BATCH_AXES if axis not in names)
    return jax.lax.psum(g, rest) if rest else g

  return jax.tree_util.tree_map_with_path(reduce, grads, specs)


def _sum_scan(one, carry, inputs, length: int):
  """Scans `one` and sums what it gives; no loop around a single piece."""
  if length == 1:
    return one(carry, jax.tree.map(lambda x: x[0], inputs))

  def body(state, piece):
    carry, total = state
    carry, part = one(carry, piece)
    return (carry, jax.tree.map(jnp.add, total, part)), None

  _, part = jax.eval_shape(one, carry, jax.tree.map(lambda x: x[0], inputs))
  zeros = jax.tree.map(lambda x: _varying(jnp.zeros(x.shape, x.dtype)), part)
  return jax.lax.scan(body, (carry, zeros), inputs)[0]


def _map(function, inputs):
  if jax.tree.leaves(inputs)[0].shape[0] == 1:
    return function(jax.tree.map(lambda x: x[0], inputs))[None]
  return jax.lax.map(function, inputs)


def _varying(x: jax.Array) -> jax.Array:
  """x, typed as different on every device, so that AD adds no reduction."""
  for axis in BATCH_AXES:
    try:
      x = jax.lax.pcast(x, axis, to="varying")
    except ValueError:  # it already differs along this axis
      pass
  return x


def _segments(batch: Any) -> list[jax.Array]:
  found = jax.tree_util.tree_leaves_with_path(batch)
  return [
    leaf for path, leaf in found if path[-1].key == "segments"
  ]


def _name_of(objective: Any, objectives: Objectives) -> str:
  return next(name for name, o in objectives.items() if o is objective)
