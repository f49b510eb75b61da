"""Formats retrieval as tables, from results.json's numbers alone.

A finished run can thus show its tables again without its model. An `At` is what
`Retrieval.at` returns, a `ByLayer` what `Retrieval.by_layer` returns; rates
are fractions and are shown in per cent.
"""

from collections.abc import Mapping, Sequence
from typing import Any

At = Mapping[str, Any]
ByLayer = Mapping[str, Mapping[str, list[float]]]

_LANGUAGES_A_LINE = 12


def directions(result: At) -> list[str]:
  """The keys of an `at()` dict that are directions: en_to_xx, xx_to_en."""
  return [key for key in result if "_to_" in key]


def arrow(direction: str) -> str:
  """Turns en_to_xx into en -> xx."""
  return direction.replace("_to_", " -> ")


def _models(end: Any, start: Any | None) -> list[tuple[str, Any]]:
  now = [("end", end)]
  return now if start is None else [("step 0", start), *now]


def grid(rows: Sequence[Sequence[str]]) -> str:
  """Lines with aligned columns, the first to the left, the rest right."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for row in rows:
    first = row[0].ljust(widths[0])
    rest = [
      cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)
    ]
    lines.append("  ".join([first, *rest]).rstrip())
  lines.insert(1, "-" * max(map(len, lines)))
  return "\n".join(lines)


def percent(value: float | None) -> str:
  """Turns .4321 into 43.2, and None into a dash."""
  return "-" if value is None else f"{100 * value:.1f}"


def chosen(result: At) -> str:
  """Where an `at()` dict was read: "layer 2, mean"."""
  return f"layer {result['layer']}, {result['pooling']}"


def chance(result: At) -> float:
  """Mean over languages of 1 / number of candidate sentences."""
  counts = result["sentences"].values()
  return sum(1 / count for count in counts) / max(len(counts), 1)


def format_table(end: At, start: At | None = None) -> str:
  """Retrieval as text: languages as columns, per cent.

  Args:
    end: `Retrieval.at(...)` of the trained model.
    start: the same at step 0, shown above it where it is given.
  """
  languages = list(end["sentences"])
  models = _models(end, start)
  blocks = []
  for first in range(0, max(len(languages), 1), _LANGUAGES_A_LINE):
    here = languages[first : first + _LANGUAGES_A_LINE]
    mean_too = first == 0
    rows = [["retrieval, %", *["mean"] * mean_too, *here]]
    for direction in directions(end):
      for name, result in models:
        numbers = result[direction]
        rows.append(
          [f"{arrow(direction)}  {name}"]
          + [percent(numbers["mean"])] * mean_too
          + [percent(numbers["by_language"].get(code)) for code in here]
        )
    counts = [str(end["sentences"][code]) for code in here]
    rows.append(["sentences", *[""] * mean_too, *counts])
    blocks.append(grid(rows))
  where = "; ".join(f"{name}: {chosen(result)}" for name, result in models)
  tail = f"Read at {where}. Chance is {100 * chance(end):.2g} %."
  return "\n\n".join(blocks) + "\n" + tail


def format_by_layer(end: ByLayer, start: ByLayer | None = None) -> str:
  """Mean retrieval of every layer as text, a block a pooling, per cent.

  Args:
    end: `Retrieval.by_layer()` of the trained model.
    start: the same at step 0.
  """
  blocks = []
  for pooling in end:
    only = None if start is None else {pooling: start[pooling]}
    blocks.append(grid(layer_rows({pooling: end[pooling]}, only)))
  return "\n\n".join(blocks)


def layer_rows(end: ByLayer, start: ByLayer | None) -> list[list[str]]:
  """Head and rows of a table: layers down, pooling and direction across."""
  columns: list[tuple[str, list[float]]] = []
  for pooling, by_direction in end.items():
    for direction in by_direction:
      for name, model in _models(end, start):
        head = f"{pooling} {arrow(direction)} {name}"
        columns.append((head, model[pooling][direction]))
  layers = len(columns[0][1]) if columns else 0
  rows = [["layer"] + [head for head, _ in columns]]
  for layer in range(layers):
    label = "0 (embeddings)" if layer == 0 else str(layer)
    rows.append([label] + [percent(values[layer]) for _, values in columns])
  return rows


def language_rows(end: At, start: At | None) -> list[list[str]]:
  """Head and rows of a table: languages down, direction and model across."""
  columns = [
    (f"{arrow(direction)}, {name}", result[direction])
    for direction in directions(end)
    for name, result in _models(end, start)
  ]
  rows = [["language"] + [head for head, _ in columns] + ["sentences"]]
  for language, count in end["sentences"].items():
    cells = [percent(c["by_language"].get(language)) for _, c in columns]
    rows.append([language, *cells, str(count)])
  means = [f"**{percent(numbers['mean'])}**" for _, numbers in columns]
  return rows + [["**mean**", *means, ""]]
