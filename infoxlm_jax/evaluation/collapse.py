"""Says in plain words whether the contrast works or has collapsed.

Accuracy against the queue alone cannot tell: nearly constant vectors still
tell fresh keys from old ones by their age and score 92 to 99 %. So this reads
what cannot be had that way: accuracy among the batch's own keys, the spread
of the vectors, and the similarity to queue keys by age.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from infoxlm_jax.runtime.metrics import Row, series

# The thresholds are rules of thumb, far from what a run that learns shows.
# Below this, 1 - mean cosine between the batch's sentences that are no
# translations of each other: as good as constant.
SPREAD_FLOOR = 0.02
# Accuracy at or below this many times chance is as good as guessing.
CHANCE_FACTOR = 3.0
# Newest and oldest queue keys further apart than this: age shows.
AGE_GAP = 0.2

# Measures of a contrast, in metrics as "<objective>/<measure>". An objective
# counts as a contrast when it reports its spread.
_SPREAD = "spread"
_MEASURES = (
  "accuracy",
  "chance",
  _SPREAD,
  "queue_similarity_new",
  "queue_similarity_old",
  "positive_similarity",
)


def contrasts(metrics: Iterable[str], prefix: str = "") -> list[str]:
  """Names of the objectives that contrast, from the names of metrics.

  Args:
    metrics: such as "train/xlco/spread".
    prefix: the part before the objective's name, such as "train/".
  """
  names = {
    name.removeprefix(prefix).removesuffix(f"/{_SPREAD}")
    for name in metrics
    if name.startswith(prefix) and name.endswith(f"/{_SPREAD}")
  }
  return sorted(names)


def collapsed(metrics: Mapping[str, float]) -> str | None:
  """Why a contrast counts as collapsed, or None if none does.

  Collapsed is a spread below `SPREAD_FLOOR`, an accuracy no better than
  `CHANCE_FACTOR` times chance, or a number that is not finite. Only to be
  asked after the learning rate's warm-up (and a delayed start of the
  contrast): an encoder fresh from its initial values looks the same.

  Args:
    metrics: one step's, or a mean over some, without the "train/" in front,
      for each contrast: "NAME/accuracy" and "NAME/spread" as fractions,
      "NAME/chance" as 1 / keys of the batch. What is missing is not judged.
  """
  names = contrasts(metrics)
  for name in names:
    own = {
      m: metrics[f"{name}/{m}"] for m in _MEASURES if f"{name}/{m}" in metrics
    }
    if reason := _collapsed(own):
      return reason if len(names) == 1 else f"{name}: {reason}"
  return None


def _collapsed(measures: Mapping[str, float]) -> str | None:
  accuracy, chance = measures.get("accuracy"), measures.get("chance")
  spread = measures.get(_SPREAD)
  for name, value in (("accuracy", accuracy), ("spread", spread)):
    if value is not None and not math.isfinite(value):
      return f"the contrast's {name} is not a finite number ({value})"
  if spread is not None and spread < SPREAD_FLOOR:
    return (
      f"the sentence vectors are nearly all alike: spread {spread:.4f}, below "
      f"{SPREAD_FLOOR}"
    )
  if accuracy is not None and chance is not None:
    if accuracy <= _guessing(chance):
      return (
        "among the batch's own keys the right one is found in "
        f"{100 * accuracy:.1f} % of cases, hardly more than chance "
        f"({100 * chance:.1f} %)"
      )
  return None


def _guessing(chance: float) -> float:
  """Accuracy up to which the contrast counts as guessing.

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
    prefix: in front of the objectives' names.
  """
  notes = _not_finite(rows)
  names = contrasts({name for row in rows for name in row}, prefix)
  if not names:
    return [*notes, "No contrast was trained in this run (or none logged)."]
  for name in names:
    title = "contrast" if len(names) == 1 else f"contrast {name}"
    notes += _notes(rows, warmup_steps, f"{prefix}{name}/", title)
  return notes


def _notes(
  rows: Sequence[Row], warmup_steps: int, prefix: str, title: str
) -> list[str]:
  """Sentences on one contrast, whose metrics begin with `prefix`."""
  judged = [
    row
    for row in rows
    if row["step"] > warmup_steps
    and any(row.get(prefix + name) is not None for name in _MEASURES)
  ]
  if not judged:
    return [
      f"The {title} is not judged: the run ended within the warm-up "
      f"({warmup_steps} steps)."
    ]
  size = max(5, len(judged) // 10)
  end = _window(judged[-size:], prefix)
  notes = []
  if reason := _collapsed(end):
    notes.append(
      f"THE {title.upper()} HAS COLLAPSED: {reason} (mean over the last "
      f"{min(size, len(judged))} logged steps). Do not use these sentence "
      "vectors. What helped at small scale: mean pooling in place of the "
      "first token, L2-normalised vectors, a temperature near .05, the "
      "batch's own keys as negatives, no mixup, unmasked inputs."
    )
  else:
    notes.append(_healthy(end, title))
    bad = [
      judged[start]["step"]
      for start in range(0, len(judged) - size + 1, size)
      if _collapsed(_window(judged[start : start + size], prefix))
    ]
    if bad:
      notes.append(
        f"Earlier, around step {bad[-1]}, the {title} looked collapsed; it "
        "recovered."
      )
  return notes + _age(end)


def _window(rows: Sequence[Row], prefix: str) -> dict[str, float]:
  """Mean of each measure over its points in these rows."""
  means = {}
  for name in _MEASURES:
    values = series(rows, prefix + name)[1]
    if len(values):
      means[name] = float(values.mean())
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


def _healthy(end: Mapping[str, float], title: str) -> str:
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
  return f"The {title} shows no collapse: {detail}."


def _age(end: Mapping[str, float]) -> list[str]:
  new = end.get("queue_similarity_new")
  old = end.get("queue_similarity_old")
  if new is None or old is None or abs(new - old) <= AGE_GAP:
    return []
  return [
    "Queue keys can be told apart by their age: mean similarity "
    f"{new:.2f} to the newest and {old:.2f} to the oldest. Accuracy against "
    "the queue then says little; a shorter queue or a slower key encoder "
    "narrows the gap."
  ]
