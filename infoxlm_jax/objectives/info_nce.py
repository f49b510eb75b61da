"""InfoNCE: -log softmax of each query's own key among negatives.

Letters: N queries, M negatives of this device, D vector size.
"""

import jax
import jax.numpy as jnp

NEVER = -1e30  # the logit of something that is not a negative


def info_nce(
  q_ND: jax.Array,
  k_ND: jax.Array,
  negatives_MD: jax.Array,
  mask_NM: jax.Array,
  temperature: float,
  others_N: jax.Array | None = None,
) -> jax.Array:
  """-log p(own key | own key and negatives) of each query, float32 [N].

  Args:
    q_ND: queries.
    k_ND: the key of each query.
    negatives_MD: other keys.
    mask_NM: which of them are negatives of which query; bool.
    temperature: divides the inner products.
    others_N: log sum exp of the logits of further negatives, such as
      `sharded_logsumexp` gives; None: there are none.
  """
  own_N = jnp.sum(q_ND * k_ND, axis=-1) / temperature
  logits_NM = jnp.where(mask_NM, q_ND @ negatives_MD.T / temperature, NEVER)
  parts = [own_N[:, None]]
  if others_N is not None:
    parts.append(others_N[:, None])
  parts.append(logits_NM)
  total_N = jax.nn.logsumexp(jnp.concatenate(parts, axis=1), axis=1)
  return total_N - own_N


def sharded_logsumexp(
  q_ND: jax.Array,
  negatives_MD: jax.Array,
  mask_M: jax.Array,
  temperature: float,
  axes: tuple[str, ...],
) -> tuple[jax.Array, jax.Array]:
  """log sum exp of the logits of negatives that devices hold in parts [N].

  The queries go to every part of the negatives and come back as sums, so the
  traffic is the size of the batch and never of the negatives.

  Args:
    q_ND: this device's queries.
    negatives_MD: this device's part of the negatives.
    mask_M: which of them count; bool.
    temperature: divides the inner products.
    axes: mesh axes that split queries and negatives; () on one device
      outside a shard_map.

  Returns:
    Of this device's queries; NEVER where no negative counts. And the largest
    of these logits, NEVER / 2 where there is none, without gradient.
  """
  q_all = q_ND
  if axes:
    q_all = jax.lax.all_gather(q_ND, axes, tiled=True)
  logits = q_all @ negatives_MD.astype(q_all.dtype).T / temperature
  logits = jnp.where(mask_M, logits, NEVER)
  top = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
  if axes:
    top = jax.lax.pmax(top, axes)
  # exp of a masked logit underflows to zero beside any real one.
  top = jnp.maximum(top, NEVER / 2)
  mass = jnp.sum(jnp.exp(logits - top[:, None]), axis=-1)
  if axes:
    mass = jax.lax.psum_scatter(mass, axes, tiled=True)
    device = jax.lax.axis_index(axes)
    top = jax.lax.dynamic_slice_in_dim(
      top, device * q_ND.shape[0], q_ND.shape[0]
    )
  known = mass > 0
  total = jnp.log(jnp.where(known, mass, 1.0)) + top
  return jnp.where(known, total, NEVER), top
