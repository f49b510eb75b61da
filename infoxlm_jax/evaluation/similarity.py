"""Cosines of translations and of other pairs, and the spread of vectors.

Letters of shapes: N sentences of a language, D size of a vector.
"""

import dataclasses
from typing import Any

import numpy as np

from infoxlm_jax.evaluation.retrieval import Rows, Vectors, shared_rows, unit


@dataclasses.dataclass(frozen=True)
class Similarity:
  """Cosines of translations and other pairs, and the spread, at one layer."""

  positives: np.ndarray  # float32 [P], cosines of translations
  negatives: np.ndarray  # float32 [M], cosines of other pairs, a sample
  spread: dict[str, float]  # 1 - mean cosine of different sentences; 0: alike

  def summary(self) -> dict[str, Any]:
    """Numbers for results.json.

    "positive_above_negative" is the chance that a random translation pair is
    more alike than a random other pair (the area under the ROC curve).
    """
    order = np.sort(self.negatives)
    below = np.searchsorted(order, self.positives, side="left")
    upto = np.searchsorted(order, self.positives, side="right")
    share = (below + upto) / (2 * max(len(order), 1))
    return {
      "positives": _mean(self.positives),
      "negatives": _mean(self.negatives),
      "positive_above_negative": _mean(share),
      "spread": _mean(np.array(list(self.spread.values()))),
      "spread_by_language": dict(self.spread),
    }


def _mean(values: np.ndarray) -> float:
  return float(np.mean(values, dtype=np.float64)) if len(values) else 0.0


def spread(vectors_ND: np.ndarray) -> float:
  """1 - mean cosine between different rows: 0 all alike, about 1 unrelated.

  Exact and in time N: |sum of unit rows|^2 holds every pair twice.
  """
  units = unit(vectors_ND).astype(np.float64)
  number = len(units)
  if number < 2:
    return 0.0
  pairs = np.square(units.sum(axis=0)).sum() - np.square(units).sum()
  return float(1 - pairs / (number * (number - 1)))


def similarities(
  vectors: Vectors,
  rows: Rows,
  layer: int,
  pooling: int,
  pivot: str = "en",
  negatives: int = 20_000,
  seed: int = 0,
) -> Similarity:
  """Cosines of translations, of a sample of other pairs, and the spread.

  Args:
    vectors: as for `retrieval.sweep`.
    rows: as there.
    layer: place on the first axis; 0 is the embedding output.
    pooling: place on the second axis.
    pivot: the language that all others are compared with.
    negatives: pairs that are no translations, drawn evenly over languages.
    seed: of that draw.
  """
  random = np.random.default_rng(seed)
  languages = [language for language in vectors if language != pivot]
  translations, other = [], []
  for language in languages:
    ours, theirs = shared_rows(rows, pivot, language)
    a_ND = unit(vectors[pivot][layer, pooling][ours])
    b_ND = unit(vectors[language][layer, pooling][theirs])
    translations.append(np.einsum("nd,nd->n", a_ND, b_ND))
    if len(ours) > 1:
      here = random.integers(len(ours), size=negatives // len(languages))
      # A step of 1 to N - 1 further: any other sentence, never its own.
      there = here + random.integers(1, len(ours), size=len(here))
      there %= len(ours)
      other.append(np.einsum("nd,nd->n", a_ND[here], b_ND[there]))
  return Similarity(
    positives=np.concatenate(translations),
    negatives=np.concatenate(other) if other else np.zeros(0, np.float32),
    spread={
      language: spread(array[layer, pooling])
      for language, array in vectors.items()
    },
  )
