"""Which evaluation counts: models are chosen by dev, never by test.

The paper's table has two rules (Conneau et al. 2020, table 1):

    #M=1   one model for all languages, the best by mean dev
    #M=N   a model for each language, the best by that language's dev

Of equal dev scores the later update counts, as checkpoints are kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from infoxlm_jax.evaluation.report import results_file
from infoxlm_jax.finetuning.task import Task
from infoxlm_jax.runtime.metrics import Row, read_metrics

ONE_MODEL, MODEL_EACH = "one_model", "model_per_language"


class Best(NamedTuple):
  """The highest dev score, and the update that has it."""

  score: float
  step: int


def best(rows: Iterable[Row], metric: str) -> dict[str, Best]:
  """The best evaluation of each language, and of "mean"."""
  out: dict[str, Best] = {}
  for row in rows:
    step = int(row["step"])
    for language, score in _tables(row, "dev").get(metric, {}).items():
      if step > 0 and (language not in out or score >= out[language].score):
        out[language] = Best(score, step)
  return out


def chosen(rows: Sequence[Row], task: Task) -> dict[str, Any]:
  """The figures of the chosen models.

  Args:
    rows: of metrics.jsonl.
    task: that they measure.

  Returns:
    {rule: {"dev" and "test": {measure: {language or "mean": value}},
    "step": ...}}; MODEL_EACH only where every test language has a dev set.
  """
  by_step = {int(row["step"]): row for row in rows if _tables(row, "dev")}
  steps = {k: own.step for k, own in best(rows, task.metric).items()}
  if not steps:
    return {}
  step = steps["mean"]
  out: dict[str, Any] = {
    ONE_MODEL: {"step": step}
    | {split: _tables(by_step[step], split) for split in ("dev", "test")}
  }
  if task.test and set(task.test) <= set(task.dev):
    out[MODEL_EACH] = _each(by_step, {k: steps[k] for k in task.test})
  return out


def _each(
  by_step: Mapping[int, Row], steps: Mapping[str, int]
) -> dict[str, Any]:
  """The figures of each language at its own update."""
  tables: dict[str, dict[str, dict[str, float]]] = {"dev": {}, "test": {}}
  for language, step in steps.items():
    for split, table in tables.items():
      for name, values in _tables(by_step[step], split).items():
        table.setdefault(name, {})[language] = values[language]
  for table in tables.values():
    for values in table.values():
      values["mean"] = sum(values.values()) / len(values)
  return {"step": dict(steps), **tables}


def write_results(folder: Path, task: Task, facts: Mapping[str, Any]) -> None:
  """Writes results.json of one run: its facts and the chosen figures.

  Raises:
    StorageError: it cannot be written.
  """
  results = {**facts, **task.facts, "finished": True}
  results[task.name] = chosen(read_metrics(folder), task)
  results_file.write_results(folder, results)


def _tables(row: Row, split: str) -> dict[str, dict[str, float]]:
  """{measure: {language: value}} of an evaluation."""
  out: dict[str, dict[str, float]] = {}
  for name, value in row.items():
    parts = name.split("/")
    if parts[0] == split and len(parts) == 3:
      out.setdefault(parts[1], {})[parts[2]] = float(value)
  return out
