"""Steps that train nothing: filling objectives' state, and held-out losses."""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from infoxlm_jax.model import partitioning
from infoxlm_jax.model.partitioning import BATCH, BATCH_AXES
from infoxlm_jax.objectives.base import Context, Sums, Targets, all_losses
from infoxlm_jax.training import collectives, device_step
from infoxlm_jax.training.device_step import Tree
from infoxlm_jax.training.state import Recipe, TrainState

# Random numbers of their own: updates draw from fold_in(rng, update).
_FILL, _EVAL = 0x66696C6C, 0x6576616C


def fill_batches(recipe: Recipe) -> dict[str, int]:
  """Batches that fill the state of each objective which needs it, by name."""
  counts = {
    name: objective.fill_batches(recipe.batches[objective.stream])
    for name, objective in recipe.objectives.items()
  }
  return {name: count for name, count in counts.items() if count}


def make_fill_step(
  recipe: Recipe, state: TrainState, mesh: Mesh, names: tuple[str, ...]
) -> Callable[[TrainState, Tree, int], TrainState]:
  """Builds the step that fills objectives' state before training begins.

  `fill(state, batch, n)` adds what objectives collect of batch number n, with
  masks drawn for that number: the released code fills its queue so.

  Args:
    recipe: what the run trains.
    state: real or abstract, for its shapes and where it lies.
    mesh: from partitioning.make_mesh.
    names: of the objectives to fill.
  """
  model = recipe.model
  filled = {name: recipe.objectives[name] for name in names}
  specs = partitioning.specs_of(state)

  def device_collect(
    params: Tree, states: Tree, rng: jax.Array, batch: Tree
  ) -> Tree:
    rows, _ = device_step.corrupt(filled, model, rng, batch)
    micro = jax.tree.map(lambda x: x[None], rows)
    targets = device_step.targets_of(
      filled, model, params, states, specs, micro
    )
    return {k: filled[k].collect(targets.get(k)) for k in filled}

  sharded_collect = collectives.shard_map(
    device_collect,
    mesh,
    in_specs=(specs.params, specs.objective_state, P(), BATCH),
    out_specs=device_step.COLLECTED,
  )

  def fill_step(state: TrainState, batch: Tree, number: Any) -> TrainState:
    rng = _random(state, _FILL, number)
    collected = sharded_collect(state.params, state.objective_state, rng, batch)
    own = {
      name: filled[name].fill_state(state.objective_state[name], arrays)
      for name, arrays in collected.items()
    }
    return dataclasses.replace(
      state, objective_state=state.objective_state | own
    )

  shardings = partitioning.named(specs, mesh)
  return jax.jit(
    fill_step,
    donate_argnums=0,
    in_shardings=(shardings, partitioning.batch_sharding(mesh), None),
    out_shardings=shardings,
  )


def make_eval_step(
  recipe: Recipe,
  state: TrainState,
  mesh: Mesh,
  names: Collection[str] | None = None,
  languages: int = 0,
) -> Callable[[TrainState, Tree, int], Sums]:
  """Builds the held-out losses: metrics as (sum, weight) pairs by name.

  An objective with state is measured against it as it stands. Masks depend on
  the number given, so that every evaluation can draw the same ones. There is
  no dropout, so that held-out losses tell what the model can do.

  Args:
    recipe, state, mesh: see make_fill_step.
    names: of the objectives to measure, whose streams the batch has; None: all.
    languages: see Context.
  """
  objectives = {
    name: objective
    for name, objective in recipe.objectives.items()
    if names is None or name in names
  }
  model = dataclasses.replace(recipe.model, dropout=0.0, attention_dropout=0.0)
  specs = partitioning.specs_of(state)

  def device_eval(
    params: Tree, states: Tree, rng: jax.Array, batch: Tree
  ) -> Sums:
    rows, _ = device_step.corrupt(objectives, model, rng, batch)
    micro = jax.tree.map(lambda x: x[None], rows)
    targets = device_step.targets_of(
      objectives, model, params, states, specs, micro
    )
    first = functools.partial(jax.tree.map, lambda x: x[0])
    context = Context(
      axes=BATCH_AXES,
      vocab_axis=collectives.vocab_axis(specs.params),
      memory={
        name: objective.memory(states[name])
        for name, objective in objectives.items()
        if name in states
      },
      targets={
        name: Targets(first(own.each), own.shared)
        for name, own in targets.items()
      },
      languages=languages,
    )
    encode = collectives.encode_with(model, specs.params)
    params = collectives.whole_outer(params, specs.params)
    losses = all_losses(objectives, params, encode, rows, model, context)
    return jax.lax.psum(losses.metrics, BATCH_AXES)

  sharded_eval = collectives.shard_map(
    device_eval,
    mesh,
    in_specs=(specs.params, specs.objective_state, P(), BATCH),
    out_specs=P(),
  )

  def eval_step(state: TrainState, batch: Tree, number: Any) -> Sums:
    rng = _random(state, _EVAL, number)
    return sharded_eval(state.params, state.objective_state, rng, batch)

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
