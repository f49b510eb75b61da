"""Differences from the authors' numbers: their bounds, and a table."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# The largest difference allowed: of losses and rates relative, of arrays
# absolute. A bias of all keys alike changes no softmax: its gradient is
# rounding, which Adam's division makes large.
BOUNDS = {
  "mlm loss": 1e-5,
  "tlm loss": 1e-5,
  "xlco loss": 1e-5,
  "loss in bits": 1e-5,
  "gradient norm": 1e-5,
  "terms": 0.0,
  "accuracy": 1e-6,
  "learning rate": 1e-6,
  "momentum": 1e-6,
  "parameters": 2e-6,
  "key parameters": 2e-6,
  "projections": 2e-6,
  "queue": 2e-6,
  "key biases": 1e-5,
}
_RELATIVE = ("loss", "gradient", "rate", "momentum")


class Difference(NamedTuple):
  """The largest difference of a kind of number, and where it is."""

  size: float
  where: str


def beyond(differences: Mapping[str, Difference]) -> list[str]:
  """Kinds of numbers that differ by more than their bound."""
  return [k for k, d in differences.items() if not d.size <= BOUNDS[k]]


def table(path: str | Path, differences: Mapping[str, Difference]) -> str:
  """Lines for people: each kind, its difference, its bound, and where."""
  lines = [str(path)]
  for kind, (size, where) in differences.items():
    mark = "ok " if size <= BOUNDS[kind] else "BAD"
    how = "relative" if is_relative(kind) else ""
    lines.append(
      f"  {mark} {kind:<15} {size:8.1e}  (bound {BOUNDS[kind]:.0e})"
      f" {how:<8} {where}".rstrip()
    )
  return "\n".join(lines)


def apart(ours: Any, theirs: Any) -> float:
  """The largest absolute difference of two arrays; NaN counts as infinite."""
  worst = np.max(np.abs(np.asarray(ours, np.float64) - theirs))
  return math.inf if np.isnan(worst) else float(worst)


def keep(
  differences: dict[str, Difference], kind: str, size: float, where: str
) -> None:
  """Notes a difference where it is the largest of its kind so far."""
  if size > differences[kind].size:
    differences[kind] = Difference(size, where)


def is_relative(kind: str) -> bool:
  """Whether differences of this kind are relative to the authors' number."""
  return any(word in kind for word in _RELATIVE)
