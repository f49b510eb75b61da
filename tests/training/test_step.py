"""The update: the authors' own trainer, and every mesh alike.

`test_six_updates_of_the_released_trainer` is the tie to the original: losses,
parameters, key parameters, projections and queue of six updates computed by
the released code, through the very function that training uses.
"""

import collections
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from infoxlm_jax.analysis import hlo
from infoxlm_jax.model import partitioning
from infoxlm_jax.objectives import key_queue
from infoxlm_jax.objectives.contrast import Contrast
from infoxlm_jax.objectives.masked_lm import MaskedLM
from infoxlm_jax.training import optimizer, schedules, step
from infoxlm_jax.training import state as train_state


def _mesh(data, fsdp=1, tensor=1):
  count = data * fsdp * tensor
  return partitioning.make_mesh(
    partitioning.MeshShape(data, fsdp, tensor, devices=count)
  )


def _objectives(**contrast):
  return {
    "mlm": MaskedLM("mlm"),
    "tlm": MaskedLM("tlm"),
    "xlco": Contrast(layer=1, **contrast),
  }


def _start(recipe, mesh, filled=False, zero1=False):
  """The oracle's start; placed arrays, so that a run may donate them."""
  _, params = oracle.train_init()
  numbers = oracle.load("train_official")
  params["heads"]["contrast"] = {"projection": numbers["proj_0"]}
  state = train_state.create(
    recipe,
    jax.tree.map(jnp.asarray, params),
    train_state.first_rng(0),
  )
  if filled:
    queue = key_queue.fill(
      jnp.asarray(numbers["queue_0"]), recipe.batches["xlco"]
    )
    contrast = state.objective_state["xlco"].replace(queue=queue)
    state = state.replace(objective_state={"xlco": contrast})
  state = jax.device_put(state, partitioning.shardings(state, mesh, zero1))
  return state


def _recipe(objectives, transformation, batch, microbatches=1, **model):
  config = dataclasses.replace(oracle.train_init()[0], **model)
  batches = dict.fromkeys(("mlm", "tlm", "xlco"), batch)
  return train_state.Recipe(
    config, objectives, transformation, batches, microbatches
  )


def test_six_updates_of_the_released_trainer():
  """K = 10 and batches of 4: the queue wraps inside a batch."""
  numbers = oracle.load("train_official")
  objectives = _objectives(
    queue_size=10,
    mask_prob=0.0,
    momentum=schedules.constant(float(numbers["momentum"])),
  )
  rate = schedules.linear_warmup_decay(
    float(numbers["lr"]), int(numbers["warmup"]), int(numbers["total"])
  )
  adam = optimizer.adamw(
    rate,
    eps=float(numbers["eps"]),
    weight_decay=float(numbers["weight_decay"]),
    clip_norm=float(numbers["clip"]),
    fairseq_eps=True,
  )
  mesh = _mesh(1)
  recipe = _recipe(objectives, adam, 4)
  state = _start(recipe, mesh, filled=True)
  update = step.make_train_step(recipe, state, mesh, learning_rate=rate)
  for i in range(1, 7):
    state, metrics = update(state, oracle.batch(numbers, i))
    assert metrics["xlco/loss"] == pytest.approx(
      float(numbers[f"xlco_loss_mean_{i}"]), rel=1e-5, abs=1e-6
    )
    terms = [float(metrics[f"{name}/terms"]) for name in ("mlm", "tlm")]
    lm = np.average(
      [float(metrics[f"{name}/loss"]) for name in ("mlm", "tlm")],
      weights=terms,
    )
    assert lm == pytest.approx(float(numbers[f"lm_loss_mean_{i}"]), rel=1e-5)
    assert sum(terms) + 4 == float(numbers[f"sample_size_{i}"])
    assert metrics["grad_norm"] == pytest.approx(
      float(numbers[f"grad_norm_{i}"]), rel=1e-5
    )
    if i in (1, 2, 6):
      _compare_with_official(state, numbers, recipe.model, i)


def _compare_with_official(state, numbers, config, update):
  def close(ours, theirs, name, atol=2e-6):
    np.testing.assert_allclose(
      ours, theirs, atol=atol, rtol=0, err_msg=f"{name}, update {update}"
    )

  contrast = state.objective_state["xlco"]
  for which, ours in (("fast", state.params), ("slow", contrast.key_params)):
    named = oracle.hugging_face_names(ours, config)
    assert len(named) > 15
    for name, value in named.items():
      # A bias of all keys alike changes no softmax: its gradient is nothing
      # but rounding, which Adam's division makes large, here and there.
      atol = 1e-5 if name.endswith("self.key.bias") else 2e-6
      theirs = numbers[f"{which}_{update}.{name}"]
      close(value, theirs, f"{which} {name}", atol)
    close(
      ours["heads"]["contrast"]["projection"],
      numbers[f"proj_{which}_{update}"],
      f"projection {which}",
    )
  pointer = int(numbers[f"ptr_{update}"])
  close(
    key_queue.in_order(jax.device_get(contrast.queue), 10),
    np.roll(numbers[f"queue_{update}"], -pointer, axis=0),
    "queue",
  )


# The same update on several meshes: 16 groups of one row and one item.
GROUPS, WIDTH, SIZE = 16, 16, 76


class Mode(NamedTuple):
  data: int
  fsdp: int = 1
  tensor: int = 1
  microbatches: int = 2
  zero1: bool = False
  dropout: float = 0.0


ONE = "one device"
MODES = {
  ONE: Mode(1, microbatches=1),
  "8x1x1": Mode(8),
  "8x1x1 zero1": Mode(8, zero1=True),
  "4x2x1": Mode(4, 2),
  "2x1x4": Mode(2, 1, 4),
  "2x2x2": Mode(2, 2, 2),
  "2x2x2 zero1": Mode(2, 2, 2, zero1=True),
}
DROPOUT = {
  f"{name}, dropout": MODES[name]._replace(dropout=0.1)
  for name in (ONE, "2x2x2 zero1")
}
QUICK = ("2x2x2 zero1",)
# Each compiles a program of its own.
EVERY = [
  pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
  for name in MODES
  if name != ONE
]


def _batch(number):
  random = np.random.default_rng(number)

  def rows():
    length = random.integers(6, WIDTH + 1, GROUPS)
    ids = random.integers(4, 100, (GROUPS, WIDTH))
    ids[:, 0] = 0
    ids[np.arange(GROUPS), length - 1] = 2
    ids[np.arange(WIDTH) >= length[:, None]] = oracle.PAD
    return oracle.rows(ids)

  return {
    "mlm": rows(),
    "tlm": rows(),
    "xlco": {
      "query": rows(),
      "key": rows(),
      "items": np.zeros((GROUPS, 1), np.int32),
    },
  }


@dataclasses.dataclass
class Run:
  program: str
  losses: list
  accuracies: list  # of the contrast against the queue
  gradients: list  # one tree an update
  queue: np.ndarray  # newest keys, oldest first
  pushed: collections.deque


def _descent(rate):
  """Gradient descent whose state is the last gradient, exactly."""

  def update(grads, state, params=None):
    del state, params
    return jax.tree.map(lambda g: -rate * g, grads), grads

  return optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params), update
  )


@functools.cache
def _run(name, updates=6):
  mode = (MODES | DROPOUT)[name]
  objectives = _objectives(
    queue_size=SIZE, negatives="queue+batch", momentum=0.9
  )
  descent = _descent(0.01)
  mesh = _mesh(mode.data, mode.fsdp, mode.tensor)
  recipe = _recipe(
    objectives,
    descent,
    GROUPS,
    mode.microbatches,
    dropout=mode.dropout,
    attention_dropout=mode.dropout,
  )
  state = _start(recipe, mesh, zero1=mode.zero1)
  update = step.make_train_step(
    recipe,
    state,
    mesh,
    learning_rate=schedules.constant(0.01),
    zero1=mode.zero1,
  )
  place = NamedSharding(mesh, partitioning.BATCH)
  first = jax.device_put(_batch(0), place)
  compiled = update.lower(state, first).compile()
  twin = collections.deque(maxlen=SIZE)
  run = Run(compiled.as_text(), [], [], [], np.zeros(0), twin)
  for number in range(updates):
    state, metrics = compiled(state, jax.device_put(_batch(number), place))
    run.losses.append(float(metrics["loss"]))
    run.accuracies.append(float(metrics["xlco/accuracy_queue"]))
    run.gradients.append(jax.device_get(state.opt_state))
    queue = jax.device_get(state.objective_state["xlco"].queue)
    twin.extend(queue.keys[number % queue.keys.shape[0]])
  run.queue = np.asarray(key_queue.in_order(queue, SIZE))
  return run


@pytest.mark.parametrize("name", EVERY)
def test_loss_and_gradient_on_every_mesh(name):
  one, other = _run(ONE), _run(name)
  np.testing.assert_allclose(other.losses, one.losses, rtol=3e-6)
  assert other.accuracies == pytest.approx(one.accuracies, abs=1e-6)
  assert 0 < one.accuracies[1] < 1
  for mine, theirs in zip(one.gradients, other.gradients, strict=True):
    apart = optax.global_norm(jax.tree.map(np.subtract, mine, theirs))
    assert apart < 1e-5 * optax.global_norm(mine)


@pytest.mark.slow
def test_dropout_is_the_same_on_every_mesh():
  one, other = (_run(name, updates=2) for name in DROPOUT)
  np.testing.assert_allclose(other.losses, one.losses, rtol=3e-6)
  assert abs(one.losses[0] - _run(ONE).losses[0]) > 1e-3 * one.losses[0]


@pytest.mark.parametrize("name", [ONE, *EVERY])
def test_queue_is_the_newest_keys_on_every_mesh(name):
  run = _run(name)
  assert len(run.pushed) == SIZE  # 96 keys went in: it has wrapped
  np.testing.assert_array_equal(run.queue, np.array(run.pushed))
  np.testing.assert_allclose(run.queue, _run(ONE).queue, atol=2e-5)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_of_the_queue_moves(name):
  """Its size in bytes is unlike any other array's that may move."""
  found = hlo.collectives(_run(name).program)
  assert found
  queue = _queue_bytes()
  assert not [c for c in found if c.largest in queue], found


def _queue_bytes():
  """Bytes of the whole queue's slots, as any device count could gather."""
  dim = 32
  slots = key_queue.num_slots(SIZE, GROUPS)
  return {4 * slots * GROUPS * dim, 4 * SIZE * dim}


def test_control_a_flat_queue_moves():
  """The layout that this one replaces: XLA gathers all of it at a push."""
  mesh = _mesh(8)
  flat = NamedSharding(mesh, P(partitioning.BATCH_AXES, None))
  whole = jax.ShapeDtypeStruct((48, 32), jnp.float32, sharding=flat)
  keys = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=flat)

  def push(queue, keys, at):
    return jax.lax.dynamic_update_slice_in_dim(queue, keys, at, 0)

  program = jax.jit(push, out_shardings=flat).lower(whole, keys, 0).compile()
  moved = hlo.collectives(program.as_text())
  assert any(c.largest >= 4 * 48 * 32 for c in moved), moved


@pytest.mark.parametrize(
  "name", [p for p in EVERY if MODES[p.values[0]].data == 8]
)
def test_gradients_are_reduced_once_after_the_loop(name):
  """Parameters are copies, two microbatches: loops move the contrast only."""
  found = hlo.collectives(_run(name).program)
  in_loop = [c for c in found if c.in_loop]
  small = 4 * GROUPS * 32  # a vector for every item
  assert in_loop  # the contrast's
  assert max(c.largest for c in in_loop) <= small
  assert any(c.largest > small and not c.in_loop for c in found)


@pytest.mark.parametrize(
  "name", [p for p in EVERY if MODES[p.values[0]].fsdp > 1]
)
def test_a_split_model_moves_a_layer_and_the_batch(name):
  """In loops nothing above a layer's largest matrix or a batch's vectors."""
  _, params = oracle.train_init()
  mode = MODES[name]
  layer = max(x.nbytes // 2 for x in jax.tree.leaves(params["layers"]))
  rows = 3 * GROUPS // mode.microbatches * mode.tensor
  vectors = 4 * rows * WIDTH * 32 // (mode.data * mode.fsdp * mode.tensor)
  in_loop = [c for c in hlo.collectives(_run(name).program) if c.in_loop]
  assert in_loop
  assert max(c.largest for c in in_loop) <= max(layer, vectors)
  assert params["embed"]["token"].nbytes > max(layer, vectors)


def test_zero1_splits_what_the_optimiser_keeps():
  mesh = _mesh(2, 2, 2)
  objectives = _objectives(queue_size=SIZE)
  recipe = _recipe(objectives, _descent(0.1), GROUPS)
  state = _start(recipe, mesh, zero1=True)
  kept = jax.tree_util.tree_leaves_with_path(state.opt_state)
  split = [(p, x) for p, x in kept if x.size % 8 == 0 and x.ndim > 1]
  assert len(split) > 10
  for path, x in split:
    assert x.addressable_shards[0].data.size == x.size // 8, path
  table = state.params["embed"]["token"]
  assert table.addressable_shards[0].data.size == table.size // 4


def test_control_a_reduction_in_the_loop_is_found():
  mesh = _mesh(8)

  def body(total, x):
    return total + jax.lax.psum(x, "data"), None

  def summed(xs):
    return jax.lax.scan(body, jnp.zeros((64, 64)), xs)[0]

  program = jax.jit(
    jax.shard_map(
      summed, mesh=mesh, in_specs=P(None, None, "data"), out_specs=P()
    )
  ).lower(jnp.zeros((3, 64, 512)))
  found = hlo.collectives(program.compile().as_text())
  assert any(c.in_loop and c.largest == 4 * 64 * 64 for c in found), found
