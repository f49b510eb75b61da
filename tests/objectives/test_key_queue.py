"""The queue against the released code's, and against a deque."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from infoxlm_jax.objectives import key_queue


def _official_order(queue, pointer):
  """Oldest first: the released ring writes at its pointer."""
  return np.roll(queue, -int(pointer), axis=0)


def test_pushes_wrap_as_the_released_ring():
  """K = 10 with batches of 4: the third push wraps inside a batch."""
  numbers = oracle.load("xlco")
  queue = key_queue.fill(jnp.asarray(numbers["queue_0"]), 4)
  for i in (1, 2, 3):
    queue = key_queue.push(queue, jnp.asarray(numbers[f"k_{i}"]))
    np.testing.assert_array_equal(
      key_queue.in_order(queue, 10),
      _official_order(numbers[f"queue_{i}"], numbers[f"ptr_{i}"]),
    )
  assert int(numbers["ptr_3"]) == 2


def test_push_that_ends_at_the_end_of_the_ring():
  numbers = oracle.load("queue_edge")
  before = _official_order(numbers["queue_before"], numbers["ptr_before"])
  queue = key_queue.push(
    key_queue.fill(jnp.asarray(before), 4), jnp.asarray(numbers["keys"])
  )
  np.testing.assert_array_equal(
    key_queue.in_order(queue, 10),
    _official_order(numbers["queue_after"], numbers["ptr_after"]),
  )


def _visible(queue, size):
  mask = np.asarray(key_queue.is_newest(queue, size))
  return sorted(np.asarray(queue.keys)[mask][:, 0].tolist())


# Sizes that batches divide, do not divide, and exceed.
SHAPES = [(10, 4), (8, 4), (5, 1), (3, 4), (7, 3)]


def _pushed(size, batch):
  """The queue and its twin after each of ten pushes of numbered keys."""
  queue = key_queue.init(size, batch, 1)
  twin = collections.deque(maxlen=size)
  yield queue, list(twin)
  for push in range(10):
    keys = 1 + push * batch + np.arange(batch)
    queue = _push(queue, keys.astype(np.float32)[:, None])
    twin.extend(keys.tolist())
    yield queue, list(twin)


_push = jax.jit(key_queue.push)
_reslot = jax.jit(key_queue.reslot, static_argnums=(1, 2))


@pytest.mark.parametrize(("size", "batch"), SHAPES)
def test_it_shows_exactly_the_newest_keys(size, batch):
  in_order = jax.jit(lambda queue: key_queue.in_order(queue, size))
  for queue, twin in _pushed(size, batch):
    assert _visible(queue, size) == sorted(twin)
    ordered = np.asarray(in_order(queue))[:, 0]
    assert ordered[ordered > 0].tolist() == twin


@pytest.mark.parametrize(("size", "batch"), SHAPES)
@pytest.mark.parametrize("other", [3, 4])
def test_another_batch_size_keeps_the_newest_keys(size, batch, other):
  for before, twin in _pushed(size, batch):
    if len(twin) < size:  # not full yet: whole slots of the newest
      twin = twin[len(twin) % other :]
    queue = _reslot(before, size, other)
    assert queue.keys.shape == (key_queue.num_slots(size, other), other, 1)
    assert _visible(queue, size) == sorted(twin)
    queue = _push(queue, np.full((other, 1), 1000, np.float32))
    after = collections.deque([*twin, *[1000] * other], maxlen=size)
    assert _visible(queue, size) == sorted(after)


@pytest.mark.parametrize("other", [3, 6, 9, 14])
def test_another_length_keeps_the_newest_keys(other):
  """K = 7 in slots of 3, which hold 9: the two of `fill` are no keys."""
  start = key_queue.fill(jnp.arange(1.0, 8)[:, None], 3)
  twin = collections.deque(range(1, 8), maxlen=other)
  queue = _reslot(start, other, 3)
  kept = list(twin) if other <= 7 else list(twin)[len(twin) % 3 :]
  assert _visible(queue, other) == kept
  twin = collections.deque(kept, maxlen=other)
  for push in range(3):
    queue = _push(queue, np.full((3, 1), 10.0 + push, np.float32))
    twin.extend([10 + push] * 3)
    assert _visible(queue, other) == sorted(twin)


def test_parts_of_a_push_know_their_place():
  """Two devices hold columns 0-1 and 2-3 of pushes of 4; K = 5."""
  queue = key_queue.init(5, 4, 1)
  for push in range(3):
    keys = jnp.arange(4.0)[:, None] + 4 * push
    queue = key_queue.push(queue, keys)
  whole = np.asarray(key_queue.is_newest(queue, 5))
  parts = [
    key_queue.is_newest(
      queue.replace(keys=queue.keys[:, first : first + 2]), 5, first, 4
    )
    for first in (0, 2)
  ]
  np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
  assert whole.sum() == 5


def test_a_refused_push_changes_nothing():
  queue = key_queue.fill(jnp.arange(6.0).reshape(6, 1), 2)
  after = key_queue.push(queue, jnp.full((2, 1), np.nan), jnp.asarray(False))
  np.testing.assert_array_equal(after.keys, queue.keys)
  assert int(after.pushes) == int(queue.pushes)


def test_age_of_slots():
  queue = key_queue.init(6, 2, 1)
  for _ in range(4):
    queue = key_queue.push(queue, jnp.zeros((2, 1)))
  assert np.asarray(key_queue.slot_age(queue)).tolist() == [0, 2, 1]


def test_num_slots():
  assert key_queue.num_slots(131072, 2048) == 64
  assert key_queue.num_slots(10, 4) == 3
  with pytest.raises(ZeroDivisionError):
    key_queue.num_slots(10, 0)
