"""The queue of negatives: a sharded ring buffer of the newest keys.

Letters: S slots, B keys of one push (this device's part of them), D size.

`keys[slots, batch, D]` is split over the mesh on its batch axis and written
one slot at a time, so a push moves nothing between devices and needs no
temporary copy. With slots = ceil(K / batch) the buffer holds K keys or a few
more; the age rule shows exactly the newest K, whatever K and batch are.
All functions see one device's part: `first` is the index, within a push, of
its first key, and `width` the keys of a whole push.
"""

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Queue:
  """A ring buffer of keys; a slot holds the keys of one push."""

  keys: jax.Array  # [slots, batch, D] float32 or bfloat16
  pushes: jax.Array  # [] int32, how many slots were ever written


def num_slots(size: int, batch: int) -> int:
  """Slots of a queue of `size` keys that grows by `batch` a push."""
  return -(-size // batch)


def init(size: int, batch: int, dim: int, dtype: str = "float32") -> Queue:
  """An empty queue: no key of it counts as a negative until pushed."""
  shape = (num_slots(size, batch), batch, dim)
  return Queue(jnp.zeros(shape, dtype), jnp.zeros((), jnp.int32))


def fill(keys: jax.Array, batch: int) -> Queue:
  """A queue that holds given keys [K, D], read oldest first.

  Where batch does not divide K, the oldest slot begins with unused room,
  which the age rule hides.
  """
  size, dim = keys.shape
  slots = num_slots(size, batch)
  keys = jnp.pad(keys, [(slots * batch - size, 0), (0, 0)])
  return Queue(
    keys.reshape(slots, batch, dim),
    jnp.asarray(slots, jnp.int32),
  )


def push(
  queue: Queue, keys: jax.Array, accept: jax.Array | bool = True
) -> Queue:
  """Writes keys [batch, D] over the oldest slot (where `accept`)."""
  slots = queue.keys.shape[0]
  slot = queue.pushes % slots
  old = jax.lax.dynamic_index_in_dim(queue.keys, slot, keepdims=False)
  new = jnp.where(accept, keys.astype(queue.keys.dtype), old)
  return Queue(
    jax.lax.dynamic_update_index_in_dim(queue.keys, new, slot, 0),
    queue.pushes + jnp.asarray(accept, jnp.int32),
  )


def slot_age(queue: Queue) -> jax.Array:
  """Pushes since each slot was written: int32 [slots], 0 for the newest."""
  slots = queue.keys.shape[0]
  return (queue.pushes - 1 - jnp.arange(slots)) % slots


def is_newest(
  queue: Queue, size: int, first: jax.Array | int = 0, width: int | None = None
) -> jax.Array:
  """Which keys are among the newest `size` ever pushed: bool [slots, batch]."""
  batch = queue.keys.shape[1]
  width = width or batch
  position = first + jnp.arange(batch)
  age_S = slot_age(queue)
  age_SB = age_S[:, None] * width + (width - 1 - position)
  return (age_SB < size) & (age_S < queue.pushes)[:, None]


def is_newest_on(queue: Queue, size: int, axes: tuple[str, ...]) -> jax.Array:
  """`is_newest` of the part that this device of a shard_map holds."""
  if not axes:
    return is_newest(queue, size)
  local = queue.keys.shape[1]
  device, devices = jax.lax.axis_index(axes), jax.lax.axis_size(axes)
  return is_newest(queue, size, device * local, devices * local)


def newest_and_oldest(queue: Queue) -> tuple[jax.Array, jax.Array]:
  """The slots written last and first of those written: [batch, D] each."""
  slots = queue.keys.shape[0]
  written = jnp.minimum(queue.pushes, slots)
  oldest = jnp.maximum(written - 1, 0)
  last = queue.pushes - 1
  return queue.keys[last % slots], queue.keys[(last - oldest) % slots]


def in_order(queue: Queue, size: int) -> jax.Array:
  """The newest `size` keys, oldest first [size, D], of a whole queue.

  Fewer than `size` pushes leave zeros at the front.
  """
  slots, batch, dim = queue.keys.shape
  order = jnp.argsort(-slot_age(queue))
  keys = jnp.where(
    is_newest(queue, size)[..., None], queue.keys, jnp.zeros_like(queue.keys)
  )
  return keys[order].reshape(slots * batch, dim)[-size:]


def reslot(queue: Queue, size: int, batch: int) -> Queue:
  """The newest keys in slots of another batch size, or in a queue of another K.

  Of a queue that is not full, up to batch - 1 of the oldest keys that fill no
  whole slot are let go. A longer queue is full when enough keys were pushed.

  Args:
    queue: of any K and batch size.
    size: K of the new queue.
    batch: keys of a push from now on.
  """
  held = queue.keys.shape[0] * queue.keys.shape[1]
  keys = jnp.pad(in_order(queue, held), [(max(size - held, 0), 0), (0, 0)])
  keys = keys[-size:]
  # Room without a key is zero, in unused slots and before the keys of `fill`.
  known = jnp.sum(jnp.any(keys != 0, axis=-1))
  filled = fill(keys, batch)
  # Slots that hold no real key yet stay "never written".
  slots = filled.keys.shape[0]
  empty = jnp.where(known == size, 0, slots - known // batch)
  rolled = jnp.roll(filled.keys, -empty, axis=0)
  return Queue(rolled, filled.pushes - empty)
