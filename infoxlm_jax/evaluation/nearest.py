"""Exact nearest neighbours between two sets of vectors, in blocks on a device.

The scores of a block of `a` with a block of `b` are computed at one time, and
of these the k best of each row and of each column are kept. So memory is that
of one block and of the k best, and never that of all scores.

Ties: of equal scores, the one with the lowest index comes first. Retrieval
counts a tie with a wrong sentence as wrong (see `retrieval`).

Letters of shapes: N vectors of a, M vectors of b, D their size, Q and C rows
and columns of a block, k neighbours.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infoxlm_jax.evaluation.scoring import (
  Scoring,
  prepared,
  rounding_error,
  score,
)

# Rows and columns of a block: 32 MiB of scores.
BLOCK = (2048, 4096)
_SMALLEST = 128


class Nearest(NamedTuple):
  """The best of the other side, the best first.

  Attributes:
    scores: float32 [N, k].
    indices: int32 [N, k].
  """

  scores: np.ndarray
  indices: np.ndarray


class Local(NamedTuple):
  """r of the vectors of both sides: float32 [N] and [M]."""

  a: np.ndarray
  b: np.ndarray


def search(
  a_ND: np.ndarray,
  b_MD: np.ndarray,
  k: int,
  scoring: str = "cosine",
  local: Local | None = None,
  block: tuple[int, int] = BLOCK,
) -> tuple[Nearest, Nearest]:
  """The k best of b for each row of a, and of a for each row of b.

  Args:
    a_ND: float32 [N, D], unit rows.
    b_MD: float32 [M, D], unit rows.
    k: how many; fewer where the other side has fewer.
    scoring: one of scoring.SCORINGS.
    local: r of both sides, which csls and ratio need; see `local_means`.
    block: rows of a and of b whose scores are computed at one time.

  Returns:
    (for the rows of a, for the rows of b).
  """
  sizes = len(a_ND), len(b_MD)
  rows, columns = (
    _block_size(n, most) for n, most in zip(sizes, block, strict=True)
  )
  zeros = Local(np.zeros(sizes[0], "f4"), np.zeros(sizes[1], "f4"))
  local = local or zeros
  b_blocks = [
    _block(b_MD, local.b, start, columns)
    for start in range(0, sizes[1], columns)
  ]
  back = [_nothing(columns, k) for _ in b_blocks]
  there = []
  for start in range(0, sizes[0], rows):
    a_block = jax.device_put(_block(a_ND, local.a, start, rows))
    best = _nothing(rows, k)
    for number, b_block in enumerate(b_blocks):
      best, back[number] = _merge(
        best, back[number], a_block, b_block, scoring=scoring
      )
    there.append(jax.device_get(best))
  return (
    _joined(there, sizes[0], min(k, sizes[1])),
    _joined([jax.device_get(one) for one in back], sizes[1], min(k, sizes[0])),
  )


def local_means(
  a_ND: np.ndarray,
  b_MD: np.ndarray,
  scoring: Scoring,
  block: tuple[int, int] = BLOCK,
) -> Local | None:
  """r of both sides, for `search`; None where the score needs none."""
  if not scoring.k:
    return None
  there, back = search(a_ND, b_MD, scoring.k, block=block)
  return Local(there.scores.mean(axis=1), back.scores.mean(axis=1))


class Hits(NamedTuple):
  """One direction of retrieval between N translations.

  Attributes:
    own: bool [N], whether the translation is the one best sentence.
    ties: how many are wrong only because another sentence is as good.
  """

  own: np.ndarray
  ties: int


def own_is_best(
  a_ND: np.ndarray,
  b_ND: np.ndarray,
  scoring: Scoring,
  block: tuple[int, int] = BLOCK,
) -> tuple[Hits, Hits]:
  """Retrieval of translations, row i of b being that of row i of a.

  A lead over the second best sentence within the rounding error of the score
  is a tie, and a tie is wrong, as in `retrieval.nearest_is_own`.

  Args:
    a_ND: float32 [N, D], not yet centred or of unit length.
    b_ND: float32 [N, D], likewise.
    scoring: how sentences are compared.
    block: see `search`.

  Returns:
    (from a to b, from b to a).
  """
  a_ND, b_ND = prepared(a_ND, scoring), prepared(b_ND, scoring)
  local = local_means(a_ND, b_ND, scoring, block)
  ways = search(a_ND, b_ND, 2, scoring.name, local, block)
  cosine_N = np.einsum("nd,nd->n", a_ND, b_ND)
  zeros = np.zeros(len(a_ND), np.float32)
  near = local or Local(zeros, zeros)
  own_N = np.asarray(score(cosine_N, near.a, near.b, scoring.name))
  sides = ((near.a, near.b), (near.b, near.a))
  return (
    _hits(ways[0], own_N, *sides[0], scoring.name),
    _hits(ways[1], own_N, *sides[1], scoring.name),
  )


def _hits(
  nearest: Nearest,
  own_N: np.ndarray,
  mine_N: np.ndarray,
  theirs_N: np.ndarray,
  scoring: str,
) -> Hits:
  """Which rows find their own; mine and theirs are r of the two sides."""
  best_N = nearest.scores[:, 0]
  second_N = (
    nearest.scores[:, 1]
    if nearest.scores.shape[1] > 1
    else np.full_like(best_N, -np.inf)
  )
  middle_N = (mine_N + theirs_N[nearest.indices[:, 0]]) / 2
  error_N = rounding_error(middle_N, scoring)
  # A NaN makes the comparisons False: wrong.
  first_N = nearest.indices[:, 0] == np.arange(len(best_N))
  with np.errstate(invalid="ignore"):
    own = first_N & (best_N - second_N > error_N)
    tied = ~own & (best_N - own_N <= error_N)
  return Hits(own, int(tied.sum()))


class _Block(NamedTuple):
  vectors: Any  # [rows, D], zeros below the last one
  near: Any  # r: [rows]
  start: Any  # index of the first row
  valid: Any  # how many rows are no padding


def _block_size(count: int, most: int) -> int:
  """A power of two, so that few shapes are compiled; `most` at the most."""
  size = min(_SMALLEST, most)
  while size < min(count, most):
    size *= 2
  return min(size, most)


def _block(
  vectors_ND: np.ndarray, near_N: np.ndarray, start: int, rows: int
) -> _Block:
  part = np.asarray(vectors_ND[start : start + rows], np.float32)
  short = rows - len(part)
  return _Block(
    np.pad(part, ((0, short), (0, 0))),
    np.pad(np.asarray(near_N[start : start + rows], np.float32), (0, short)),
    np.int32(start),
    np.int32(len(part)),
  )


def _nothing(rows: int, k: int) -> tuple[jax.Array, jax.Array]:
  return jnp.full((rows, k), -jnp.inf), jnp.full((rows, k), -1, jnp.int32)


_Best = tuple[jax.Array, jax.Array]


@functools.partial(jax.jit, static_argnames="scoring", donate_argnums=(0, 1))
def _merge(
  there: _Best, back: _Best, a: _Block, b: _Block, *, scoring: str
) -> tuple[_Best, _Best]:
  """The best so far of a block's rows and columns, with the block's scores."""
  # Without `highest`, GPUs and TPUs round the factors to fewer bits.
  cosine_QC = jnp.matmul(a.vectors, b.vectors.T, precision="highest")
  score_QC = score(cosine_QC, a.near[:, None], b.near[None, :], scoring)
  rows, columns = (jnp.arange(len(x.vectors)) < x.valid for x in (a, b))
  valid_QC = rows[:, None] & columns[None, :]
  score_QC = jnp.where(valid_QC, score_QC, -jnp.inf)
  return (
    _best_of(there, score_QC, b.start),
    _best_of(back, score_QC.T, a.start),
  )


def _best_of(best: _Best, scores: jax.Array, first: jax.Array) -> _Best:
  """Of equal numbers top_k takes the first: here, the lowest index."""
  k = best[0].shape[1]
  new, place = jax.lax.top_k(scores, min(k, scores.shape[1]))
  values = jnp.concatenate([best[0], new], axis=1)
  indices = jnp.concatenate([best[1], place.astype(jnp.int32) + first], axis=1)
  values, chosen = jax.lax.top_k(values, k)
  return values, jnp.take_along_axis(indices, chosen, axis=1)


def _joined(parts: list[_Best], count: int, k: int) -> Nearest:
  scores, indices = zip(*parts, strict=True)
  return Nearest(
    np.concatenate(scores)[:count, :k], np.concatenate(indices)[:count, :k]
  )
