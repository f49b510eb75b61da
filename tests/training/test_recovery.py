"""Bad updates: which are skipped, which send a run back, and how far."""

import dataclasses
import functools
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_step import GROUPS, _batch, _mesh, _objectives, _recipe, _start

from infoxlm_jax.checkpoint import checksums
from infoxlm_jax.checkpoint.metadata import Position
from infoxlm_jax.model import partitioning
from infoxlm_jax.training import alarm, optimizer, recovery, schedules, step
from infoxlm_jax.training.bad_updates import BadUpdates, Diverged, UpdateWatch


def test_updates_that_would_spoil_the_state_are_skipped():
  """A rate of 1e38 and a momentum of NaN, with finite loss and gradient.

  Such a rate wrote weights of 3.7e37, and the momentum NaN key parameters.
  """

  def rate(applied):
    return jnp.where(applied == 1, 1e38, 1e-3)

  def momentum(updates):
    return jnp.where(updates == 1, jnp.nan, 0.9)

  mesh = _mesh(2)
  objectives = _objectives(queue_size=20, momentum=momentum)
  recipe = _recipe(objectives, optimizer.adamw(rate), GROUPS)
  state = _start(recipe, mesh)
  update = step.make_train_step(recipe, state, mesh, learning_rate=rate)
  place = partitioning.batch_sharding(mesh)
  states, rows = [jax.device_get(state)], []
  for number in range(3):
    state, metrics = update(state, jax.device_put(_batch(number), place))
    states.append(jax.device_get(state))
    rows.append({k: float(v) for k, v in metrics.items()})
  assert [row["finite"] for row in rows] == [0, 1, 0]
  for row in rows:
    assert np.isfinite(row["loss"]) and np.isfinite(row["grad_norm"])
  for skipped in (0, 2):
    before = states[skipped].replace(step=np.int32(skipped + 1))
    for a, b in zip(
      jax.tree.leaves(before), jax.tree.leaves(states[skipped + 1]), strict=True
    ):
      assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
  token = [s.params["embed"]["token"] for s in states]
  assert not np.array_equal(token[1], token[2])
  assert checksums.not_finite(state) == []


def test_every_array_is_looked_at():
  tree = {
    "a": np.zeros(3, np.float32),
    "b": [jnp.asarray([[1.0, jnp.inf]]), jnp.arange(3)],
    "c": jnp.asarray([jnp.nan], jnp.bfloat16),
  }
  assert checksums.not_finite(tree) == ["b/0", "c"]


def add(watch, number, loss=1.0, finite=True):
  watch.add(number, finite=finite, loss=loss, grad_norm=1.0)


def test_so_many_bad_updates_in_a_row_are_allowed():
  watch = UpdateWatch(2, None, 1)
  for number, finite in enumerate((False, False, True, False, False), 1):
    add(watch, number, np.nan, finite)
  with pytest.raises(BadUpdates, match="update 6: loss nan") as caught:
    add(watch, 6, np.nan, False)
  assert caught.value.first == 4


def test_a_spike_is_several_losses_far_above_the_mean():
  """Losses of 1 and 3: mean 2, deviation 1; 3 deviations above are 5."""
  watch = UpdateWatch(0, 3.0, 2)
  for number in range(1, 17):
    add(watch, number, 1.0 if number % 2 else 3.0)
  add(watch, 17, 5.1)
  add(watch, 18, 2.0)  # a single one is none
  add(watch, 19, 5.1)
  with pytest.raises(BadUpdates, match="2 losses in a row") as caught:
    add(watch, 20, 5.1)
  assert caught.value.first == 19
  early = UpdateWatch(0, 3.0, 1)
  for number, loss in enumerate((1.0, 1.0, 9.0), 1):
    add(early, number, loss)  # too few to know a deviation


@pytest.mark.parametrize("wrong_call", [None, 3, 4])
def test_an_update_computed_twice_with_other_bits_is_found(wrong_call):
  """Calls 1 and 2 are update 1 and the trial of 2; one may flip a bit."""

  @functools.partial(jax.jit, donate_argnums=0)
  def add_batch(state, batch):
    return {"w": state["w"] + batch, "n": state["n"] + 1}, {"loss": batch}

  calls = itertools.count(1)

  def computed(state, batch):
    state, metrics = add_batch(state, batch)
    if next(calls) == wrong_call:
      bits = state["w"].view(jnp.uint32).at[1].set(state["w"].view("u4")[1] ^ 1)
      state = state | {"w": bits.view(jnp.float32)}
    return state, metrics

  update = recovery.with_replay(computed, 2)
  state = {"w": jnp.zeros(3), "n": jnp.int32(0)}
  state, _ = update(state, 1.5)
  if wrong_call == 3:
    with pytest.raises(Diverged, match="differs in w: a device"):
      update(state, 1.5)
    return
  state, metrics = update(state, 1.5)
  assert state["w"].tolist() == [3, 3, 3] and metrics["loss"] == 1.5
  state, _ = update(state, 1.0)  # call 4: the third is not computed twice
  assert (state["w"].tolist() == [4, 4, 4]) == (wrong_call is None)
  assert recovery.with_replay(computed, None) is computed


@dataclasses.dataclass(frozen=True)
class _Run:
  """As much of run.Run as go_back uses."""

  steps: list
  returned_to: int | None = None
  state: object = None
  position: Position = dataclasses.field(
    default_factory=lambda: Position({"mlm": 99}, tokens=9)
  )
  resumed: bool = False

  @property
  def checkpoints(self):
    return types.SimpleNamespace(wait=lambda: None, steps=lambda: self.steps)

  @property
  def program(self):
    def restore(checkpoints, before):
      step = [s for s in self.steps if before is None or s < before][-1]
      files = Position({"mlm": step}, tokens=step).file()
      return types.SimpleNamespace(step=step), files

    return types.SimpleNamespace(restore=restore)


@pytest.mark.parametrize(
  ("steps", "returned_to", "first", "goes_to"),
  [
    ([5, 10], None, 12, 10),
    ([5, 10], None, 11, 10),
    ([5, 10], 5, 12, 10),  # it has got past the checkpoint of the last time
    ([5, 10], 10, 12, None),  # again
    ([5, 10], 10, 11, 5),  # not one good update: the checkpoint is at fault
    ([10], 10, 11, None),
    ([], None, 3, None),
  ],
)
def test_which_checkpoint_it_goes_back_to(steps, returned_to, first, goes_to):
  run, bad = _Run(steps, returned_to), BadUpdates(first, "update: bad.")
  if goes_to is None:
    with pytest.raises(Diverged, match="^update: bad. The"):
      recovery.go_back(run, bad)
    return
  back = recovery.go_back(run, bad)
  assert back.state.step == back.returned_to == goes_to and back.resumed
  assert back.position == Position({"mlm": 99}, tokens=goes_to)


@pytest.mark.parametrize(
  ("number", "warns"), [(100, False), (109, False), (110, True), (300, True)]
)
def test_the_alarm_waits_for_warm_up_and_start(number, warns):
  """Windows of 10: the first after the warm-up is that of 101 to 110."""
  rate = schedules.linear_warmup_decay(1.0, 100, 1000)
  late = types.SimpleNamespace(start_step=500)
  program = types.SimpleNamespace(
    update=types.SimpleNamespace(learning_rate=rate),
    objectives={
      "any_name": types.SimpleNamespace(start_step=0),
      "late": late,
    },
  )
  flat = {"late/spread": 0.0, "any_name/spread": 0.5}
  assert alarm.collapse_warning(program, flat, number, 10) is None
  flat["any_name/spread"] = 0.001
  said = alarm.collapse_warning(program, flat, number, 10)
  assert (said is not None) == warns
