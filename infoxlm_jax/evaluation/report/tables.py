"""Formats retrieval as tables, from results.json's numbers alone.

A finished run can thus show its tables again without its model. An `At` is what
`Retrieval.at` returns, a `ByLayer` what `Retrieval.by_layer` returns; rates
are fractions and are shown in per cent.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

At = Mapping[str, Any]
ByLayer = Mapping[str, Mapping[str, list[float]]]

_LANGUAGES_A_LINE = 10
# Below so many sentences chance moves a rate by more than a point or two.
_SMALL = 1000
_Z = 1.959964  # of 95 % of a normal distribution


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


def interval(rate: float | None, count: int) -> tuple[float, float] | None:
  """Wilson's 95 % interval of a rate among so many sentences.

  Wilson 1927, who solves |p - rate| = z sqrt(p (1 - p) / count) for p: it stays
  between 0 and 1 and is right for rates near them.

  Returns:
    None where there are so many sentences that it is narrow, or no rate.
  """
  if rate is None or not 0 < count < _SMALL:
    return None
  square = _Z * _Z / count
  centre = rate + square / 2
  half = math.sqrt(square * (rate * (1 - rate) + square / 4))
  low, high = (centre - half) / (1 + square), (centre + half) / (1 + square)
  return max(low, 0.0), min(high, 1.0)


def _range(rate: float | None, count: int) -> str:
  """An interval as text, "76-83"; "" where there is none."""
  ends = interval(rate, count)
  return "-".join(f"{100 * end:.0f}" for end in ends) if ends else ""


def _with_range(rate: float | None, count: int) -> str:
  """A rate and its interval as text, "80.0 (76-83)"."""
  ends = _range(rate, count)
  return f"{percent(rate)} ({ends})" if ends else percent(rate)


def chosen(result: At) -> str:
  """Where an `at()` dict was read: "layer 2, mean"."""
  return f"layer {result['layer']}, {result['pooling']}"


def chance(result: At) -> float:
  """Mean over languages of 1 / number of candidate sentences."""
  counts = result["sentences"].values()
  return sum(1 / count for count in counts) / max(len(counts), 1)


def format_table(end: At, start: At | None = None) -> str:
  """Retrieval as text: languages as columns, per cent.

  Small sets have a row of 95 % intervals. That of the mean is Wilson's for the
  smallest set: languages often have the same sentences, so more of them say
  little more.

  Args:
    end: `Retrieval.at(...)` of the trained model.
    start: the same at step 0, shown above it where it is given.
  """
  languages = list(end["sentences"])
  models = _models(end, start)
  fewest = min(end["sentences"].values(), default=0)
  blocks = []
  for first in range(0, max(len(languages), 1), _LANGUAGES_A_LINE):
    here = languages[first : first + _LANGUAGES_A_LINE]
    mean_too = first == 0
    rows = [["retrieval, %", *["mean"] * mean_too, *here]]
    for direction in directions(end):
      for name, result in models:
        numbers = result[direction]
        rates = [numbers["mean"]] * mean_too
        rates += [numbers["by_language"].get(code) for code in here]
        title = f"{arrow(direction)}  {name}"
        rows.append([title, *map(percent, rates)])
        of = [fewest] * mean_too + [end["sentences"][code] for code in here]
        ranges = [_range(*cell) for cell in zip(rates, of, strict=True)]
        if name == "end" and any(ranges):
          rows.append(["  95 % interval", *ranges])
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
  """Head and rows of a table: languages down, direction and model across.

  Rates of small sets stand with their 95 % intervals.
  """
  columns = [
    (f"{arrow(direction)}, {name}", result[direction])
    for direction in directions(end)
    for name, result in _models(end, start)
  ]
  rows = [["language"] + [head for head, _ in columns] + ["sentences"]]
  for language, count in end["sentences"].items():
    cells = [
      _with_range(c["by_language"].get(language), count) for _, c in columns
    ]
    rows.append([language, *cells, str(count)])
  means = [f"**{percent(numbers['mean'])}**" for _, numbers in columns]
  return rows + [["**mean**", *means, ""]]
