"""Plots what is measured on held-out data while a run trains.

Each function returns the path of its PNG file, or None where there is nothing
to draw.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from infoxlm_jax.evaluation.report.figures import (
  GREY,
  MUTED,
  Folder,
  canvas,
  legend_below,
)
from infoxlm_jax.runtime.metrics import Row, series

_BY_LAYER = "dev/retrieval_by_layer/"
_MARKED = "/perplexity/"


def plot_perplexity(rows: Sequence[Row], folder: Folder) -> Path | None:
  """perplexity.png: of each language over steps, a panel for each objective.

  Args:
    rows: of `metrics.read_metrics`; names "dev/mlm/perplexity/fr", ...
    folder: where the picture goes.
  """
  languages: dict[str, list[str]] = {}
  for name in dict.fromkeys(name for row in rows for name in row):
    objective, mark, language = name.partition(_MARKED)
    if mark and len(series(rows, name)[0]):
      languages.setdefault(objective, []).append(language)
  if not languages:
    return None
  path = Path(folder) / "perplexity.png"
  width = 4.6 * len(languages) + 0.4
  with canvas(path, "Perplexity of held-out text", width, 4.2) as figure:
    panels = figure.subplots(1, len(languages), squeeze=False).flat
    for axes, (objective, own) in zip(panels, languages.items(), strict=True):
      # More lines than colours cannot be told apart: pale, without names.
      many = len(own) - 1 > len(MUTED)
      for number, language in enumerate(x for x in own if x != "mean"):
        label = language
        if many:  # a name that begins with _ is left out of the legend
          label = "_" if number else "a language"
        axes.plot(
          *series(rows, f"{objective}{_MARKED}{language}"),
          color=GREY if many else MUTED[number],
          alpha=0.4 if many else 1.0,
          label=label,
        )
      axes.plot(
        *series(rows, f"{objective}{_MARKED}mean"),
        color="black",
        linestyle="--",
        linewidth=2.0,
        label="geometric mean",
      )
      axes.set_yscale("log")
      axes.set_title(objective.removeprefix("dev/"))
      axes.set_xlabel("step")
      legend_below(axes, 4, 0.14)
    figure.axes[0].set_ylabel("perplexity")
  return path


def plot_layers_over_steps(rows: Sequence[Row], folder: Folder) -> Path | None:
  """dev_retrieval.png: accuracy on dev by layer and step, for each pooling.

  Of fewer than three evaluations it is not drawn: retrieval.png has the start
  and the end.

  Args:
    rows: of `metrics.read_metrics`; names "dev/retrieval_by_layer/mean/7", ...
    folder: where the picture goes.
  """
  tables = {
    pooling: (steps, values)
    for pooling, (steps, values) in _by_layer(rows).items()
    if len(steps) > 2
  }
  if not tables:
    return None
  path = Path(folder) / "dev_retrieval.png"
  top = max(float(np.nanmax(values)) for _, values in tables.values())
  title = "Retrieval on dev by layer, over training"
  with canvas(path, title, 5.0 * len(tables) + 0.8, 4.0) as figure:
    panels = figure.subplots(1, len(tables), squeeze=False).flat
    for axes, (pooling, (steps, values)) in zip(
      panels, tables.items(), strict=True
    ):
      image = axes.imshow(
        100 * values,
        cmap="cividis",
        vmin=0,
        vmax=max(100 * top, 1),
        aspect="auto",
        origin="lower",
      )
      axes.set_title(f"pooling {pooling}")
      shown = np.unique(np.linspace(0, len(steps) - 1, 6).astype(int))
      axes.set_xticks(shown, [f"{steps[place]:,}" for place in shown])
      axes.set_yticks(range(len(values)))
      axes.set_xlabel("step")
      axes.grid(False)
    figure.axes[0].set_ylabel("layer (0: embeddings)")
    figure.colorbar(image, ax=figure.axes, label="per cent, both directions")
  return path


def _by_layer(
  rows: Sequence[Row],
) -> Mapping[str, tuple[list[int], np.ndarray]]:
  """{pooling: (steps, fractions [layers + 1, steps])}; NaN where missing."""
  names = [
    name
    for name in dict.fromkeys(name for row in rows for name in row)
    if name.startswith(_BY_LAYER)
  ]
  points = {name: dict(zip(*series(rows, name), strict=True)) for name in names}
  steps = sorted({int(step) for own in points.values() for step in own})
  layers: dict[str, list[list[float]]] = {}
  for name in names:  # in the order of the layers
    pooling = name.removeprefix(_BY_LAYER).partition("/")[0]
    values = [float(points[name].get(step, np.nan)) for step in steps]
    layers.setdefault(pooling, []).append(values)
  return {pooling: (steps, np.array(own)) for pooling, own in layers.items()}
