"""InfoNCE of vectors on a mesh, and measures that a collapse cannot pass.

Letters: N queries of this device, B keys of the whole batch, D vector size.
"""

import jax
import jax.numpy as jnp

from infoxlm_jax.model.pooling import unit
from infoxlm_jax.objectives import key_queue
from infoxlm_jax.objectives.base import Context, LossSum, Sums

_NEVER = -1e30  # the logit of something that is not a negative


def info_nce(
  q_ND: jax.Array,
  context: Context,
  *,
  temperature: float,
  negatives_from: str,
  queue_size: int,
) -> LossSum:
  """-log softmax of each query's own key, and what tells whether it is real.

  Runs on one device's part of the batch and of the queue; queries are sent to
  every device's part of the queue and back as sums, so traffic is the size of
  the batch, never of the queue.
  """
  k_ND, batch_keys_BD = context.keys, context.batch_keys
  assert k_ND is not None and batch_keys_BD is not None
  own_N = context.first + jnp.arange(q_ND.shape[0])
  is_own_NB = own_N[:, None] == jnp.arange(batch_keys_BD.shape[0])
  own_logit_N = jnp.sum(q_ND * k_ND, axis=-1) / temperature
  batch_NB = q_ND @ batch_keys_BD.T / temperature
  others_NB = jnp.where(is_own_NB, _NEVER, batch_NB)
  parts = [own_logit_N[:, None]]
  if "queue" in negatives_from:
    lse_N = _queue_logsumexp(q_ND, context, temperature, queue_size)
    parts.append(lse_N[:, None])
  if "batch" in negatives_from:
    parts.append(others_NB)
  log_total_N = jax.nn.logsumexp(jnp.concatenate(parts, axis=1), axis=1)
  loss = jnp.sum(log_total_N - own_logit_N)
  metrics = _health(q_ND, context, own_logit_N, others_NB)
  count = jnp.asarray(q_ND.shape[0], jnp.float32)
  return LossSum(loss, {"loss": (loss, count), **metrics})


def _queue_logsumexp(
  q_ND: jax.Array, context: Context, temperature: float, queue_size: int
) -> jax.Array:
  """log sum exp over the whole queue, of this device's queries [N]."""
  axes, queue = context.axes, context.queue
  assert queue is not None
  q_all, device, devices = q_ND, jnp.zeros((), jnp.int32), 1
  if axes:
    q_all = jax.lax.all_gather(q_ND, axes, tiled=True)
    device, devices = jax.lax.axis_index(axes), jax.lax.axis_size(axes)
  slots, local, dim = queue.keys.shape
  newest = key_queue.is_newest(
    queue, queue_size, device * local, devices * local
  )
  keys = queue.keys.reshape(-1, dim).astype(q_all.dtype)
  logits = q_all @ keys.T / temperature
  logits = jnp.where(newest.reshape(-1), logits, _NEVER)
  top = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
  if axes:
    top = jax.lax.pmax(top, axes)
  # exp of a hidden key underflows to zero beside any real one.
  top = jnp.maximum(top, _NEVER / 2)
  mass = jnp.sum(jnp.exp(logits - top[:, None]), axis=-1)
  if axes:
    mass = jax.lax.psum_scatter(mass, axes, tiled=True)
    top = jax.lax.dynamic_slice_in_dim(
      top, device * q_ND.shape[0], q_ND.shape[0]
    )
  known = mass > 0
  return jnp.where(known, jnp.log(jnp.where(known, mass, 1.0)) + top, _NEVER)


def _health(
  q_ND: jax.Array,
  context: Context,
  own_logit_N: jax.Array,
  others_NB: jax.Array,
) -> Sums:
  """Measures that a collapsed encoder cannot pass.

  accuracy: own key above every other key of the batch. A tie counts as
    wrong, so constant vectors score 0. (The accuracy against the queue reads
    99 % for nearly constant vectors, which tell fresh keys from old ones.)
  spread: 1 - mean cosine of a query and the others' keys; 0 is collapse.
  queue_similarity_new / _old: mean cosine to the newest and oldest slot.
  """
  assert context.keys is not None and context.batch_keys is not None
  q_ND, own_logit_N, others_NB = jax.lax.stop_gradient(
    (q_ND, own_logit_N, others_NB)
  )
  k_ND, others = context.keys, context.batch_keys
  count = jnp.asarray(q_ND.shape[0], jnp.float32)
  batch = others.shape[0]
  q, k = unit(q_ND), unit(k_ND)
  positive = jnp.sum(q * k)
  to_all = jnp.sum(q @ jnp.sum(unit(others), axis=0))
  mean_negative = (to_all - positive) / max(batch - 1, 1)
  best_N = jnp.max(others_NB, axis=-1)
  # Equal up to rounding is a tie, however the products were summed.
  hits = jnp.sum(own_logit_N > best_N + 1e-5 * jnp.abs(best_N))
  sums = {
    "accuracy": hits.astype(jnp.float32),
    "positive_similarity": positive,
    "spread": count - mean_negative,
    "chance": count / batch,
  }
  if context.queue is not None:
    queue = context.queue
    slots = queue.keys.shape[0]
    written = jnp.minimum(queue.pushes, slots)
    for name, age in (("new", 0), ("old", jnp.maximum(written - 1, 0))):
      slot = (queue.pushes - 1 - age) % slots
      mean_D = jnp.mean(unit(queue.keys[slot].astype(q.dtype)), axis=0)
      if context.axes:
        mean_D = jax.lax.pmean(mean_D, context.axes)
      sums[f"queue_similarity_{name}"] = jnp.sum(q @ mean_D)
  return {name: (value, count) for name, value in sums.items()}
