"""Measures of the contrast that a collapsed encoder cannot pass.

Letters: N queries of this device, B keys of the whole batch, D vector size.
"""

import jax
import jax.numpy as jnp

from infoxlm_jax.model.pooling import unit
from infoxlm_jax.objectives.base import Sums
from infoxlm_jax.objectives.info_nce import NEVER
from infoxlm_jax.objectives.key_queue import Queue, newest_and_oldest


def measure(
  q_ND: jax.Array,
  k_ND: jax.Array,
  batch_BD: jax.Array,
  is_own_NB: jax.Array,
  queue: Queue | None,
  temperature: float,
  axes: tuple[str, ...],
) -> Sums:
  """(sum, number of queries) of each measure.

  accuracy: the own key scores above every other key of the batch. A tie
    counts as wrong, so constant vectors score 0. (The accuracy against the
    queue reads 99 % for nearly constant vectors, which tell fresh keys from
    old ones.)
  positive_similarity: mean cosine of a query and its key.
  spread: 1 - mean cosine of a query and the others' keys; 0 is collapse.
  chance: the accuracy of guessing.
  queue_similarity_new / _old: mean cosine to the newest and oldest slot.

  Args:
    q_ND, k_ND: queries and their keys.
    batch_BD: keys of the whole update.
    is_own_NB: which of them is the query's own.
    queue: this device's part; None: not measured.
    temperature: divides the inner products.
    axes: mesh axes that split the queue; () outside a shard_map.
  """
  q_ND, k_ND, batch_BD = jax.lax.stop_gradient((q_ND, k_ND, batch_BD))
  count = jnp.asarray(q_ND.shape[0], jnp.float32)
  batch = batch_BD.shape[0]
  own_N = jnp.sum(q_ND * k_ND, axis=-1) / temperature
  others_NB = jnp.where(is_own_NB, NEVER, q_ND @ batch_BD.T / temperature)
  best_N = jnp.max(others_NB, axis=-1)
  # Equal up to rounding is a tie, however the products were summed.
  hits = jnp.sum(own_N > best_N + 1e-5 * jnp.abs(best_N))
  q, k = unit(q_ND), unit(k_ND)
  positive = jnp.sum(q * k)
  to_all = jnp.sum(q @ jnp.sum(unit(batch_BD), axis=0))
  mean_negative = (to_all - positive) / max(batch - 1, 1)
  sums = {
    "accuracy": hits.astype(jnp.float32),
    "positive_similarity": positive,
    "spread": count - mean_negative,
    "chance": count / batch,
  }
  if queue is not None:
    ages = zip(("new", "old"), newest_and_oldest(queue), strict=True)
    for name, slot_BD in ages:
      mean_D = jnp.mean(unit(slot_BD.astype(q.dtype)), axis=0)
      if axes:
        mean_D = jax.lax.pmean(mean_D, axes)
      sums[f"queue_similarity_{name}"] = jnp.sum(q @ mean_D)
  return {name: (value, count) for name, value in sums.items()}
