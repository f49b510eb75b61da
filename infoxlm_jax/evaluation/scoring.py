"""How two sentences are compared, given the cosine of their vectors.

Scores of two sentences x and y, with r(x) the mean cosine of x to its k
nearest sentences of the other side:

    cosine  cos(x, y)
    csls    2 cos(x, y) - r(x) - r(y)         (Conneau et al., ICLR 2018)
    ratio   cos(x, y) / ((r(x) + r(y)) / 2)   (Artetxe and Schwenk, ACL 2019)
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.retrieval import TIE, unit

# Neighbours of which r is the mean, as these papers have them.
_NEIGHBOURS = {"cosine": 0, "csls": 10, "ratio": 4}
SCORINGS = tuple(_NEIGHBOURS)
# The ratio's denominator is not below this, so that vectors of length 0, whose
# r is 0, have a score.
_FLOOR = 1e-6


@dataclasses.dataclass(frozen=True)
class Scoring:
  """How two sentences are compared.

  Attributes:
    name: "cosine", "csls" or "ratio".
    neighbours: k of csls and ratio; None: 10 for csls, 4 for ratio.
    centre: subtract the mean vector of each language's sentences first.

  Raises:
    InputError: another name, or no neighbours.
  """

  name: str = "cosine"
  neighbours: int | None = None
  centre: bool = False

  def __post_init__(self) -> None:
    if self.name not in SCORINGS:
      raise InputError(
        f"scoring {self.name!r} is none of {', '.join(SCORINGS)}."
      )
    if self.neighbours is not None and self.neighbours < 1:
      raise InputError(
        f"neighbours = {self.neighbours}: csls and ratio need at least 1."
      )

  @property
  def k(self) -> int:
    """Neighbours that r is the mean of; 0: the score needs none."""
    default = _NEIGHBOURS[self.name]
    return (self.neighbours or default) if default else 0

  def __str__(self) -> str:
    text = f"{self.name} (k = {self.k})" if self.k else self.name
    return text + (", centred per language" if self.centre else "")


def prepared(vectors_ND: np.ndarray, scoring: Scoring) -> np.ndarray:
  """Unit rows of one language, centred first if the scoring says so."""
  if scoring.centre:
    vectors_ND = vectors_ND - vectors_ND.mean(axis=0, dtype=np.float64)
  return unit(vectors_ND)


def score(
  cosine: jax.typing.ArrayLike,
  near_a: jax.typing.ArrayLike,
  near_b: jax.typing.ArrayLike,
  scoring: str,
) -> jax.Array:
  """The score of pairs from their cosine and r of both; shapes broadcast.

  Raises:
    ValueError: another scoring.
  """
  cosine, near_a, near_b = map(jnp.asarray, (cosine, near_a, near_b))
  if scoring == "cosine":
    return cosine
  if scoring == "csls":
    return 2 * cosine - near_a - near_b
  if scoring == "ratio":
    return cosine / jnp.maximum((near_a + near_b) / 2, _FLOOR)
  raise ValueError(f"scoring={scoring!r} is none of {SCORINGS}")


def rounding_error(middle: np.ndarray, scoring: str) -> np.ndarray:
  """The error of scores that cosines with an error of TIE have.

  An error of the cosine grows by the score's derivative.

  Args:
    middle: (r(x) + r(y)) / 2 of each pair; zeros for cosine.
    scoring: one of SCORINGS.
  """
  if scoring == "csls":
    return np.full_like(middle, 2 * TIE)
  if scoring == "ratio":
    return TIE / np.maximum(middle, _FLOOR)
  return np.full_like(middle, TIE)
