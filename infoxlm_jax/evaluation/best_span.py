"""The best answer among the spans of a context, from scores of its tokens."""

from typing import NamedTuple

import numpy as np


class Span(NamedTuple):
  """Tokens first..last of a row; a higher score is better."""

  score: float
  first: int
  last: int


def best_span(
  starts: np.ndarray,
  ends: np.ndarray,
  may_start: np.ndarray,
  may_end: np.ndarray,
  *,
  candidates: int = 20,
  max_tokens: int = 30,
) -> Span | None:
  """The span with the highest sum of start and end (Devlin et al. 2019).

  Both ends are among the `candidates` best tokens, as in BERT's run_squad. Of
  equal tokens the earlier one is taken, and of equal spans the one whose first
  token is better.

  Args:
    starts, ends: logits of each token [tokens].
    may_start, may_end: where a span may begin and end, bool [tokens].
    candidates: tokens that are tried for each end.
    max_tokens: of a span.

  Returns:
    None where no two candidates make a span.
  """
  firsts = _best(starts, may_start, candidates)
  lasts = _best(ends, may_end, candidates)
  lengths = lasts[None, :] - firsts[:, None] + 1
  sums = starts[firsts][:, None] + ends[lasts][None, :]
  fits = (lengths >= 1) & (lengths <= max_tokens)
  if not fits.any():
    return None
  first, last = divmod(int(np.where(fits, sums, -np.inf).argmax()), len(lasts))
  return Span(float(sums[first, last]), int(firsts[first]), int(lasts[last]))


def _best(logits: np.ndarray, allowed: np.ndarray, count: int) -> np.ndarray:
  """The allowed tokens with the highest logits, best first."""
  tokens = np.flatnonzero(allowed)
  order = np.argsort(-logits[tokens], kind="stable")
  return tokens[order[:count]]
