"""Which pieces of two sentences translate each other, from their vectors.

    argmax     cosines; places that are the highest of their row and of their
               column (SimAlign's "inter")
    itermax    the same, then once more for what is left (SimAlign)
    sinkhorn   dot products, columns and rows in turn scaled to a sum of 1,
               twice, then itermax: how XLM-Align labels its own pairs

SimAlign: Jalili Sabet et al. 2020; XLM-Align: Chi et al. 2021.

Letters: L layers, B pairs, I and J pieces of source and target, D hidden size.
"""

import functools

import jax
import jax.numpy as jnp

from infoxlm_jax.objectives import token_alignment

METHODS = ("argmax", "itermax", "sinkhorn")
_ROUNDS = {"argmax": 1, "itermax": 2, "sinkhorn": 2}
_NORMALIZATIONS = 2


@functools.partial(jax.jit, static_argnames="method")
def align(
  method: str,
  source_LBID: jax.Array,
  target_LBJD: jax.Array,
  lengths_B2: jax.Array,
) -> jax.Array:
  """Links of pieces, bool [L, B, I, J].

  Args:
    method: one of METHODS.
    source_LBID, target_LBJD: vectors, padded.
    lengths_B2: pieces of each pair's source and target.
  """
  if method != "sinkhorn":
    source_LBID, target_LBJD = _unit(source_LBID), _unit(target_LBJD)
  similarity = jnp.einsum(
    "lbid,lbjd->lbij",
    source_LBID,
    target_LBJD,
    precision=jax.lax.Precision.HIGHEST,
  )
  return links(method, similarity, lengths_B2)


def links(
  method: str, similarity_LBIJ: jax.Array, lengths_B2: jax.Array
) -> jax.Array:
  """`align` of similarities: cosines, or dot products for sinkhorn."""
  size_i, size_j = similarity_LBIJ.shape[-2:]
  inside_BI = jnp.arange(size_i) < lengths_B2[:, :1]
  inside_BJ = jnp.arange(size_j) < lengths_B2[:, 1:]
  allowed_BIJ = inside_BI[:, :, None] & inside_BJ[:, None, :]
  if method == "sinkhorn":
    weight = token_alignment.normalize(
      similarity_LBIJ, allowed_BIJ, _NORMALIZATIONS
    )
  else:
    weight = (1 + similarity_LBIJ) / 2  # not below 0
  # SimAlign and XLM-Align repeat only for more than two pieces.
  repeated_B11 = (jnp.min(lengths_B2, axis=-1) > 2)[:, None, None]
  return token_alignment.itermax(
    weight,
    jnp.broadcast_to(allowed_BIJ, weight.shape),
    jnp.ones((1, 1), bool),  # all pieces of a matrix are of one pair
    repeated_B11,
    _ROUNDS[method],
  )


def _unit(x: jax.Array) -> jax.Array:
  norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
  return x / jnp.where(norm > 0, norm, 1.0)
