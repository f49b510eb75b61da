"""Reports a finished run: tables, results.json, report.md, figures."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation import collapse, similarity
from infoxlm_jax.evaluation.report import (
  curves,
  figures,
  held_out_curves,
  results_file,
  retrieval_figures,
  tables,
)
from infoxlm_jax.evaluation.retrieval import Retrieval
from infoxlm_jax.evaluation.retrieval_eval import POOLINGS, Scored
from infoxlm_jax.runtime import distributed, read_files
from infoxlm_jax.runtime.files import set_aside, write_atomically
from infoxlm_jax.runtime.metrics import read_metrics
from infoxlm_jax.runtime.run_layout import RESULTS

Scores = Mapping[str, Scored]  # by split
_START_FILE = "start.json"
Figures = list[Path | None]


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
  print(f"Report: {folder / results_file.REPORT_FILE}")
  return True


def keep_start(folder: Path, start: Scores) -> None:
  """Writes start.json: retrieval before the first update."""
  kept = {
    split: dataclasses.asdict(scored.retrieval)
    | {"accuracy": scored.retrieval.accuracy.tolist()}
    for split, scored in start.items()
  }
  write_atomically(folder / _START_FILE, json.dumps(kept) + "\n")


def read_start(folder: Path) -> dict[str, Scored]:
  """Reads start.json: scores without vectors; {} if there is no such file.

  A damaged file is as none, which one line says: it decides only whether the
  report compares with the start, and the run may have trained for weeks.
  """
  path = folder / _START_FILE
  if not path.exists():
    return {}
  try:
    kept = read_files.read_object(path)
    return {split: _start(fields, path) for split, fields in kept.items()}
  except InputError as error:
    print(f"The report does not compare with the first update: {error}")
    return {}


def _start(fields: Any, path: Path) -> Scored:
  """Scores of a split in start.json; InputError if they are damaged."""
  needs = {
    "accuracy": list,
    "languages": list,
    "poolings": list,
    "counts": dict,
    "pivot": str,
  }
  fields = read_files.check_object(fields, path, needs)
  try:
    accuracy = np.array(fields["accuracy"], np.float64)
  except (ValueError, TypeError):  # rows of unequal lengths, or texts
    accuracy = np.zeros(0)
  languages, poolings = fields["languages"], fields["poolings"]
  expected = (len(poolings), len(languages), 2)
  if accuracy.ndim != 4 or accuracy.shape[1:] != expected:
    raise InputError(f"{path} is damaged: its accuracy is no table of numbers.")
  if set(map(str, languages)) != set(fields["counts"]):
    raise InputError(f"{path} is damaged: it counts other languages.")
  return Scored(
    vectors={},
    rows={},
    retrieval=Retrieval(
      accuracy=accuracy,
      languages=tuple(languages),
      poolings=tuple(poolings),
      counts=fields["counts"],
      pivot=fields["pivot"],
    ),
  )


def write(
  folder: Path, facts: Mapping[str, Any], start: Scores, end: Scores
) -> None:
  """Writes report.md, results.json and the pictures; process 0 alone does.

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


def _write(
  folder: Path, facts: Mapping[str, Any], start: Scores, end: Scores
) -> None:
  rows = read_metrics(folder)
  notes = collapse.health_notes(rows)
  start = _comparable(start, end)
  results = dict(facts) | {"finished": True, "health": notes}
  pictures: Figures = [curves.plot_losses(rows, folder / "figures")]
  names = collapse.contrasts((name for row in rows for name in row), "train/")
  for name in names if len(names) > 1 else (None,):
    pictures.append(curves.plot_contrast_health(rows, folder / "figures", name))
  pictures.append(held_out_curves.plot_perplexity(rows, folder / "figures"))
  pictures.append(
    held_out_curves.plot_layers_over_steps(rows, folder / "figures")
  )
  if "dev" in end:
    results["retrieval"] = _retrieval(start, end)
    pictures += _retrieval_figures(start, end, folder / "figures")
  results_file.write_results(folder, results)
  results_file.write_report(
    folder, results, pictures, notes, f"Report of {folder.name}"
  )
  if text := _tables(results):
    print(text)
  for note in notes:
    print(f"- {note}")
  print(f"Report: {folder / results_file.REPORT_FILE}")


def _comparable(start: Scores, end: Scores) -> Scores:
  """The scores at the start, if they are of the same sets as those at the end.

  They are of others where start.json is damaged.
  """

  def described(split: str, scores: Scores) -> Any:
    if split not in scores:
      return None
    x = scores[split].retrieval
    return x.pivot, x.languages, x.poolings, x.accuracy.shape, dict(x.counts)

  if not start or all(
    described(split, start) == described(split, end) for split in end
  ):
    return start
  print(
    "The report does not compare with the first update, which was measured on"
    " other retrieval sets."
  )
  return {}


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


def _retrieval_figures(start: Scores, end: Scores, folder: Path) -> Figures:
  layer, pooling = end["dev"].retrieval.choose()
  place = POOLINGS.index(pooling)
  split = "test" if "test" in end else "dev"
  now, before = end[split], start.get(split)
  drawn = before if before and before.vectors else None

  def close(scored: Scored) -> similarity.Similarity:
    return similarity.similarities(scored.vectors, scored.rows, layer, place)

  def points(scored: Scored) -> Any:
    return (scored.vectors, scored.rows, layer, place)

  return [
    retrieval_figures.plot_retrieval(
      now.retrieval, folder, pooling, before.retrieval if before else None
    ),
    figures.plot_similarity(
      close(now), folder, close(drawn) if drawn else None
    ),
    figures.plot_sentences(
      points(now), folder, points(drawn) if drawn else None
    ),
  ]
