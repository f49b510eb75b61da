"""Writes the results of a retrieval job: results.json, report.md, CSV, figures.

The results are {"retrieval": {"test": R, "dev": R, "by_layer": L, ...}, ...},
R and L as `results_file` describes them. R has "ties" besides.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.evaluation.layer_retrieval import Measured
from infoxlm_jax.evaluation.report import (
  report_files,
  results_file,
  retrieval_figures,
  tables,
)
from infoxlm_jax.evaluation.report.tables import At, ByLayer
from infoxlm_jax.runtime.files import write_atomically

# Published figures in per cent: {direction: {language: ..., "mean": ...}}.
Published = Mapping[str, Mapping[str, float]]

LANGUAGES_FILE = "retrieval.csv"
LAYERS_FILE = "retrieval_by_layer.csv"


def at(measured: Measured, layer: int, pooling: str) -> dict[str, Any]:
  """`Retrieval.at`, and how many queries tie: {direction: {language: n}}."""
  retrieval = measured.retrieval
  ties = measured.ties[layer, retrieval.poolings.index(pooling)]
  return retrieval.at(layer, pooling) | {
    "ties": {
      direction: {
        language: int(ties[number, place])
        for number, language in enumerate(retrieval.languages)
      }
      for place, direction in enumerate(retrieval.directions)
    }
  }


def group_means(
  result: At, groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
  """Means over groups of languages.

  Args:
    result: of `at`.
    groups: languages by the group's name.

  Returns:
    {group: {direction: mean}}, or {group: {"missing": [language, ...]}} where
    a language of the group was not measured.
  """
  means: dict[str, Any] = {}
  for name, languages in groups.items():
    missing = [x for x in languages if x not in result["sentences"]]
    means[name] = {"missing": missing}
    if not missing:
      means[name] = {
        direction: float(
          np.mean([result[direction]["by_language"][x] for x in languages])
        )
        for direction in tables.directions(result)
      }
  return means


def write(
  folder: Path,
  results: Mapping[str, Any],
  measured: Measured,
  *,
  title: str,
  header: Sequence[str],
  published: Published | None = None,
) -> None:
  """Writes all files of a retrieval job and prints its table.

  Args:
    folder: where they go.
    results: as the module describes them, with facts of the job.
    measured: of the test sets, for the figures.
    title: of the report.
    header: sentences that say how it was measured.
    published: figures of the paper, shown beside those measured here.

  Raises:
    StorageError: a file could not be written.
  """
  test = results["retrieval"]["test"]
  by_layer = results["retrieval"].get("by_layer")
  pictures: list[Path | None] = []
  if by_layer:
    pictures = [
      retrieval_figures.plot_layers(measured.retrieval, folder / "figures"),
      retrieval_figures.plot_retrieval(
        measured.retrieval, folder / "figures", test["pooling"], name=""
      ),
    ]
    write_atomically(folder / LAYERS_FILE, _csv(_layer_rows(by_layer)))
  write_atomically(folder / LANGUAGES_FILE, _csv(_language_rows(test)))
  results_file.write_results(folder, results)
  results_file.write_report(
    folder,
    {k: v for k, v in results.items() if k != "retrieval"},
    pictures,
    title=title,
    sections=_sections(results["retrieval"], header, published),
  )
  rows = _shown(_language_rows(test, results["retrieval"].get("groups")))
  print(f"\n{tables.grid(rows)}\n")
  print(f"Per cent. Report: {folder / report_files.REPORT_FILE}")


def _sections(
  retrieval: Mapping[str, Any],
  header: Sequence[str],
  published: Published | None,
) -> list[str]:
  """Lines of the report."""
  test, groups = retrieval["test"], retrieval.get("groups")
  lines = ["## How it was measured", "", *(f"- {line}" for line in header)]
  lines += [
    "- Accuracy: for each sentence, is its translation the best of all"
    " sentences of the other language? A tie with another sentence counts as"
    f" wrong: {_ties(test)}. An argmax counts a tie as right where the"
    " translation has the lowest index.",
    f"- Chance is {100 * tables.chance(test):.2g} %.",
    "",
    "## Retrieval on test",
    "",
  ]
  rows = _shown(_language_rows(test, groups))
  lines += results_file.markdown(_bold_means(_beside(rows, test, published)))
  lines += ["", "Per cent. Means over languages are plain means.", ""]
  if published:
    lines += [
      "The columns marked `paper` are not measured here: they are InfoXLM"
      " base in Table 2 of the paper (layer 7, mean over all tokens with `<s>`"
      " and `</s>`, cosine).",
      "",
    ]
  for name, means in (groups or {}).items():
    if "missing" in means:
      missing = ", ".join(means["missing"])
      lines += [f"No mean of {name}: {missing} were not measured.", ""]
  if "dev" in retrieval:
    dev = _shown(_language_rows(retrieval["dev"]))
    lines += ["## Retrieval on dev", "", *results_file.markdown(dev), ""]
  if retrieval.get("by_layer"):
    by_layer = _shown(_layer_rows(retrieval["by_layer"]))
    lines += ["## Retrieval on test by layer", ""]
    lines += [*results_file.markdown(by_layer), ""]
    lines += ["Per cent, mean over the languages.", ""]
  return lines


def _ties(result: At) -> str:
  counts = {
    tables.arrow(direction): sum(by_language.values())
    for direction, by_language in result["ties"].items()
  }
  return ", ".join(f"{count} {name}" for name, count in counts.items())


Cells = list[list[Any]]  # text, counts, and fractions


def _language_rows(
  result: At, groups: Mapping[str, Any] | None = None
) -> Cells:
  """Head and rows: languages down, directions across, then the means."""
  directions = tables.directions(result)
  rows: Cells = [["language", *directions, "sentences"]]
  for language, count in result["sentences"].items():
    numbers = [result[x]["by_language"][language] for x in directions]
    rows.append([language, *numbers, count])
  rows.append(["mean", *(result[x]["mean"] for x in directions), ""])
  for name, means in (groups or {}).items():
    if "missing" not in means:
      rows.append([f"mean of {name}", *(means[x] for x in directions), ""])
  return rows


def _layer_rows(by_layer: ByLayer) -> Cells:
  """Head and rows: layers down, pooling and direction across."""
  columns = [
    (f"{pooling} {direction}", values)
    for pooling, by_direction in by_layer.items()
    for direction, values in by_direction.items()
  ]
  rows: Cells = [["layer", *(name for name, _ in columns)]]
  for layer in range(len(columns[0][1])):
    rows.append([str(layer), *(values[layer] for _, values in columns)])
  return rows


def _shown(cells: Cells) -> list[list[str]]:
  """The same for people: arrows, and fractions in per cent."""

  def text(cell: Any) -> str:
    if isinstance(cell, float):
      return tables.percent(cell)
    return tables.arrow(str(cell)) if "_to_" in str(cell) else str(cell)

  return [[text(cell) for cell in row] for row in cells]


def _csv(cells: Cells) -> str:
  out = io.StringIO()
  csv.writer(out, lineterminator="\n").writerows(cells)
  return out.getvalue()


def _beside(
  rows: list[list[str]], result: At, published: Published | None
) -> list[list[str]]:
  """The rows with the published figures as further columns."""
  if not published:
    return rows
  directions = tables.directions(result)
  more = [[f"{tables.arrow(x)} (paper)" for x in directions]]
  for name, *_ in rows[1:]:
    key = {"mean": "", "mean of paper_14": "mean"}.get(name, name)
    numbers = [published[x].get(key) for x in directions]
    more.append(["" if n is None else f"{n:.1f}" for n in numbers])
  return [[*row, *extra] for row, extra in zip(rows, more, strict=True)]


def _bold_means(rows: list[list[str]]) -> list[list[str]]:
  return [
    [f"**{cell}**" if cell else "" for cell in row]
    if row[0].startswith("mean")
    else row
    for row in rows
  ]
