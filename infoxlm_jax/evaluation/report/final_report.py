"""Reports a finished run: tables, results.json, the report, the figures."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation import collapse
from infoxlm_jax.evaluation.report import (
  report_files,
  results_file,
  run_figures,
  tables,
)
from infoxlm_jax.evaluation.report.start_scores import Scores, comparable
from infoxlm_jax.runtime import distributed
from infoxlm_jax.runtime.files import set_aside
from infoxlm_jax.runtime.metrics import read_metrics
from infoxlm_jax.runtime.run_layout import RESULTS


def say_if_finished(folder: Path, steps: int) -> bool:
  """Whether a run has done its steps; if so, prints its tables.

  A damaged results.json is set aside, and the run is as one without: it goes
  on from its last checkpoint and writes the report anew.
  """
  try:
    results = results_file.read_results(folder)
    if not results or not results.get("finished"):
      return False
    if results.get("steps", 0) < steps:
      return False
    text = _tables(results)
  except (InputError, LookupError, TypeError, ValueError, AttributeError):
    if jax.process_index() == 0:
      aside = set_aside(folder / RESULTS)
      logging.warning(
        "%s is damaged, and is kept as %s; the results are measured again",
        folder / RESULTS,
        aside.name,
      )
    return False
  print(f"{folder}: finished after {results['steps']} updates.{text}")
  print(f"Report: {folder / report_files.REPORT_FILE}")
  return True


def write(
  folder: Path, facts: Mapping[str, Any], start: Scores, end: Scores
) -> None:
  """Writes the report, results.json and the pictures; process 0 alone does.

  Layer and pooling are chosen on dev and used on test, at step 0 too.

  Args:
    folder: the run's folder.
    facts: of the run, for results.json: steps, seconds, tokens, ...
    start: scores of the untrained model, by split; {} without retrieval data.
      Scores without vectors (read_start) are left out of pictures of vectors.
    end: scores of the trained model.

  Raises:
    StorageError: in all processes, if process 0 cannot write.
  """
  with distributed.together("writing the report"):
    if jax.process_index() == 0:
      _write(folder, facts, start, end)


def draw(folder: Path, start: Scores, now: Scores, name: str) -> None:
  """Draws the pictures of a run that goes on; see run_figures.draw."""
  start = comparable(start, now)
  rows = read_metrics(folder, skip_damaged=True)
  run_figures.draw(folder, rows, start, now, name)


def _write(
  folder: Path, facts: Mapping[str, Any], start: Scores, end: Scores
) -> None:
  rows = read_metrics(folder)
  notes = collapse.health_notes(rows)
  start = comparable(start, end)
  results = dict(facts) | {"finished": True, "health": notes}
  pictures = run_figures.draw(folder, rows, start, end)
  if "dev" in end:
    results["retrieval"] = _retrieval(start, end)
  results_file.write_results(folder, results)
  results_file.write_report(
    folder, results, pictures, notes, f"Report of {folder.name}"
  )
  if text := _tables(results):
    print(text)
  for note in notes:
    print(f"- {note}")
  print(f"Report: {folder / report_files.REPORT_FILE}")


def _retrieval(start: Scores, end: Scores) -> dict[str, Any]:
  layer, pooling = end["dev"].retrieval.choose()
  retrieval: dict[str, Any] = {
    "dev": end["dev"].retrieval.at(layer, pooling),
    "chosen_on": "dev",
  }
  shown = "test" if "test" in end else "dev"
  retrieval[shown] = end[shown].retrieval.at(layer, pooling)
  retrieval["by_layer"] = end[shown].retrieval.by_layer()
  if "dev" in start:
    # To be fair, the untrained model is read at its own best layer.
    at_start = start["dev"].retrieval.choose()
    retrieval[f"{shown}_step_0"] = start[shown].retrieval.at(*at_start)
    retrieval["by_layer_step_0"] = start[shown].retrieval.by_layer()
  return retrieval


def _tables(results: Mapping[str, Any]) -> str:
  """The tables of retrieval as text; "" if none was measured."""
  retrieval = results.get("retrieval")
  if not retrieval:
    return ""
  shown = "test" if "test" in retrieval else "dev"
  by_language = tables.format_table(
    retrieval[shown], retrieval.get(f"{shown}_step_0")
  )
  by_layer = tables.format_by_layer(
    retrieval["by_layer"], retrieval.get("by_layer_step_0")
  )
  return f"\nRetrieval on {shown}\n\n{by_language}\n\nBy layer\n\n{by_layer}\n"
