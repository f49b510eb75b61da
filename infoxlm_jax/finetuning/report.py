"""The results of a fine-tuning job: means over its seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.evaluation.report import report_files, results_file
from infoxlm_jax.finetuning import choice, figures, tables
from infoxlm_jax.finetuning.task import Task
from infoxlm_jax.runtime.files import write_atomically

Results = Mapping[str, Any]
Table = dict[str, dict[str, float]]  # {measure: {language: value}}


def dev_mean(results: Results, task: Task) -> float:
  """Mean over dev of a run's chosen model."""
  dev = results[task.name][choice.ONE_MODEL]["dev"]
  return float(dev[task.metric]["mean"])


def write(
  folder: Path,
  task: Task,
  rate: float,
  tried: Mapping[float, Results],
  runs: Mapping[int, Results],
) -> None:
  """Writes results.json, results.csv, report.md and figures of a job.

  Args:
    folder: of the job.
    task: that was trained.
    rate: the chosen learning rate.
    tried: results of the first seed, by rate.
    runs: results of all seeds with `rate`, by seed.

  Raises:
    StorageError: a file cannot be written.
  """
  results = summary(task, rate, tried, runs)
  results_file.write_results(folder, results)
  write_atomically(folder / "results.csv", tables.csv_of(task, results))
  pictures = figures.draw(folder / "figures", task, results)
  report = tables.report(task, results, pictures)
  report_files.write(folder, report)
  print("\n" + tables.main_table(task, results))
  print(f"Report: {folder / report_files.REPORT_FILE}")


def summary(
  task: Task,
  rate: float,
  tried: Mapping[float, Results],
  runs: Mapping[int, Results],
) -> dict[str, Any]:
  """results.json: means over seeds, and their standard deviations.

  results[task.name] holds, of the models chosen by mean dev (#M=1),

      test, dev, crossed         {measure: {language or "mean": fraction}}
      test_std, dev_std, ...     the same, standard deviations (n - 1)

  and under "model_per_language" (#M=N) the same.
  """
  of_runs = [run[task.name] for run in runs.values()]
  each = of_runs[0].get(choice.MODEL_EACH)
  main = _means([run[choice.ONE_MODEL] for run in of_runs])
  if "crossed" in of_runs[0]:
    main |= _means([{"crossed": run["crossed"]} for run in of_runs])
  if each:
    main[choice.MODEL_EACH] = _means(
      [run[choice.MODEL_EACH] for run in of_runs]
    )
  first = next(iter(runs.values()))
  return {
    "finished": True,
    "task": task.name,
    "data": task.source,
    "classes": list(task.classes),
    "rate": rate,
    "dev_by_rate": {f"{r:g}": dev_mean(run, task) for r, run in tried.items()},
    "seeds": list(runs),
    "updates": first["steps"],
    "seconds": [run["seconds"] for run in runs.values()],
    "chosen_steps": [run[choice.ONE_MODEL]["step"] for run in of_runs],
    **task.facts,
    task.name: main,
  }


def _means(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  out: dict[str, Any] = {}
  for split in ("test", "dev", "crossed"):
    if split in runs[0]:
      out[split] = _over([run[split] for run in runs], np.mean)
      out[f"{split}_std"] = _over([run[split] for run in runs], _deviation)
  return out


def _over(runs: Sequence[Table], function: Any) -> Table:
  return {
    name: {
      language: float(function([run[name][language] for run in runs]))
      for language in values
    }
    for name, values in runs[0].items()
  }


def _deviation(values: Sequence[float]) -> float:
  """Standard deviation of a sample; 0 of a single value."""
  return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
