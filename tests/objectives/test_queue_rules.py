"""What enters the queue, and the accuracy against it, on any mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from infoxlm_jax.model import partitioning
from infoxlm_jax.objectives import key_queue
from infoxlm_jax.objectives.base import Targets
from infoxlm_jax.objectives.contrast import Contrast, ContrastState
from infoxlm_jax.objectives.key_queue import Queue

DIM = 4


def after_an_update(collected, accept, **options):
  """The keys in the queue, oldest first, of which two were there before."""
  own = Contrast(layer=1, queue_size=6, momentum=0.5, **options)
  params = {
    "embed": {"token": jnp.ones((3, DIM))},
    "layers": {"kernel": jnp.ones((1, 2))},
    "heads": {"contrast": {"projection": jnp.ones((DIM, DIM))}},
  }
  zeros = jax.tree.map(jnp.zeros_like, own.key_params(params))
  queue = key_queue.push(key_queue.init(6, 2, DIM), jnp.full((2, DIM), 9.0))
  state, _ = own.update_state(
    ContrastState(zeros, queue),
    jnp.asarray(collected, jnp.float32),
    params,
    jnp.asarray(1),
    jnp.asarray(accept),
  )
  moved = float(state.key_params["embed"]["token"][0, 0])
  kept = np.asarray(key_queue.in_order(state.queue, 6))
  return kept[-2 * int(state.queue.pushes) :, 0].tolist(), moved


def pushes(*values):
  """Two keys a push, each of one value."""
  return np.broadcast_to(
    np.array(values, np.float32)[:, None, None], (len(values), 2, DIM)
  ).copy()


@pytest.mark.parametrize(
  ("push_skipped", "accept", "expected"),
  [
    (True, True, [9, 9, 1, 1]),
    (True, False, [9, 9, 1, 1]),
    (False, True, [9, 9, 1, 1]),
    (False, False, [9, 9]),
  ],
)
def test_the_keys_of_a_skipped_update(push_skipped, accept, expected):
  kept, moved = after_an_update(pushes(1), accept, push_skipped=push_skipped)
  assert kept == expected
  # The key encoder never follows parameters that did not change.
  assert moved == (0.5 if accept else 0.0)


def test_keys_that_are_not_finite_stay_out():
  """Of two pushes of an update only the one that is whole enters."""
  for bad in (np.nan, np.inf):
    keys = pushes(1, 2)
    keys[0, 1, 3] = bad  # one number of one key
    kept, _ = after_an_update(keys, False, push_skipped=True)
    assert kept == [9, 9, 2, 2]
    kept, _ = after_an_update(keys, False, push_skipped=False)
    assert kept == [9, 9]


SIZE, BATCH, TEMPERATURE = 40, 16, 0.5


@pytest.fixture(scope="module")
def case():
  """16 queries with their keys, three slots of 16 keys, and numpy's hits.

  K = 40, so the eight oldest keys do not count; some of them would win. Query
  0 has its own key in the queue as well: a tie, which is right.
  """
  random = np.random.default_rng(3)
  q, k = random.normal(size=(2, BATCH, DIM)).astype(np.float32)
  k = (0.6 * q + k).astype(np.float32)
  pushed = random.normal(size=(3, BATCH, DIM)).astype(np.float32)
  pushed[0, :8] = 50 * q[:8]
  q[0] = 1, 2, -1, 3  # exact in any order of summation
  k[0] = 2 * q[0]
  pushed[2, 5] = k[0]
  newest = pushed.reshape(-1, DIM)[-SIZE:].astype(np.float64)
  own = np.sum(q * k.astype(np.float64), axis=1)
  best = (q.astype(np.float64) @ newest.T).max(axis=1)
  assert best[0] == own[0]
  hits = own >= best
  all_keys = pushed.reshape(-1, DIM).astype(np.float64)
  with_old = own >= (q.astype(np.float64) @ all_keys.T).max(axis=1)
  assert 3 < hits.sum() < 13 and with_old.sum() < hits.sum()
  queue = key_queue.init(SIZE, BATCH, DIM)
  for keys in pushed:
    queue = key_queue.push(queue, jnp.asarray(keys))
  return jnp.asarray(q), jnp.asarray(k), queue, int(hits.sum())


def accuracy(q, k, queue, axes=()):
  """(hits, queries), of all devices."""
  objective = Contrast(temperature=TEMPERATURE, queue_size=SIZE)
  first, keys = jnp.zeros((), jnp.int32), k
  if axes:
    first = jax.lax.axis_index(axes) * k.shape[0]
    keys = jax.lax.all_gather(k, axes, tiled=True)
  targets = Targets({"keys": k[None], "first": first}, {"keys": keys[None]})
  _, metrics = objective.loss_of(q, 0, targets, queue, axes)
  return metrics["accuracy_queue"]


@pytest.mark.parametrize("shape", [None, (8, 1, 1), (2, 2, 2)])
def test_accuracy_against_the_queue(case, shape):
  *arrays, hits = case
  if shape is None:
    got = jax.jit(accuracy)(*arrays)
    assert (float(got[0]), float(got[1])) == (hits, BATCH)
    return
  mesh = partitioning.make_mesh(partitioning.MeshShape(*shape, devices=8))
  axes = partitioning.BATCH_AXES

  def on_a_device(q, k, queue):
    return jax.lax.psum(accuracy(q, k, queue, axes), axes)

  split = P(axes)
  parts = (split, split, Queue(keys=P(None, axes), pushes=P()))
  run = jax.shard_map(
    on_a_device, mesh=mesh, in_specs=parts, out_specs=P(), check_vma=False
  )
  got = jax.jit(run)(*arrays)
  assert (float(got[0]), float(got[1])) == (hits, BATCH)


def test_without_the_queue_there_is_no_such_accuracy():
  q = jnp.ones((2, DIM))
  objective = Contrast(queue_size=4, negatives="batch")
  targets = Targets({"keys": q[None], "first": 0}, {"keys": q[None]})
  queue = key_queue.init(4, 2, DIM)
  _, metrics = objective.loss_of(q, 0, targets, queue)
  assert "accuracy_queue" not in metrics
