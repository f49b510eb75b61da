"""The loss of classes of items: next sentence or not, paraphrase or not."""

import jax
import jax.numpy as jnp

from infoxlm_jax.objectives.base import Sums


def classify(
  logits_BC: jax.Array, labels_B: jax.Array
) -> tuple[jax.Array, Sums]:
  """The sum of -log p(label) over items in nats, "loss" and "accuracy".

  Args:
    logits_BC: of B items and C classes, float32.
    labels_B: int32.
  """
  log_p_BC = jax.nn.log_softmax(logits_BC)
  nll_B = -jnp.take_along_axis(log_p_BC, labels_B[:, None], axis=-1)[:, 0]
  count = jnp.asarray(labels_B.size, jnp.float32)
  hits = jnp.sum(jnp.argmax(logits_BC, axis=-1) == labels_B)
  total = jnp.sum(nll_B)
  return total, {
    "loss": (total, count),
    "accuracy": (hits.astype(jnp.float32), count),
  }
