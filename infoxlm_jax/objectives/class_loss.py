"""Cross-entropy of classes, of items or tokens, and their accuracy."""

import jax
import jax.numpy as jnp

from infoxlm_jax.objectives.base import Sums


def cross_entropy(
  logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """-log p(label) and hits, float32 of the labels' shape; 0 below label 0.

  Args:
    logits: [..., C], of C classes.
    labels: int32 [...].
  """
  valid = labels >= 0
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
  chosen = jnp.maximum(labels, 0)[..., None]
  nll = -jnp.take_along_axis(log_p, chosen, axis=-1)[..., 0]
  right = jnp.argmax(logits, axis=-1) == labels
  return jnp.where(valid, nll, 0.0), (valid & right).astype(jnp.float32)


def classify(
  logits_BC: jax.Array, labels_B: jax.Array
) -> tuple[jax.Array, Sums]:
  """The sum of -log p(label) over items in nats, "loss" and "accuracy".

  Args:
    logits_BC: of B items and C classes.
    labels_B: int32, each a class.
  """
  nll_B, hits_B = cross_entropy(logits_BC, labels_B)
  total = jnp.sum(nll_B)
  count = jnp.asarray(labels_B.size, jnp.float32)
  return total, {"loss": (total, count), "accuracy": (jnp.sum(hits_B), count)}
