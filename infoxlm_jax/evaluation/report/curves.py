"""Plots metrics over steps: losses, and the health of the contrast.

Each function returns the path of its PNG file, or None where there is nothing
to draw: a run without contrast has no contrast health.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.evaluation.collapse import SPREAD_FLOOR, contrasts
from infoxlm_jax.evaluation.report.figures import (
  BLUE,
  GREEN,
  GREY,
  ORANGE,
  PURPLE,
  Folder,
  canvas,
  legend_below,
)
from infoxlm_jax.runtime.metrics import Row, series


def _smooth(values: np.ndarray) -> np.ndarray:
  """Running mean over a twentieth of the points, shorter at both ends."""
  half = len(values) // 40
  total = np.concatenate([[0.0], np.cumsum(values)])
  place = np.arange(len(values))
  first = np.maximum(place - half, 0)
  last = np.minimum(place + half + 1, len(values))
  return (total[last] - total[first]) / (last - first)


def _draw(axes: Any, rows: Sequence[Row], name: str, **look: Any) -> None:
  """One metric: its values pale, its running mean in full colour."""
  steps, values = series(rows, name)
  if not len(steps):
    return
  if len(steps) >= 80:
    axes.plot(steps, values, color=look["color"], alpha=0.22, linewidth=0.7)
    values = _smooth(values)
  look.setdefault("marker", "o" if len(steps) < 20 else "")
  axes.plot(steps, values, markersize=3.5, **look)


def _names(rows: Sequence[Row], prefix: str) -> list[str]:
  names = dict.fromkeys(name for row in rows for name in row)
  return [name for name in names if name.startswith(prefix)]


def plot_losses(rows: Sequence[Row], folder: Folder) -> Path | None:
  """losses.png: the loss and each of its parts over steps, train and dev.

  Args:
    rows: of `metrics.read_metrics`; names "train/loss", "train/mlm/loss", ...
      and the same under "dev/".
    folder: where the picture goes.
  """
  parts = dict.fromkeys(
    name.split("/", 1)[1]
    for prefix in ("train/", "dev/")
    for name in _names(rows, prefix)
    if name.endswith("/loss") and len(series(rows, name)[0])
  )
  if not parts:
    return None
  path = Path(folder) / "losses.png"
  order = sorted(parts, key=lambda part: part.count("/"))
  columns = min(len(order), 4)
  lines = -(-len(order) // columns)
  title = "Loss and its parts over training"
  width = max(3.1 * columns, 5.0)
  with canvas(path, title, width, 2.8 * lines + 0.8) as figure:
    grid = figure.subplots(lines, columns, squeeze=False).flat
    for axes, part in zip(grid, order, strict=False):
      _draw(axes, rows, f"train/{part}", color=BLUE, label="train")
      _draw(
        axes, rows, f"dev/{part}", color=ORANGE, label="dev", linestyle="--"
      )
      axes.set_title("total" if part == "loss" else part.removesuffix("/loss"))
      axes.set_xlabel("step")
    for axes in list(figure.axes)[len(order) :]:
      axes.set_visible(False)
    figure.axes[0].set_ylabel("loss (nats)")
    entries = {
      label: handle
      for axes in figure.axes
      for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
      entries.values(), entries.keys(), loc="outside lower center", ncols=2
    )
  return path


def plot_contrast_health(
  rows: Sequence[Row], folder: Folder, name: str | None = None
) -> Path | None:
  """contrast_health.png: measures that show a collapse, over steps.

  Args:
    rows: of `metrics.read_metrics`.
    folder: where the picture goes.
    name: of the contrast, where a run has several; it joins the file's name.
      None: the run's only one.
  """
  names = [name] if name else contrasts(_names(rows, "train/"), "train/")
  if not names:
    return None
  prefix = f"train/{names[0]}/"
  if not any(len(series(rows, each)[0]) for each in _names(rows, prefix)):
    return None
  path = Path(folder) / f"contrast_health{f'_{name}' if name else ''}.png"
  title = "Contrast health: what shows a collapse"
  with canvas(path, title, 11.0, 3.8) as figure:
    left, middle, right = figure.subplots(1, 3)
    left.set_title("Own key found")
    _draw(left, rows, prefix + "accuracy", color=BLUE, label="in the batch")
    _draw(
      left,
      rows,
      prefix + "accuracy_queue",
      color=ORANGE,
      label="in the queue",
      linestyle="--",
    )
    _draw(
      left,
      rows,
      prefix + "chance",
      color=GREY,
      label="chance in the batch",
      linestyle=":",
      marker="",
    )
    left.set_ylabel("fraction of queries")
    middle.set_title("Spread of the batch's vectors")
    _draw(middle, rows, prefix + "spread", color=GREEN, label="spread")
    middle.axhline(
      SPREAD_FLOOR, color=GREY, linestyle=":", label="collapse below"
    )
    middle.set_ylabel("1 - mean cosine of other pairs")
    right.set_title("Cosine of queries to ...")
    for measure, label, color, dash in (
      ("positive_similarity", "own key", BLUE, "-"),
      ("queue_similarity_new", "newest in queue", ORANGE, "--"),
      ("queue_similarity_old", "oldest in queue", PURPLE, "-."),
    ):
      _draw(
        right, rows, prefix + measure, color=color, label=label, linestyle=dash
      )
    right.set_ylabel("mean cosine")
    for axes in (left, middle, right):
      axes.set_xlabel("step")
      legend_below(axes, 3, 0.17)
    left.set_ylim(-0.03, 1.03)
    top = max(1.08 * middle.dataLim.y1, 0.1)
    middle.set_ylim(-0.02 * top, top)
  return path
