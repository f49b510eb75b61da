"""Which evaluation counts: models are chosen by dev, never by test.

The paper's table has two rules (Conneau et al. 2020, table 1):

    #M=1   one model for all languages, the best by mean dev
    #M=N   a model for each language, the best by that language's dev

Of equal dev scores the later update counts, as checkpoints are kept.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infoxlm_jax.evaluation.report import results_file
from infoxlm_jax.finetuning.task import Task
from infoxlm_jax.runtime.metrics import Row, read_metrics

ONE_MODEL, MODEL_EACH = "one_model", "model_per_language"


def best_so_far(rows: Sequence[Row], metric: str) -> dict[str, float]:
  """The highest dev score of each language, and of "mean"."""
  best: dict[str, float] = {}
  for row in rows:
    for language, value in _of(row, "dev", metric).items():
      if row["step"] > 0 and value > best.get(language, -1.0):
        best[language] = value
  return best


def best_step(rows: Sequence[Row], metric: str, language: str) -> int | None:
  """The update with the highest dev score of a language or of "mean"."""
  best, step = -1.0, None
  for row in rows:
    value = row.get(f"dev/{metric}/{language}")
    if value is not None and row["step"] > 0 and value >= best:
      best, step = value, int(row["step"])
  return step


def chosen(rows: Sequence[Row], task: Task) -> dict[str, Any]:
  """The figures of the chosen models.

  Args:
    rows: of metrics.jsonl.
    task: that they measure.

  Returns:
    {rule: {"dev" and "test": {measure: {language or "mean": value}},
    "step": ...}}; MODEL_EACH only where every test language has a dev set.
  """
  by_step = {int(row["step"]): row for row in rows if _measures(row)}
  step = best_step(rows, task.metric, "mean")
  if step is None:
    return {}
  out: dict[str, Any] = {
    ONE_MODEL: {"step": step}
    | {split: _tables(by_step[step], split) for split in ("dev", "test")}
  }
  if task.test and set(task.test) <= set(task.dev):
    out[MODEL_EACH] = _each(rows, by_step, task)
  return out


def _each(
  rows: Sequence[Row], by_step: Mapping[int, Row], task: Task
) -> dict[str, Any]:
  steps: dict[str, int] = {}
  tables: dict[str, dict[str, dict[str, float]]] = {"dev": {}, "test": {}}
  for language in task.test:
    step = best_step(rows, task.metric, language)
    assert step is not None  # there is one for the mean
    steps[language] = step
    for split, table in tables.items():
      for name, values in _tables(by_step[step], split).items():
        table.setdefault(name, {})[language] = values[language]
  for table in tables.values():
    for values in table.values():
      values["mean"] = sum(values.values()) / len(values)
  return {"step": steps, **tables}


def write_results(folder: Path, task: Task, facts: Mapping[str, Any]) -> None:
  """Writes results.json of one run: its facts and the chosen figures.

  Raises:
    StorageError: it cannot be written.
  """
  results = {**facts, **task.facts, "finished": True}
  results[task.name] = chosen(read_metrics(folder), task)
  results_file.write_results(folder, results)


def _of(row: Row, split: str, metric: str) -> dict[str, float]:
  start = f"{split}/{metric}/"
  return {
    name.removeprefix(start): float(value)
    for name, value in row.items()
    if name.startswith(start)
  }


def _measures(row: Row) -> bool:
  return any(name.startswith("dev/") for name in row)


def _tables(row: Row, split: str) -> dict[str, dict[str, float]]:
  """{measure: {language: value}} of an evaluation."""
  out: dict[str, dict[str, float]] = {}
  for name, value in row.items():
    parts = name.split("/")
    if parts[0] == split and len(parts) == 3:
      out.setdefault(parts[1], {})[parts[2]] = float(value)
  return out
