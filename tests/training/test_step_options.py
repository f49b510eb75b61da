"""Options of the update that the other tests leave at their defaults."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from test_step import (
  GROUPS,
  _batch,
  _descent,
  _mesh,
  _objectives,
  _recipe,
  _start,
)

from infoxlm_jax.model import encoder, partitioning
from infoxlm_jax.objectives import key_queue
from infoxlm_jax.objectives.contrast import Contrast
from infoxlm_jax.training import schedules, step
from infoxlm_jax.training import state as train_state


def _contrast(state):
  return state.objective_state["xlco"]


@pytest.fixture(scope="module")
def made():
  """Per-task means, a late contrast, a push after each of two microbatches."""
  objectives = _objectives(
    queue_size=20,
    mask_prob=0.0,
    start_step=2,
    momentum=schedules.constant(0.5),
    push_per_microbatch=True,
  )
  objectives["tlm"] = dataclasses.replace(objectives["tlm"], weight=3.0)
  descent = _descent(0.01)
  mesh = _mesh(1)
  config, params = oracle.train_init()
  config = dataclasses.replace(config, dropout=0.1, attention_dropout=0.1)
  numbers = oracle.load("train_official")
  params["heads"]["contrast"] = {"projection": numbers["proj_0"]}

  batches = dict.fromkeys(("mlm", "tlm", "xlco"), GROUPS)
  recipe = train_state.Recipe(config, objectives, descent, batches, 2)

  def start():
    state = train_state.create(
      recipe,
      jax.tree.map(jnp.asarray, params),
      train_state.first_rng(0),
    )
    return jax.device_put(state, partitioning.shardings(state, mesh))

  update = step.make_train_step(
    recipe,
    start(),
    mesh,
    learning_rate=schedules.constant(0.01),
    loss_norm="per_task_mean",
  )
  place = partitioning.batch_sharding(mesh)
  states, metrics = [start()], []
  for number in range(4):
    state = jax.tree.map(jnp.copy, states[-1])
    state, found = update(state, jax.device_put(_batch(number), place))
    states.append(state)
    metrics.append({k: float(v) for k, v in found.items()})
  return states, metrics


def test_per_task_mean_and_weights(made):
  _, metrics = made
  for number, found in enumerate(metrics):
    expected = found["mlm/loss"] + 3 * found["tlm/loss"]
    if number >= 2:
      expected += found["xlco/loss"]
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


def test_before_its_start_the_contrast_trains_nothing(made):
  """No gradient reaches the projection, and the keys are a fresh copy."""
  states, metrics = made
  for number, (before, after) in enumerate(
    zip(states, states[1:], strict=False)
  ):
    gradient = after.opt_state["heads"]["contrast"]["projection"]
    assert bool(np.asarray(gradient).any()) == (number >= 2)
    synced = jax.tree.map(
      np.array_equal,
      _contrast(after).key_params["embed"],
      after.params["embed"],
    )
    assert all(jax.tree.leaves(synced)) == (number + 1 < 2)
    if number >= 1:
      half = 0.5 * _contrast(before).key_params["embed"]["token"]
      half += 0.5 * after.params["embed"]["token"]
      np.testing.assert_allclose(
        _contrast(after).key_params["embed"]["token"], half, atol=1e-7
      )
  assert [m["xlco/momentum"] for m in metrics] == [0.0, 0.5, 0.5, 0.5]


def test_each_microbatch_pushes(made):
  states, _ = made
  for number, state in enumerate(states):
    assert int(_contrast(state).queue.pushes) == 2 * number
    assert _contrast(state).queue.keys.shape[:2] == (3, GROUPS // 2)
  before, after = _contrast(states[2]).queue, _contrast(states[3]).queue
  kept = key_queue.in_order(before, 20)[-4:]
  np.testing.assert_array_equal(key_queue.in_order(after, 20)[:4], kept)


def test_the_second_microbatch_has_the_keys_of_the_first_as_negatives():
  """Update 1, from an empty queue: InfoNCE in numpy, in float64.

  The vectors are the encoder's, which other tests compare with oracles.
  """
  objective = Contrast(
    layer=1,
    queue_size=20,
    mask_prob=0.0,
    temperature=0.25,
    push_per_microbatch=True,
  )
  mesh, half = _mesh(1), GROUPS // 2
  recipe = _recipe({"xlco": objective}, _descent(0.01), GROUPS, 2)
  state = _start(recipe, mesh)
  update = step.make_train_step(
    recipe, state, mesh, learning_rate=schedules.constant(0.01)
  )
  batch = _batch(0)["xlco"]
  encode = jax.jit(
    lambda params, rows: encoder.encode(
      params, rows, recipe.model, num_layers=1
    )
  )
  # One item a group, whose <s> is the first token of its row.
  q, k = (
    np.asarray(encode(state.params, batch[side]))[:, 0, 0].astype(np.float64)
    @ oracle.load("train_official")["proj_0"]
    for side in ("query", "key")
  )
  own = np.sum(q * k, axis=1)[half:, None]
  others = q[half:] @ k[:half].T
  losses = np.log1p(np.exp((others - own) / 0.25).sum(axis=1))
  assert losses.min() > 0.1
  _, metrics = update(
    state, {"xlco": jax.device_put(batch, partitioning.batch_sharding(mesh))}
  )
  # The first half has no negatives, and so no loss.
  assert metrics["xlco/loss"] == pytest.approx(losses.sum() / GROUPS, rel=1e-5)


def test_gradient_norm_is_of_the_whole_gradient(made):
  states, metrics = made
  for state, found in zip(states[1:], metrics, strict=True):
    assert found["grad_norm"] == pytest.approx(
      float(optax.global_norm(state.opt_state)), rel=1e-5
    )
