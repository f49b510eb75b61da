"""Which token of a pair translates which, by the encoder's own vectors.

As the released XLM-Align has it (microsoft/unilm, folder infoxlm, task
`xlm_align`): dot products, normalised by columns and rows, then mutual best
matches. Rows may hold several pairs: all of them are labelled at one time.

Letters: T tokens of a row; [..., I, J] places of a row on both sides.
"""

import jax
import jax.numpy as jnp

from infoxlm_jax.objectives.base import Rows
from infoxlm_jax.special_ids import Ids

_ALPHA = 0.9  # of itermax, for a place of which one token is aligned already


def halves(rows: Rows, ids: Ids) -> jax.Array:
  """1 up to the first `</s>` of an item, 2 after it, 0 for padding [..., T].

  Args:
    rows: tokens, segments [..., T] of pairs, before masking. A row may hold
      several pairs, `<s> a </s> b </s>` or `<s> a </s> <s> b </s>`.
    ids: of the tokenizer.
  """
  tokens, segments = rows["tokens"], rows["segments"]
  t = jnp.arange(tokens.shape[-1])
  ends = (tokens == ids.eos).astype(jnp.int32)
  # Ends before each place, less those before its pair begins.
  before = jnp.cumsum(ends, axis=-1) - ends
  new = (segments != jnp.roll(segments, 1, axis=-1)) | (t == 0)
  start = jax.lax.cummax(jnp.where(new, t, 0), axis=segments.ndim - 1)
  ended = before - jnp.take_along_axis(before, start, axis=-1)
  return jnp.where(segments > 0, 1 + jnp.minimum(ended, 1), 0)


def sides_of(rows: Rows, ids: Ids) -> jax.Array:
  """The sentence of each token: 1, 2, or 0 for <s>, </s> and padding.

  Args:
    rows, ids: see `halves`.
  """
  tokens = rows["tokens"]
  is_word = (tokens != ids.bos) & (tokens != ids.eos)
  return jnp.where(is_word, halves(rows, ids), 0)


def similarities(hidden: jax.Array) -> jax.Array:
  """Dot products of all tokens of a row, float32 [..., T, T]."""
  return jnp.einsum(
    "...id,...jd->...ij", hidden, hidden, preferred_element_type=jnp.float32
  )


def align(
  similarity: jax.Array,
  segments: jax.Array,
  sides: jax.Array,
  normalizations: int,
  rounds: int,
) -> jax.Array:
  """Which token of side 1 (I) translates which of side 2 (J): bool [..., I, J].

  Args:
    similarity: [..., T, T].
    segments, sides: [..., T].
    normalizations, rounds: see WordAlignment.
  """
  same = segments[..., :, None] == segments[..., None, :]
  allowed = same & (sides[..., :, None] == 1) & (sides[..., None, :] == 2)
  weight = normalize(similarity, allowed, normalizations)
  lengths = [
    jnp.sum(same & (sides == side)[..., None, :], axis=-1) for side in (1, 2)
  ]
  shorter = jnp.minimum(*lengths)[..., :, None]
  return itermax(weight, allowed, same, shorter > 2, rounds)


def normalize(
  similarity: jax.Array, allowed: jax.Array, rounds: int
) -> jax.Array:
  """Columns, then rows, to a sum of 1, so many times; [..., I, J].

  What is not above 0 counts as 1e-6, and what is not allowed as 0.
  """
  x = jnp.where(similarity > 0, similarity, 1e-6)
  x = jnp.where(allowed, x, 0.0)
  for _ in range(rounds):
    for axis in (-2, -1):
      total = jnp.sum(x, axis=axis, keepdims=True)
      x = x / jnp.where(total > 0, total, 1.0)
  return x


def itermax(
  weight: jax.Array,
  allowed: jax.Array,
  same: jax.Array,
  repeated: jax.Array,
  rounds: int,
) -> jax.Array:
  """Mutual best matches, repeated for what is left (Sabet et al. 2020).

  Args:
    weight: not below 0, [..., I, J].
    allowed: the places of each pair's two sentences, bool.
    same: whether two places of the row are of one pair, bool.
    repeated: of which pairs more than the first round is made (those whose
      shorter sentence has over two tokens), bool [..., I, 1].
    rounds: see WordAlignment.
  """
  aligned = _mutual_best(weight, allowed)
  for _ in range(rounds - 1):
    free_i = allowed & ~jnp.any(aligned, axis=-1, keepdims=True)
    free_j = allowed & ~jnp.any(aligned, axis=-2, keepdims=True)
    # A pair of which one sentence has no free token is finished.
    goes_on = _any_of_pair(free_i, same) & _any_of_pair(free_j, same)
    open_ij = (free_i | free_j) & goes_on & repeated
    scale = jnp.where(free_i & free_j, 1.0, jnp.where(open_ij, _ALPHA, 0.0))
    aligned |= open_ij & _mutual_best(weight * scale, allowed)
  return aligned


def partners(aligned: jax.Array) -> jax.Array:
  """The place that each token is aligned with, -1 for none [..., T].

  The last, where there are several, as in the released code.
  """
  t = jnp.arange(aligned.shape[-1])
  of_i = jnp.max(jnp.where(aligned, t, -1), axis=-1)
  of_j = jnp.max(jnp.where(aligned, t[:, None], -1), axis=-2)
  return jnp.maximum(of_i, of_j)


def _mutual_best(weight: jax.Array, allowed: jax.Array) -> jax.Array:
  """Places that are the first maximum of their row and of their column."""
  x = jnp.where(allowed, weight, -1.0)
  t = jnp.arange(x.shape[-1])
  best_j = jnp.argmax(x, axis=-1)[..., :, None] == t
  best_i = jnp.argmax(x, axis=-2)[..., None, :] == t[:, None]
  return best_j & best_i & allowed


def _any_of_pair(places: jax.Array, same: jax.Array) -> jax.Array:
  """Whether the pair of row i has any of these places, bool [..., I, 1]."""
  any_i = jnp.any(places, axis=-1)[..., None, :]
  return jnp.any(same & any_i, axis=-1, keepdims=True)
