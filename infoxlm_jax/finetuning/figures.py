"""Figures of a fine-tuning job: languages, learning curves, pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.evaluation.report.figures import canvas
from infoxlm_jax.finetuning.task import Task

_BAR, _MEAN = "#3B6FB6", "#B6593B"


def draw(folder: Path, task: Task, results: Mapping[str, Any]) -> list[Path]:
  """Draws what there is; returns the pictures in the order of a report.

  Raises:
    StorageError: a picture cannot be written.
  """
  main = results[task.name]
  split = "test" if task.test else "dev"
  pictures = [
    _languages(
      folder / "languages.png",
      f"{task.metric} on {split}, per cent",
      main[split][task.metric],
      main[f"{split}_std"][task.metric],
    )
  ]
  if "crossed" in main:
    pictures.append(
      _crossed(
        folder / "crossed.png",
        f"{task.metric} by the languages of the two texts, per cent",
        main["crossed"][task.metric],
      )
    )
  return pictures


def _languages(
  path: Path,
  title: str,
  values: Mapping[str, float],
  deviations: Mapping[str, float],
) -> Path:
  """Bars by language, the best first, the mean last."""
  names = sorted(values, key=lambda k: (k == "mean", -values[k]))
  heights = [100 * values[name] for name in names]
  errors = [100 * deviations[name] for name in names]
  colours = [_MEAN if name == "mean" else _BAR for name in names]
  with canvas(path, title, max(5.0, 1 + 0.45 * len(names)), 3.6) as figure:
    axes = figure.subplots()
    axes.bar(names, heights, yerr=errors, color=colours, ecolor="#444444")
    for place, height in enumerate(heights):
      axes.text(
        place, 1.0, f"{height:.0f}", ha="center", color="white", fontsize=8
      )
    axes.set_ylim(0, 100)
    axes.grid(axis="x", visible=False)
  return path


def _crossed(path: Path, title: str, values: Mapping[str, float]) -> Path:
  """A heat map of first and second text's language."""
  pairs = [pair.split("-") for pair in values if "-" in pair]
  firsts = list(dict.fromkeys(a for a, _ in pairs))
  seconds = list(dict.fromkeys(b for _, b in pairs))
  table = np.full((len(firsts), len(seconds)), np.nan)
  for a, b in pairs:
    table[firsts.index(a), seconds.index(b)] = 100 * values[f"{a}-{b}"]
  low, high = np.nanmin(table), np.nanmax(table)
  size = max(4.0, 1.6 + 0.42 * len(firsts))
  with canvas(path, title, size + 1.2, size) as figure:
    axes = figure.subplots()
    image = axes.imshow(table, cmap="cividis", vmin=low, vmax=high)
    for (row, column), value in np.ndenumerate(table):
      if np.isfinite(value):
        axes.text(
          column,
          row,
          f"{value:.0f}",
          ha="center",
          va="center",
          fontsize=8,
          color="black" if value > (low + high) / 2 else "white",
        )
    axes.set_xticks(range(len(seconds)), seconds)
    axes.set_yticks(range(len(firsts)), firsts)
    axes.set_xlabel("second text")
    axes.set_ylabel("first text")
    axes.grid(False)
    figure.colorbar(image, ax=axes, shrink=0.8)
  return path
