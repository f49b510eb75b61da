"""Chooses, among other sentences, the one nearest in words.

Sentences are compared as bags of pieces: the cosine of their counts, each times
the piece's weight. Sums are of integers, so the choice does not depend on the
order of addition.
"""

from collections.abc import Sequence

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]


def rarity(counts: np.ndarray) -> np.ndarray:
  """64 log2(total / count), rounded, int64 [ids]: rare pieces weigh more.

  Args:
    counts: of every id in some text, at least 1.
  """
  share = counts.sum() / counts.astype(np.float64)
  return np.rint(64 * np.log2(share)).astype(np.int64)


def nearest(
  pairs: Sequence[Pair],
  candidates: Sequence[Pair],
  weights: np.ndarray | None,
) -> np.ndarray:
  """The candidate of each pair whose second sentence is nearest to its own.

  A candidate that shares a whole sentence with the pair, the first or the
  second, is out of the question. Of equally near ones the first is chosen.

  Args:
    pairs: token ids of both sentences of n pairs.
    candidates: k for each pair, those of the first pair first.
    weights: of every id, int64; None takes the first candidate that may be.

  Returns:
    int64 [n]: from 0 to k - 1, or -1 where no candidate may be chosen.
  """
  count = len(pairs)
  tries = len(candidates) // max(count, 1)
  score: np.ndarray = np.zeros((count, tries))
  if weights is not None:
    score = similarities(
      [y for _, y in pairs], [y for _, y in candidates], weights
    )
  for place, (x, y) in enumerate(candidates):
    own_x, own_y = pairs[place // tries]
    if np.array_equal(x, own_x) or np.array_equal(y, own_y):
      score[divmod(place, tries)] = -1.0
  best = score.argmax(axis=1)
  return np.where(score[np.arange(count), best] < 0, -1, best)


def similarities(
  sentences: Sequence[np.ndarray],
  others: Sequence[np.ndarray],
  weights: np.ndarray,
) -> np.ndarray:
  """Cosines [n, k] of n sentences and the k others of each, in order.

  0 where a sentence has no piece of weight.
  """
  count, tries = len(sentences), len(others) // max(len(sentences), 1)
  key, value, square = _bags(sentences, weights)
  other_key, other_value, other_square = _bags(others, weights)
  # The same piece in the bag of the sentence that an other is compared with.
  row, piece = np.divmod(other_key, len(weights))
  wanted = row // tries * len(weights) + piece
  at = np.minimum(np.searchsorted(key, wanted), max(len(key) - 1, 0))
  shared = (
    np.where(key[at] == wanted, value[at] * other_value, 0)
    if len(key)
    else np.zeros_like(other_value)
  )
  # Sums of floats that are integers below 2^53 are exact.
  dot = np.bincount(row, shared, len(others)).reshape(count, tries)
  norm = np.sqrt(square)[:, None] * np.sqrt(other_square).reshape(count, tries)
  return np.where(norm > 0, dot / np.maximum(norm, 1e-9), 0.0)


def _bags(
  sentences: Sequence[np.ndarray], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Bags of pieces of all sentences.

  Returns:
    (sentence * ids + piece, sorted; weight times count of it; sum of squares
    of each sentence).
  """
  lengths = [len(sentence) for sentence in sentences]
  rows = np.repeat(np.arange(len(sentences)), lengths)
  flat = np.concatenate([np.empty(0, np.int64), *sentences]).astype(np.int64)
  key, times = np.unique(rows * len(weights) + flat, return_counts=True)
  row, piece = np.divmod(key, len(weights))
  value = times * weights[piece]
  return key, value, np.bincount(row, value**2, len(sentences))
