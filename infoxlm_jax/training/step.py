"""One update as a pure function: (state, batch) -> (state, metrics).

The order of an update:

  1. every objective masks its rows, and counts the terms of its loss;
  2. objectives compute their targets for the whole batch, without gradient
     (the contrast: its key encoder encodes the key side); now the number of
     terms of every loss is known, so any normalization costs one backward
     pass;
  3. for each microbatch: the weighted sum of all losses, and its gradient;
  4. gradients are reduced over devices, once, in float32;
  5. the optimizer updates the parameters, and each objective its own state
     (the contrast: the key encoder's moving average, and the queue).

1 to 4 run inside one shard_map (device_step.py), each device on its own
groups of the batch. The collectives there are batch-sized vectors of the
contrast, the parameters of one layer at a time where `fsdp` splits them, and
step 4.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from infoxlm_jax.model import partitioning
from infoxlm_jax.model.partitioning import BATCH, BATCH_AXES
from infoxlm_jax.objectives.base import Context, LossSum, Targets, all_losses
from infoxlm_jax.training import collectives, device_step
from infoxlm_jax.training.device_step import Tree
from infoxlm_jax.training.optimizer import skipping, updates_applied
from infoxlm_jax.training.schedules import Schedule
from infoxlm_jax.training.state import Recipe, TrainState

Metrics = dict[str, jax.Array]

# By default XLA's CPU compiler orders a program so that much may run at one
# time: a fifth more memory, and no faster, since each product uses all cores.
_COMPILER = {"cpu": {"xla_cpu_enable_concurrency_optimized_scheduler": False}}


def make_train_step(
  recipe: Recipe,
  state: TrainState,
  mesh: Mesh,
  *,
  learning_rate: Schedule,
  loss_norm: str = "joint_sum",
  count_skipped: bool = True,
  zero1: bool = False,
) -> Callable[[TrainState, Tree], tuple[TrainState, Metrics]]:
  """Builds the jitted update.

  Args:
    recipe: what the run trains; names of objectives appear in metrics.
    state: a state, real or abstract, for its shapes and where it lies.
    mesh: from partitioning.make_mesh.
    learning_rate: rate of update n + 1 as a function of n, for the metrics;
      the optimizer has it already.
    loss_norm: "joint_sum": the sum of all losses over the number of all
      their terms (the released code: one contrast item weighs as much as one
      masked token). "per_task_mean": the sum of every loss's mean.
    count_skipped: whether an update that was skipped counts for the objectives
      (their first update, the momentum of the key encoder). The released code
      does not count it. The learning rate goes by the optimizer's own count,
      which leaves it out, either way.
    zero1: whether the state's optimizer was laid out so, see
      partitioning.specs.

  Returns:
    A function that donates the state. Batches are {stream: {name: int32
    [groups, ...]}}. An update is skipped if its loss, its gradient, a key for
    a queue or a momentum is not finite, or the learning rate is so large that
    the parameters would not stay so: it changes nothing but `step` (and the
    queue, where Contrast.push_skipped), and says so in metrics["finite"].
  """
  model, objectives = recipe.model, recipe.objectives
  optimizer = skipping(recipe.optimizer)
  specs = partitioning.specs_of(state)
  grad_specs = specs.params
  if zero1:
    grad_specs = partitioning.update_specs(state.params, mesh)

  def device_update(
    params: Tree, states: Tree, rng: jax.Array, updates: jax.Array, batch: Tree
  ) -> tuple[Tree, Tree, Tree, Tree]:
    """One device's part: gradients, sums, counts, and what it collected."""
    rows, counts = device_step.corrupt(objectives, model, rng, batch)
    micro = jax.tree.map(
      lambda x: x.reshape(recipe.microbatches, -1, *x.shape[1:]), rows
    )
    targets = device_step.targets_of(
      objectives, model, params, states, specs, micro
    )
    counts = device_step.with_target_terms(counts, targets)
    counts = jax.lax.psum(counts, BATCH_AXES)
    terms = {name: count["terms"] for name, count in counts.items()}
    factors = device_step.factors(objectives, terms, loss_norm, updates)
    encode = collectives.encode_with(model, specs.params)
    params = collectives.whole_outer(params, specs.params)
    context = Context(
      axes=BATCH_AXES,
      vocab_axis=collectives.vocab_axis(specs.params),
      factors=factors,
    )

    def loss(params: Tree, rows: Tree, context: Context) -> LossSum:
      params, rows = device_step.with_vectors(
        objectives, params, rows, specs.params
      )
      return all_losses(objectives, params, encode, rows, model, context)

    def microbatch(memory: Tree, inputs: Tree) -> tuple[Tree, Tree]:
      rows, each = inputs
      own = {k: Targets(each[k], targets[k].shared) for k in targets}
      (total, sums), grads = jax.value_and_grad(loss, has_aux=True)(
        params, rows, context._replace(memory=memory, targets=own)
      )
      memory = {
        k: objectives[k].after_microbatch(m, own.get(k))
        for k, m in memory.items()
      }
      return memory, (grads, total, sums)

    memory = {k: objectives[k].memory(own) for k, own in states.items()}
    each = {name: own.each for name, own in targets.items()}
    _, (grads, total, sums) = device_step.sum_scan(
      microbatch, memory, (micro, each), recipe.microbatches
    )
    grads = collectives.reduce_gradients(grads, specs.params, grad_specs)
    tokens = sum(jnp.sum(s > 0) for s in device_step.segments(batch))
    collected = {k: objectives[k].collect(targets.get(k)) for k in states}
    broken = device_step.count_not_finite(collected)
    totals = jax.lax.psum((total, sums, tokens, broken), BATCH_AXES)
    return grads, totals, counts, collected

  sharded_update = collectives.shard_map(
    device_update,
    mesh,
    in_specs=(specs.params, specs.objective_state, P(), P(), BATCH),
    out_specs=(grad_specs, P(), P(), device_step.COLLECTED),
  )

  shardings = partitioning.named(specs, mesh)

  def train_step(state: TrainState, batch: Tree) -> tuple[TrainState, Metrics]:
    rng = device_step.update_key(state.rng, state.step)
    applied = updates_applied(state.opt_state, state.step)
    updates = state.step if count_skipped else applied
    grads, totals, counts, collected = sharded_update(
      state.params, state.objective_state, rng, updates, batch
    )
    loss, sums, tokens, broken = totals
    grad_norm = optax.global_norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & (broken == 0)
    for objective in objectives.values():
      finite &= objective.is_finite(updates + 1)
    rate = jnp.asarray(learning_rate(applied), jnp.float32)
    finite &= device_step.changes_are_finite(rate, grad_norm, state.params)

    changes, opt_state = optimizer.update(
      grads, state.opt_state, state.params, accept=finite
    )
    params = optax.apply_updates(state.params, changes)
    if zero1:
      # Gathered here, once: or XLA averages the parts and gathers both.
      params = jax.lax.with_sharding_constraint(params, shardings.params)
    metrics = {
      "loss": loss,
      "grad_norm": grad_norm,
      "learning_rate": rate,
      "finite": finite,
      "tokens": tokens,
    }
    objective_state = {}
    updates += 1 if count_skipped else finite.astype(jnp.int32)
    for name, own in state.objective_state.items():
      objective_state[name], own_metrics = objectives[name].update_state(
        own, collected[name], params, updates, finite
      )
      metrics |= {f"{name}/{k}": v for k, v in own_metrics.items()}
    metrics |= {k: s / jnp.maximum(w, 1e-9) for k, (s, w) in sums.items()}
    metrics |= {
      f"{name}/{k}": v for name, c in counts.items() for k, v in c.items()
    }
    new_state = TrainState(
      step=state.step + 1,
      params=params,
      objective_state=objective_state,
      opt_state=opt_state,
      rng=state.rng,
    )
    return new_state, metrics

  return jax.jit(
    train_step,
    donate_argnums=0,
    in_shardings=(shardings, partitioning.batch_sharding(mesh)),
    out_shardings=(shardings, None),
    compiler_options=_COMPILER.get(mesh.devices.flat[0].platform),
  )
