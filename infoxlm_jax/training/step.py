"""One update as a pure function: (state, batch) -> (state, metrics).

How an update goes, in order:

  1. masks are drawn for every stream, so the number of terms of every loss is
     known and any normalisation costs one backward pass;
  2. the key encoder encodes the key side of the whole batch, no gradient;
  3. per microbatch: the weighted sum of all objectives and its gradient;
  4. gradients are reduced over devices, once, in float32;
  5. the optimiser, the key encoder's moving average, the queue.

1 to 4 run inside one shard_map (local.py), each device on its own groups of
the batch. The only collectives there are batch-sized vectors of the contrast,
the parameters of one layer at a time where `fsdp` splits them, and step 4.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from infoxlm_jax.model import partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.partitioning import BATCH, BATCH_AXES
from infoxlm_jax.objectives import key_queue
from infoxlm_jax.objectives.base import Context, LossSum, all_losses
from infoxlm_jax.training import collectives, device_step
from infoxlm_jax.training.device_step import Objectives, Tree
from infoxlm_jax.training.optimizer import move_average, skipping
from infoxlm_jax.training.schedules import Schedule
from infoxlm_jax.training.state import TrainState, contrastive, name_of

Metrics = dict[str, jax.Array]

# By default XLA's CPU compiler orders a program so that much may run at one
# time: a fifth more memory, and no faster, since each product uses all cores.
_COMPILER = {"cpu": {"xla_cpu_enable_concurrency_optimized_scheduler": False}}


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
  microbatches: int = 1,
  push_per_microbatch: bool = False,
  zero1: bool = False,
) -> Callable[[TrainState, Tree], tuple[TrainState, Metrics]]:
  """Builds the jitted update.

  Args:
    state: a state, real or abstract, for its shapes and where it lies.
    mesh: from partitioning.make_mesh.
    model: the encoder's shapes.
    objectives: by name; names appear in metrics.
    optimizer: takes `learning_rate` already; it is passed for the metrics.
    learning_rate: rate of update n + 1 as a function of n.
    momentum: of the key encoder, as a function of the updates done.
    loss_norm: "joint_sum": the sum of all losses over the number of all
      their terms (the released code: one contrast item weighs as much as one
      masked token). "per_task_mean": the sum of every loss's mean.
    microbatches: pieces in which a device computes its groups.
    push_per_microbatch: let each microbatch's keys be negatives of the next
      (the released code) instead of pushing all after the update.
    zero1: whether the state's optimiser was laid out so, see
      partitioning.specs.

  Returns:
    A function that donates the state. Batches are {stream: {name: int32
    [groups, ...]}}. An update whose loss or gradient is not finite changes
    nothing but `step`, and says so in metrics["finite"].
  """
  optimizer = skipping(optimizer)
  contrast = contrastive(objectives)
  specs = partitioning.specs_of(state)
  targets = specs.params
  if zero1:
    targets = partitioning.update_specs(state.params, mesh)

  def local_update(
    params: Tree, key_params: Tree, queue: Any, rng: Any, step: Any, batch: Tree
  ) -> tuple[Tree, Tree, Tree, Tree]:
    """One device's part: gradients, sums, counts, and keys or a new queue."""
    rows, counts = device_step.corrupt(objectives, model, rng, batch)
    counts = jax.lax.psum(counts, BATCH_AXES)
    factors = device_step.scale(
      {k: c["terms"] for k, c in counts.items()}, loss_norm
    )
    factors = {
      name: factors[name] * objective.weight * (step >= objective.start_step)
      for name, objective in objectives.items()
    }
    encode = collectives.encode_with(model, specs.params)
    params = collectives.whole_outer(params, specs.params)
    micro = jax.tree.map(
      lambda x: x.reshape(microbatches, -1, *x.shape[1:]), rows
    )
    keys, context = None, Context(axes=BATCH_AXES)
    if contrast is not None:
      keys = device_step.contrast_keys(
        contrast,
        key_params,
        specs.key_params,
        model,
        micro[name_of(contrast, objectives)],
      )
      context = device_step.contrast_context(keys, queue)
    context = context._replace(
      factors=factors, vocab_axis=collectives.vocab_axis(specs.params)
    )

    def loss(params: Tree, rows: Tree, context: Context) -> LossSum:
      params, rows = device_step.with_vectors(
        objectives, params, rows, specs.params
      )
      return all_losses(objectives, params, encode, rows, model, context)

    def one(queue: Any, inputs: Tree) -> tuple[Any, Tree]:
      rows, keys, index = inputs
      here = context
      if keys is not None:
        first = context.first + index * keys.shape[1]
        here = context._replace(keys=keys, first=first, queue=queue)
      (total, sums), grads = jax.value_and_grad(loss, has_aux=True)(
        params, rows, here
      )
      if push_per_microbatch and keys is not None:
        queue = key_queue.push(queue, keys[0])
      return queue, (grads, total, sums)

    pieces = (micro, keys, jnp.arange(microbatches))
    queue, (grads, total, sums) = device_step.sum_scan(
      one, queue, pieces, microbatches
    )
    grads = collectives.reduce_gradients(grads, specs.params, targets)
    tokens = sum(jnp.sum(s > 0) for s in device_step.segments(batch))
    totals = jax.lax.psum((total, sums, tokens), BATCH_AXES)
    pushed = None
    if keys is not None:
      pushed = keys[:, 0].reshape(-1, keys.shape[-1])
    return (
      grads,
      totals,
      counts,
      queue if push_per_microbatch else pushed,
    )

  sharded_update = collectives.shard_map(
    local_update,
    mesh,
    in_specs=(specs.params, specs.key_params, specs.queue, P(), P(), BATCH),
    out_specs=(
      targets,
      P(),
      P(),
      specs.queue if push_per_microbatch else BATCH,
    ),
  )

  shardings = partitioning.named(specs, mesh)

  def train_step(state: TrainState, batch: Tree) -> tuple[TrainState, Metrics]:
    rng = device_step.update_key(state.rng, state.step)
    grads, (loss, sums, tokens), counts, pushed = sharded_update(
      state.params, state.key_params, state.queue, rng, state.step, batch
    )
    grad_norm = optax.global_norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)

    changes, opt_state = optimizer.update(
      grads, state.opt_state, state.params, accept=finite
    )
    params = optax.apply_updates(state.params, changes)
    if zero1:
      # Gathered here, once: or XLA averages the parts and gathers both.
      params = jax.lax.with_sharding_constraint(params, shardings.params)
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
      m = jnp.where(done >= contrast.start_step, momentum(done), 0.0)
      key_params = move_average(
        key_params, contrast.key_params(params), jnp.where(finite, m, 1.0)
      )
      assert queue is not None
      if push_per_microbatch:
        queue = jax.tree.map(
          lambda new, old: jnp.where(finite, new, old), pushed, queue
        )
      else:
        queue = key_queue.push(queue, pushed, finite)
      metrics["momentum"] = m
    metrics |= {k: s / jnp.maximum(w, 1e-9) for k, (s, w) in sums.items()}
    metrics |= {
      f"{name}/{k}": v for name, c in counts.items() for k, v in c.items()
    }
    state = TrainState(
      step=done,
      params=params,
      key_params=key_params,
      opt_state=opt_state,
      queue=queue,
      rng=state.rng,
    )
    return state, metrics

  return jax.jit(
    train_step,
    donate_argnums=0,
    in_shardings=(shardings, partitioning.batch_sharding(mesh)),
    out_shardings=(shardings, None),
    compiler_options=_COMPILER.get(mesh.devices.flat[0].platform),
  )
