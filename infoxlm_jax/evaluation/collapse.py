"""Decides from a run's metrics whether a contrast has collapsed.

Accuracy against the queue alone does not show it: nearly constant vectors
still separate fresh keys from old ones and reach 92 to 99 %. This module uses
measures on which such vectors fail: accuracy among the batch's own keys,
the spread of the vectors, and the similarity to queue keys by age.

A contrast is an objective of any name with such measures: "xlco/spread".
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from infoxlm_jax.runtime.metrics import Row, series

# The thresholds are rules of thumb, far from the numbers of a run that learns.
# Below this, 1 - mean cosine between the batch's sentences that are no
# translations of each other: as good as constant.
SPREAD_FLOOR = 0.02
# Accuracy at or below this many times chance is as good as guessing.
CHANCE_FACTOR = 3.0
# Newest and oldest queue keys further apart than this: age shows.
AGE_GAP = 0.2

# Other objectives have an accuracy, too; these two only a contrast has.
_MARKS = ("/spread", "/chance")
_MEASURES = (
  "accuracy",
  "chance",
  "spread",
  "queue_similarity_new",
  "queue_similarity_old",
  "positive_similarity",
)


def contrasts(names: Iterable[str], prefix: str = "") -> list[str]:
  """Names of the contrasts that have measures among these metrics.

  Args:
    names: of metrics.
    prefix: in front of the contrasts' names.
  """
  return list(
    dict.fromkeys(
      name.removeprefix(prefix).rpartition("/")[0]
      for name in names
      if name.startswith(prefix) and name.endswith(_MARKS)
    )
  )


def collapsed(metrics: Mapping[str, float]) -> str | None:
  """Returns why a contrast counts as collapsed, or None if none does.

  Collapsed is a spread below `SPREAD_FLOOR`, an accuracy no better than
  `CHANCE_FACTOR` times chance, or a number that is not finite. Call it
  only after the learning rate's warm-up and after a delayed start of the
  contrast: an encoder with its initial weights looks the same.

  Args:
    metrics: one step's, or a mean over some, without the "train/" in front:
      "xlco/accuracy" and "xlco/spread" as fractions, "xlco/chance" as 1 / keys
      of the batch. Measures that are not there are not judged.
  """
  names = contrasts(metrics)
  for name in names:
    reason = _reason(
      {
        measure: metrics[f"{name}/{measure}"]
        for measure in _MEASURES
        if f"{name}/{measure}" in metrics
      }
    )
    if reason:
      return reason if len(names) == 1 else f"{name}: {reason}"
  return None


def _reason(measures: Mapping[str, float]) -> str | None:
  """Why one contrast counts as collapsed; see `collapsed`."""
  accuracy, spread = measures.get("accuracy"), measures.get("spread")
  for name, value in (("accuracy", accuracy), ("spread", spread)):
    if value is not None and not math.isfinite(value):
      return f"the contrast's {name} is not a finite number ({value})"
  if spread is not None and spread < SPREAD_FLOOR:
    return (
      f"the sentence vectors are nearly all alike: spread {spread:.4f}, below "
      f"{SPREAD_FLOOR}"
    )
  chance = measures.get("chance")
  if accuracy is not None and chance is not None:
    if accuracy <= _guessing(chance):
      return (
        "among the batch's own keys the right one is found in "
        f"{100 * accuracy:.1f} % of cases, hardly more than chance "
        f"({100 * chance:.1f} %)"
      )
  return None


def _guessing(chance: float) -> float:
  """Accuracy up to which a contrast counts as guessing.

  Three times chance; with few keys, where that would be nearly everything,
  half-way from chance to 1. A single key (chance 1) says nothing: -1.
  """
  if chance >= 1:
    return -1.0
  return min(CHANCE_FACTOR * chance, (1 + chance) / 2)


def health_notes(
  rows: Sequence[Row], warmup_steps: int = 0, prefix: str = "train/"
) -> list[str]:
  """Plain sentences on the health of a run, from its metrics.jsonl.

  The end is judged on the mean over the last tenth of the logged steps (five
  at least), so that one noisy batch decides nothing.

  Args:
    rows: of `metrics.read_metrics`.
    warmup_steps: steps up to this one are not judged.
    prefix: in front of the contrasts' names.
  """
  notes = _not_finite(rows)
  names = _contrasts_in(rows, prefix)
  if not names:
    return notes + ["No contrast was trained in this run (or none logged)."]
  for name in names:
    own = _notes_of(rows, warmup_steps, f"{prefix}{name}/")
    notes += own if len(names) == 1 else [f"{name}: {note}" for note in own]
  return notes


def _contrasts_in(rows: Sequence[Row], prefix: str) -> list[str]:
  given = (k for row in rows for k, value in row.items() if value is not None)
  return contrasts(given, prefix)


def _notes_of(rows: Sequence[Row], warmup_steps: int, prefix: str) -> list[str]:
  """The sentences on one contrast, whose measures begin with `prefix`."""
  logged = [
    row
    for row in rows
    if any(row.get(prefix + measure) is not None for measure in _MEASURES)
  ]
  judged = [row for row in logged if row["step"] > warmup_steps]
  if not judged:
    return [
      "The contrast is not judged: the run ended within the warm-up "
      f"({warmup_steps} steps)."
    ]
  size, notes = max(5, len(judged) // 10), []
  end = _window(judged[-size:], prefix)
  reason = _reason(end)
  if reason:
    notes.append(
      f"THE CONTRAST HAS COLLAPSED: {reason} (mean over the last "
      f"{min(size, len(judged))} logged steps). Do not use these sentence "
      "vectors. What helped at small scale: mean pooling in place of the "
      "first token, L2-normalised vectors, a temperature near .05, the "
      "batch's own keys as negatives, no mixup, unmasked inputs."
    )
  else:
    notes.append(_healthy(end))
    bad = [
      judged[start]["step"]
      for start in range(0, len(judged) - size + 1, size)
      if _reason(_window(judged[start : start + size], prefix))
    ]
    if bad:
      notes.append(
        f"Earlier, around step {bad[-1]}, the contrast looked collapsed; it "
        "recovered."
      )
  return notes + _age(end)


def _window(rows: Sequence[Row], prefix: str) -> dict[str, float]:
  """Mean of each measure of a contrast over its points in these rows."""
  means = {}
  for measure in _MEASURES:
    values = series(rows, prefix + measure)[1]
    if len(values):
      means[measure] = float(values.mean())
  return means


def _not_finite(rows: Sequence[Row]) -> list[str]:
  first: dict[str, tuple[int, int]] = {}
  for row in rows:
    for name in row.get("non_finite", ()):
      step, count = first.get(name, (row["step"], 0))
      first[name] = (step, count + 1)
  return [
    f"{name} was not a finite number {count} time{'s' * (count > 1)}, first "
    f"at step {step}."
    for name, (step, count) in first.items()
  ]


def _healthy(end: Mapping[str, float]) -> str:
  parts = []
  if "accuracy" in end:
    text = f"{100 * end['accuracy']:.1f} % of queries find their key"
    if "chance" in end:
      text += f" (chance {100 * end['chance']:.1f} %)"
    parts.append(f"among the batch's own keys {text}")
  if "spread" in end:
    parts.append(
      f"the spread of the vectors is {end['spread']:.2f} (0: all alike)"
    )
  detail = "; ".join(parts) or "nothing speaks against it"
  return f"The contrast shows no collapse: {detail}."


def _age(end: Mapping[str, float]) -> list[str]:
  new, old = end.get("queue_similarity_new"), end.get("queue_similarity_old")
  if new is None or old is None or abs(new - old) <= AGE_GAP:
    return []
  return [
    "Queue keys can be told apart by their age: mean similarity "
    f"{new:.2f} to the newest and {old:.2f} to the oldest. Accuracy against "
    "the queue then says little; a shorter queue or a slower key encoder "
    "narrows the gap."
  ]
