"""Alignment error rate (Och and Ney 2003), over all pairs together."""

from collections.abc import Collection
from typing import NamedTuple

from infoxlm_jax.evaluation.alignment.files import Gold, Link


class Counts(NamedTuple):
  """Numbers of links.

  Attributes:
    links: that were predicted, A.
    in_sure, in_possible: of these, that are sure, or possible.
    sure: that are sure, S.
  """

  links: int = 0
  in_sure: int = 0
  in_possible: int = 0
  sure: int = 0

  def plus(self, links: Collection[Link], gold: Gold) -> "Counts":
    """The counts with those of another pair."""
    unique = set(links)
    return Counts(
      self.links + len(unique),
      self.in_sure + len(unique & gold.sure),
      self.in_possible + len(unique & gold.possible),
      self.sure + len(gold.sure),
    )


def measures(counts: Counts) -> dict[str, float]:
  """AER, precision, recall and F1 as fractions.

      AER = 1 - (|A & S| + |A & P|) / (|A| + |S|)
      precision = |A & P| / |A|, 0 without links;  recall = |A & S| / |S|

  Args:
    counts: with at least one sure link.
  """
  links, in_sure, in_possible, sure = counts
  precision = in_possible / links if links else 0.0
  recall = in_sure / sure
  total = precision + recall
  return {
    "aer": 1 - (in_sure + in_possible) / (links + sure),
    "precision": precision,
    "recall": recall,
    "f1": 2 * precision * recall / total if total else 0.0,
  }
