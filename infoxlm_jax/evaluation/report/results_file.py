"""results.json, and the text of report.md and report.html.

The results are one dict, from which the report is made:

    {"retrieval": {"dev": R, "test": R, "test_step_0": R,
                   "by_layer": L, "by_layer_step_0": L},
     "perplexity": {"mlm": {"en": 9.1, "mean": 12.3}},
     "steps": 2000, "tokens": 10700000, "seconds": 421.5, "parameters": ...,
     "seed": 0, "data_hash": "...", ...}

R is `Retrieval.at(...)`, L is `Retrieval.by_layer()`. All of it is optional.
Rates are fractions from 0 to 1; the report shows them in per cent. The last
field of the file, "crc", is its checksum (runtime/json_crc.py).
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.report import report_files, tables
from infoxlm_jax.runtime.files import write_atomically
from infoxlm_jax.runtime.json_crc import read_checked, with_crc
from infoxlm_jax.runtime.progress import duration
from infoxlm_jax.runtime.run_layout import RESULTS

# What was run, in the order of the report: key of the results, its words.
_FACTS = (
  ("steps", "steps"),
  ("tokens", "tokens seen"),
  ("seconds", "time"),
  ("tokens_per_second", "tokens per second"),
  ("parameters", "parameters"),
  ("seed", "seed"),
  ("data_hash", "data (hash)"),
  ("tokenizer_hash", "tokenizer (hash)"),
  ("device", "device"),
  ("version", "version"),
)

# Captions of the figures that this project draws, by file name.
_CAPTIONS = {
  "losses": "The loss and its parts over training.",
  "contrast_health": "What shows a collapse of the contrast: accuracy among "
  "the batch's own keys (collapsed vectors may pass the other one, against the "
  "queue, which the released code has), spread of the vectors (0: all alike), "
  "and similarity of the queries to queue keys by age.",
  "perplexity": "Perplexity of the masked tokens of held-out text by language. "
  "Languages compare only roughly: a tokenizer cuts some into more pieces.",
  "dev_retrieval": "Retrieval on dev by layer at every evaluation, mean over "
  "languages and directions.",
  "retrieval": "Retrieval accuracy by layer and language.",
  "layers": "Retrieval accuracy by layer, mean over the languages.",
  "similarity": "Cosines of translations and of other pairs. The number in "
  "the title: how often a translation is nearer than another pair (50 % is "
  "no knowledge).",
  "sentences": "Sentences in two principal components. Islands of one colour: "
  "the vectors tell languages apart. Mixed colours and short lines: they tell "
  "meanings apart.",
}


def _caption(stem: str) -> str:
  """Of a figure by its file's name, which may end in an objective's."""
  known = [name for name in _CAPTIONS if f"{stem}_".startswith(f"{name}_")]
  if not known:
    return stem.replace("_", " ")
  about = stem[len(known[0]) :].replace("_", " ").strip()
  return f"{about}: {_CAPTIONS[known[0]]}" if about else _CAPTIONS[known[0]]


def _finite(value: Any) -> Any:
  """The same tree, for JSON: keys as text, NaN and infinity as None."""
  if isinstance(value, Mapping):
    return {str(key): _finite(inner) for key, inner in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(inner) for inner in value]
  if hasattr(value, "tolist"):  # a numpy or jax array or scalar
    return _finite(value.tolist())
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def write_results(
  folder: str | os.PathLike[str], results: Mapping[str, Any]
) -> Path:
  """Writes results.json, whole or not at all.

  Raises:
    StorageError: it could not be written.
  """
  path = Path(folder) / RESULTS
  text = json.dumps(with_crc(_finite(results)), indent=2, allow_nan=False)
  write_atomically(path, text + "\n")
  return path


def read_results(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
  """results.json of a run folder; None where there is none.

  Raises:
    InputError: the file is damaged.
  """
  path = Path(folder) / RESULTS
  if not os.path.exists(path):
    return None
  try:
    return read_checked(path)
  except InputError as error:
    raise InputError(
      f"{path}: not the results of a run ({error}). Move it away, and run "
      "the job again to have it written anew."
    ) from error


def markdown(rows: Iterable[Sequence[str]]) -> list[str]:
  """The lines of a table whose first row is its head."""
  rows = list(rows)
  rule = [":--"] + ["--:"] * (len(rows[0]) - 1)
  return ["| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]]]


def _fact(key: str, value: Any) -> str:
  if key == "seconds":
    return f"{duration(value)} ({value:.0f} s)"
  if isinstance(value, bool | str):
    return str(value)
  if isinstance(value, int):
    return f"{value:,}"
  if isinstance(value, float):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
  return str(value)


def _what_was_run(results: Mapping[str, Any]) -> list[str]:
  known = dict(_FACTS)
  order = [key for key in known if results.get(key) is not None]
  order += [
    key
    for key, value in results.items()
    if key not in known
    and not isinstance(value, bool)
    and isinstance(value, int | float | str)
  ]
  rows = [
    [known.get(key, key.replace("_", " ")), _fact(key, results[key])]
    for key in order
  ]
  return markdown([["what", "value"], *rows]) if rows else []


def _retrieval(retrieval: Mapping[str, Any]) -> list[str]:
  lines: list[str] = []
  test = retrieval.get("test")
  if test:
    lines += ["## Retrieval on test", ""]
    lines += markdown(tables.language_rows(test, retrieval.get("test_step_0")))
    lines += [
      "",
      f"Per cent, read at {tables.chosen(test)}; chosen on dev.",
      "",
    ]
  if retrieval.get("dev"):
    dev = retrieval["dev"]
    lines += ["## Retrieval on dev", ""]
    lines += markdown(tables.language_rows(dev, retrieval.get("dev_step_0")))
    lines += ["", f"Per cent, read at {tables.chosen(dev)}.", ""]
  if retrieval.get("by_layer"):
    start = retrieval.get("by_layer_step_0")
    lines += ["## Retrieval by layer", ""]
    lines += markdown(tables.layer_rows(retrieval["by_layer"], start))
    lines += ["", "Per cent, mean over the languages.", ""]
  if test:
    lines += ["## How to read the numbers", "", *_reading(test), ""]
  return lines


def _reading(test: Mapping[str, Any]) -> list[str]:
  counts = sorted(set(test["sentences"].values()))
  number = f"{counts[0]:,}"
  if len(counts) > 1:
    number += f" to {counts[-1]:,}"
  pivot = tables.directions(test)[0].split("_to_")[0]
  return [
    f"- {pivot} -> xx: for each {pivot} sentence, is the nearest (cosine) of "
    f"the {number} sentences of the other language its translation? "
    f"xx -> {pivot}: the other way round.",
    f"- Chance is 1 in {number}: {100 * tables.chance(test):.2f} %. An encoder "
    "with random weights is above that (it sees the pieces that two languages "
    "share), so compare with step 0, not with chance.",
    "- A tie with a wrong sentence counts as wrong: vectors that are all "
    "alike score 0.",
    "- In brackets, for less than 1,000 sentences: the 95 % interval (Wilson). "
    "Numbers whose intervals overlap may differ by chance.",
    "- Means over languages are plain means. Layer 0 is the embedding output.",
  ]


def write_report(
  folder: str | os.PathLike[str],
  results: Mapping[str, Any],
  figures: Sequence[str | os.PathLike[str] | None] = (),
  notes: Sequence[str] = (),
  title: str = "Report of a run",
  sections: Sequence[str] | None = None,
) -> Path:
  """Writes report.md and report.html; returns the path of the former.

  Args:
    folder: the run's folder.
    results: the dict that the module describes.
    figures: pictures in the order to show, None for one that was not drawn;
      their paths become relative to the folder.
    notes: plain sentences on the run's health, shown first.
    title: the report's heading.
    sections: lines to show in place of a training run's retrieval.

  Raises:
    StorageError: it could not be written.
  """
  folder = Path(folder)
  results = _finite(results)
  lines = [f"# {title}", ""]
  if notes:
    lines += ["## Health", "", *(f"- {note}" for note in notes), ""]
  facts = _what_was_run(results)
  if facts:
    lines += ["## What was run", "", *facts, ""]
  if sections is None:
    sections = _retrieval(results.get("retrieval", {}))
  lines += sections
  shown = [Path(figure) for figure in figures if figure is not None]
  if shown:
    lines += ["## Figures", ""]
  for figure in shown:
    link = Path(os.path.relpath(figure, folder)).as_posix()
    caption = _caption(figure.stem)
    lines += [f"![{figure.stem}]({link})", "", caption, ""]
  return report_files.write(folder, "\n".join(lines).rstrip() + "\n")
