"""Pictures of retrieval: a heat map, and curves over layers."""

from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.evaluation.report.figures import (
  BLUE,
  GREEN,
  ORANGE,
  Folder,
  canvas,
)
from infoxlm_jax.evaluation.retrieval import Retrieval


def plot_retrieval(
  end: Retrieval,
  folder: Folder,
  pooling: str,
  start: Retrieval | None = None,
  name: str = "end of training",
) -> Path:
  """retrieval.png: accuracy by layer and language, both directions.

  Args:
    end: of the model.
    folder: where the picture goes.
    pooling: the pooling to show.
    start: of the model at step 0, shown above.
    name: of the model, in the titles; "" shows none.
  """
  path = Path(folder) / "retrieval.png"
  models = [(name, end)]
  if start is not None:
    models.insert(0, ("step 0", start))
  layers, _, languages, _ = end.accuracy.shape
  tables = [
    (_title(direction, name), model, place)
    for name, model in models
    for place, direction in enumerate(model.directions)
  ]
  # Side by side while two tables fit on a page, else one above the other.
  columns = 2 if languages <= 12 else 1
  lines = len(tables) // columns
  width = columns * (0.5 * (languages + 1) + 0.6) + 1.2
  height = lines * (0.34 * layers + 0.8) + 0.6
  title = f"Retrieval accuracy in per cent ({pooling} pooling)"
  with canvas(path, title, max(width, 6.0), height) as figure:
    grid = figure.subplots(lines, columns, squeeze=False)
    for (name, model, place), axes in zip(tables, grid.flat, strict=True):
      table = model.accuracy[:, model.poolings.index(pooling), :, place]
      table = np.concatenate([table, table.mean(1, keepdims=True)], axis=1)
      image = _cells(axes, 100 * table)
      axes.set_xticks(
        range(languages + 1), [*model.languages, "mean"], fontsize=9
      )
      axes.set_yticks(range(layers), ["emb.", *map(str, range(1, layers))])
      axes.set_title(name)
    for axes in grid[:, 0]:
      axes.set_ylabel("layer")
    bar = figure.colorbar(image, ax=grid, shrink=0.9, aspect=30, pad=0.02)
    bar.set_label("accuracy, %")
    bar.outline.set_visible(False)
  return path


def _cells(axes: Any, percent: np.ndarray) -> Any:
  """A heat map with its numbers; the last column, the mean, set apart."""
  image = axes.imshow(percent, cmap="cividis", vmin=0, vmax=100, aspect="auto")
  for (row, column), value in np.ndenumerate(percent):
    axes.text(
      column,
      row,
      f"{value:.0f}" if value >= 9.95 else f"{value:.1f}",
      ha="center",
      va="center",
      fontsize=8,
      color="black" if value > 48 else "white",
      fontweight="bold" if column == percent.shape[1] - 1 else "normal",
    )
  for row in range(1, percent.shape[0]):
    axes.axhline(row - 0.5, color="white", linewidth=0.6)
  axes.axvline(percent.shape[1] - 1.5, color="white", linewidth=3)
  axes.grid(False)
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)
  return image


def _title(direction: str, name: str) -> str:
  arrow = direction.replace("_to_", " → ")
  return f"{arrow}, {name}" if name else arrow


def plot_layers(retrieval: Retrieval, folder: Folder) -> Path:
  """layers.png: mean accuracy by layer, a curve for each pooling.

  Args:
    retrieval: measured at all layers.
    folder: where the picture goes.
  """
  path = Path(folder) / "layers.png"
  mean = 100 * retrieval.mean()
  layers = range(len(mean))
  title = "Retrieval by layer, mean over the languages"
  looks = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"))
  with canvas(path, title, 8.6, 3.9) as figure:
    grid = figure.subplots(1, 2, sharey=True)
    for place, axes in enumerate(grid):
      for number, pooling in enumerate(retrieval.poolings):
        color, marker = looks[number % len(looks)]
        axes.plot(
          layers,
          mean[:, number, place],
          color=color,
          marker=marker,
          markersize=4,
          label=pooling,
        )
      axes.set_title(_title(retrieval.directions[place], ""))
      axes.set_xlabel("layer (0: embedding output)")
      axes.set_ylim(-3, 103)
    grid[0].set_ylabel("accuracy, %")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
  return path
