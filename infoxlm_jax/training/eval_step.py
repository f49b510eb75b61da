"""Steps that train nothing: filling the queue, and held-out losses."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from infoxlm_jax.model import partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.partitioning import BATCH, BATCH_AXES
from infoxlm_jax.objectives import key_queue
from infoxlm_jax.objectives.base import Context, Sums, all_losses
from infoxlm_jax.training import collectives, device_step
from infoxlm_jax.training.device_step import Objectives, Tree
from infoxlm_jax.training.state import TrainState, contrastive, name_of

# Random numbers of their own: updates draw from fold_in(rng, update).
_FILL, _EVAL = 0x66696C6C, 0x6576616C


def make_fill_step(
  state: TrainState, mesh: Mesh, model: EncoderConfig, objectives: Objectives
) -> Callable[[TrainState, Tree, int], TrainState]:
  """Builds the step that pushes a batch's keys before training begins.

  `fill(state, batch, n)` encodes with masks drawn for number n, as the
  released code does before its first update.
  """
  contrast = contrastive(objectives)
  assert contrast is not None
  name = name_of(contrast, objectives)
  specs = partitioning.specs_of(state)

  def local_keys(key_params: Tree, rng: jax.Array, batch: Tree) -> jax.Array:
    rows, _ = device_step.corrupt({name: contrast}, model, rng, batch)
    micro = jax.tree.map(lambda x: x[None], rows[name])
    keys = device_step.contrast_keys(
      contrast, key_params, specs.key_params, model, micro
    )
    return keys[0, 0]

  sharded_keys = collectives.shard_map(
    local_keys,
    mesh,
    in_specs=(specs.key_params, P(), BATCH),
    out_specs=BATCH,
  )

  def fill_step(state: TrainState, batch: Tree, number: Any) -> TrainState:
    rng = _random(state, _FILL, number)
    keys = sharded_keys(state.key_params, rng, batch)
    queue = state.queue
    assert queue is not None
    for push in keys.reshape(-1, *queue.keys.shape[1:]):
      queue = key_queue.push(queue, push)
    return dataclasses.replace(state, queue=queue)

  shardings = partitioning.named(specs, mesh)
  return jax.jit(
    fill_step,
    donate_argnums=0,
    in_shardings=(shardings, partitioning.batch_sharding(mesh), None),
    out_shardings=shardings,
  )


def make_eval_step(
  state: TrainState, mesh: Mesh, model: EncoderConfig, objectives: Objectives
) -> Callable[[TrainState, Tree, int], Sums]:
  """Builds the held-out losses: metrics as (sum, weight) pairs by name.

  The contrast is measured against the queue as it stands. Masks depend on the
  number given, so that every evaluation can draw the same ones.
  """
  contrast = contrastive(objectives)
  specs = partitioning.specs_of(state)

  def local_eval(
    params: Tree, key_params: Tree, queue: Any, rng: jax.Array, batch: Tree
  ) -> Sums:
    rows, _ = device_step.corrupt(objectives, model, rng, batch)
    encode = collectives.encode_with(model, specs.params)
    params = collectives.whole_outer(params, specs.params)
    context = Context(axes=BATCH_AXES)
    if contrast is not None:
      own = rows[name_of(contrast, objectives)]
      keys = device_step.contrast_keys(
        contrast,
        key_params,
        specs.key_params,
        model,
        jax.tree.map(lambda x: x[None], own),
      )
      context = device_step.contrast_context(keys, queue)._replace(keys=keys[0])
    context = context._replace(vocab_axis=collectives.vocab_axis(specs.params))
    found = all_losses(objectives, params, encode, rows, model, context)
    return jax.lax.psum(found.metrics, BATCH_AXES)

  sharded_eval = collectives.shard_map(
    local_eval,
    mesh,
    in_specs=(specs.params, specs.key_params, specs.queue, P(), BATCH),
    out_specs=P(),
  )

  def eval_step(state: TrainState, batch: Tree, number: Any) -> Sums:
    rng = _random(state, _EVAL, number)
    return sharded_eval(state.params, state.key_params, state.queue, rng, batch)

  return jax.jit(
    eval_step,
    in_shardings=(
      partitioning.named(specs, mesh),
      partitioning.batch_sharding(mesh),
      None,
    ),
  )


def _random(state: TrainState, use: int, number: Any) -> jax.Array:
  rng = jax.random.wrap_key_data(state.rng)
  return jax.random.fold_in(jax.random.fold_in(rng, use), number)
