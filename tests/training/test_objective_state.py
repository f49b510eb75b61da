"""Objectives with state of their own: none, one or several in a run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from test_step import GROUPS, _batch, _descent, _mesh

from infoxlm_jax.model import partitioning
from infoxlm_jax.objectives.contrast import Contrast
from infoxlm_jax.objectives.identity import identity
from infoxlm_jax.objectives.masked_lm import MaskedLM
from infoxlm_jax.training import schedules, step
from infoxlm_jax.training import state as train_state

_MOMENTUM = {"low": 0.5, "high": 0.75}
_TWO = {
  "mlm": MaskedLM("mlm"),
  "low": Contrast(
    layer=1, queue_size=20, head="low", momentum=_MOMENTUM["low"]
  ),
  "high": Contrast(
    layer=2,
    pooling="mean",
    normalize=True,
    negatives="queue+batch",
    queue_size=40,
    head="high",
    momentum=_MOMENTUM["high"],
    push_per_microbatch=True,
  ),
}


def _train(objectives, mesh, updates, microbatches=1):
  """States and metrics of a few updates, the start first."""
  config, params = oracle.train_init()
  draw = np.random.default_rng(0)
  for name in ("low", "high"):
    matrix = 0.1 * draw.normal(size=(32, 32))
    params["heads"][name] = {"projection": matrix.astype(np.float32)}
  batches = dict.fromkeys(("mlm", "tlm", "xlco"), GROUPS)
  recipe = train_state.Recipe(
    config, objectives, _descent(0.01), batches, microbatches
  )
  params = jax.tree.map(jnp.asarray, params)
  state = train_state.create(recipe, params, train_state.first_rng(0))
  state = jax.device_put(state, partitioning.shardings(state, mesh))
  update = step.make_train_step(
    recipe,
    state,
    mesh,
    learning_rate=schedules.constant(0.01),
    loss_norm="per_task_mean",
  )
  place = partitioning.batch_sharding(mesh)
  states, metrics = [jax.device_get(state)], []
  for number in range(updates):
    state, measured = update(state, jax.device_put(_batch(number), place))
    states.append(jax.device_get(state))
    metrics.append({k: float(v) for k, v in measured.items()})
  return states, metrics


@pytest.fixture(scope="module")
def two():
  return _train(_TWO, _mesh(1), 3, microbatches=2)


def test_two_contrasts_keep_states_of_their_own(two):
  states, metrics = two
  assert set(states[0].objective_state) == {"low", "high"}
  for before, after in zip(states, states[1:], strict=False):
    for name, objective in _TWO.items():
      if name == "mlm":
        continue
      m = _MOMENTUM[name]
      old = before.objective_state[name].key_params
      new = after.objective_state[name].key_params
      assert len(new["layers"]["ffn_in"]["bias"]) == objective.layer
      wanted = jax.tree.map(
        lambda key, query, m=m: m * key + (1 - m) * query,
        old,
        objective.key_params(after.params),
      )
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), new, wanted
      )
  last = states[-1].objective_state
  assert last["low"].queue.keys.shape == (2, GROUPS, 32)
  assert int(last["low"].queue.pushes) == 3
  # Each of the two microbatches is a push.
  assert last["high"].queue.keys.shape == (5, GROUPS // 2, 32)
  assert int(last["high"].queue.pushes) == 6
  lengths = np.linalg.norm(last["high"].queue.keys, axis=-1)
  np.testing.assert_allclose(lengths, 1, atol=1e-5)
  assert metrics[0]["low/momentum"] == _MOMENTUM["low"]
  assert metrics[0]["high/momentum"] == _MOMENTUM["high"]


def test_two_contrasts_add_their_losses(two):
  _, metrics = two
  for row in metrics:
    parts = [row[f"{name}/loss"] for name in _TWO]
    assert row["loss"] == pytest.approx(sum(parts), rel=1e-5)
    assert len(set(parts)) == 3


@pytest.mark.slow
def test_two_contrasts_on_eight_devices():
  """Keys pushed per update: which are in a microbatch depends on the mesh."""
  high = dataclasses.replace(_TWO["high"], push_per_microbatch=False)
  objectives = _TWO | {"high": high}
  _, metrics = _train(objectives, _mesh(1), 3)
  _, others = _train(objectives, _mesh(8), 3, microbatches=2)
  for one, eight in zip(metrics, others, strict=True):
    for name in objectives:
      assert eight[f"{name}/loss"] == pytest.approx(
        one[f"{name}/loss"], rel=3e-6
      )


def test_without_a_contrast_there_is_no_state():
  states, metrics = _train({"mlm": MaskedLM("mlm")}, _mesh(1), 1)
  assert [s.objective_state for s in states] == [{}, {}]
  assert not any("momentum" in name for name in metrics[0])


def test_identity_of_an_objective():
  """As runs begun before `head` existed have it; weight may change."""
  known = identity(Contrast(layer=1, weight=5.0, start_step=3, momentum=0.5))
  assert known == (
    "Contrast(layer=1, pooling='first', projection=True, normalize=False,"
    " temperature=0.25, mask_prob=0.15, mask_specials=True,"
    " negatives='queue', queue_size=131072, queue_dtype='float32',"
    " directions='one', stream='xlco', weight=1.0, start_step=0)"
  )
  other = identity(Contrast(layer=1, head="other"))
  assert other == known[:-1] + ", head='other')"
