"""Pictures of sentence vectors, as PNG files.

`curves` has those over steps, `retrieval_figures` those of retrieval.

matplotlib is imported when a picture is drawn. Figures are built without
pyplot, so that drawing leaves no global state and needs no display. Each
function returns the path of its picture, or None where there is nothing to
draw.

Colours: Okabe and Ito's and Paul Tol's "muted" set, both told apart by people
with any of the common colour vision deficiencies.
"""

import contextlib
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.errors import StorageError
from infoxlm_jax.evaluation.retrieval import Rows, Vectors, unit
from infoxlm_jax.evaluation.similarity import Similarity

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, GREY = "#CC79A7", "#6E6E6E"
MUTED = (
  "#CC6677",
  "#332288",
  "#DDCC77",
  "#117733",
  "#88CCEE",
  "#882255",
  "#44AA99",
  "#999933",
  "#AA4499",
)
_MARKERS = "osD^vP"
_STYLE: dict[Any, Any] = {
  "font.size": 10,
  "axes.titlesize": 11,
  "axes.titlelocation": "left",
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "axes.axisbelow": True,
  "grid.color": "#E3E3E3",
  "grid.linewidth": 0.7,
  "legend.frameon": False,
  "lines.linewidth": 1.6,
  "savefig.dpi": 160,
}
Folder = str | os.PathLike[str]


def legend_below(axes: Any, columns: int, gap: float) -> None:
  """A legend under a picture, where no line can run through it.

  Args:
    axes: of the picture.
    columns: of the legend.
    gap: between the two, as a share of the picture's height.
  """
  axes.legend(
    loc="upper center",
    bbox_to_anchor=(0.5, -gap),
    ncols=columns,
    fontsize=9,
    columnspacing=1.0,
    handlelength=1.8,
  )


@contextlib.contextmanager
def canvas(
  path: Path, title: str, width: float, height: float
) -> Iterator[Any]:
  """A figure that is saved under `path` when the block ends."""
  import matplotlib
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    # A bold letter of 13 points is about .12 inch wide.
    title = textwrap.fill(title, int(width / 0.12))
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    yield figure
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      figure.savefig(path)
    except OSError as error:
      raise StorageError(f"{path}: not written: {error}.") from error


def plot_similarity(
  end: Similarity,
  folder: Folder,
  start: Similarity | None = None,
  name: str = "end of training",
) -> Path:
  """similarity.png: cosines of translations and of other pairs.

  Args:
    end: of the model.
    folder: where the picture goes.
    start: of the model at step 0, shown on the left.
    name: of the model, in its title.
  """
  path = Path(folder) / "similarity.png"
  models = [(name, end)]
  if start is not None:
    models.insert(0, ("step 0", start))
  title = "Cosine of translations and of other sentence pairs"
  with canvas(path, title, 4.6 * len(models) + 0.4, 3.7) as figure:
    grid = figure.subplots(1, len(models), squeeze=False).flat
    for (name, model), axes in zip(models, grid, strict=True):
      both = np.concatenate([model.positives, model.negatives])
      both = both[np.isfinite(both)]
      # A range of its own for each: at step 0 all lie near 1.
      low, high = (both.min(), both.max()) if len(both) else (-1.0, 1.0)
      bins = np.linspace(low, max(high, low + 1e-4), 61)
      for values, label, color in (
        (model.negatives, "other pairs", ORANGE),
        (model.positives, "translations", BLUE),
      ):
        count, _ = np.histogram(values, bins)
        share = 100 * count / max(len(values), 1)
        axes.stairs(share, bins, fill=True, color=color, alpha=0.45)
        axes.stairs(share, bins, color=color, linewidth=1.4, label=label)
      better = 100 * model.summary()["positive_above_negative"]
      axes.set_title(f"{name}: translation above other pair {better:.1f} %")
      axes.set_xlabel("cosine")
      # Room for the legend above the highest bar.
      axes.set_ylim(0, 1.18 * axes.dataLim.y1)
      axes.set_ylabel("% of pairs per bar")
      axes.legend(loc="upper left", ncols=2)
  return path


def pca(points_ND: np.ndarray, parts: int = 2) -> tuple[np.ndarray, np.ndarray]:
  """Principal components by SVD.

  Args:
    points_ND: [N, D].
    parts: how many components.

  Returns:
    (coordinates [N, parts], share of the variance of each [parts]).
  """
  centred = points_ND.astype(np.float64) - points_ND.mean(axis=0)
  left, size, _ = np.linalg.svd(centred, full_matrices=False)
  power = np.square(size)
  share = power[:parts] / max(power.sum(), np.finfo(np.float64).tiny)
  return left[:, :parts] * size[:parts], share


def plot_sentences(
  end: tuple[Vectors, Rows, int, int],
  folder: Folder,
  start: tuple[Vectors, Rows, int, int] | None = None,
  sentences: int = 150,
  joined: int = 5,
  seed: int = 0,
  pivot: str = "en",
  name: str = "end of training",
) -> Path | None:
  """sentences.png: PCA of unit sentence vectors, coloured by language.

  A model that separates languages shows islands of colour; one that reads
  meaning shows all colours mixed, and the translations of a sentence near each
  other. A few sentences have their translations joined to their centre.

  Args:
    end: (vectors, rows, layer, pooling), the last two as places on the axes.
    folder: where the picture goes.
    start: the same at step 0, shown on the left.
    sentences: how many, among those that every language has.
    joined: how many of them are joined, the first ones drawn.
    seed: of the draw.
    pivot: the language drawn in black.
    name: of the model, in its title.
  """
  models = [(name, end)]
  if start is not None:
    models.insert(0, ("step 0", start))
  rows = end[1]
  held = [set(row.tolist()) for _, model in models for row in model[1].values()]
  everywhere = np.array(sorted(set.intersection(*held)))
  if len(everywhere) < 3:
    return None
  random = np.random.default_rng(seed)
  shown = random.permutation(everywhere)[:sentences]
  path = Path(folder) / "sentences.png"
  languages = sorted(rows, key=lambda language: language != pivot)
  title = (
    f"PCA of {len(shown)} sentences in {len(languages)} languages; "
    f"lines join the translations of {min(joined, len(shown))} of them"
  )
  with canvas(path, title, 5.0 * len(models) + 1.2, 5.2) as figure:
    grid = figure.subplots(1, len(models), squeeze=False).flat
    for (name, model), axes in zip(models, grid, strict=True):
      _scatter(axes, model, languages, shown, joined)
      axes.set_title(name)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", markerscale=1.8)
  return path


def _scatter(
  axes: Any,
  model: tuple[Vectors, Rows, int, int],
  languages: Sequence[str],
  shown: np.ndarray,
  joined: int,
) -> None:
  vectors, rows, layer, pooling = model
  points = []
  for language in languages:
    place: Mapping[int, int] = {
      int(row): number for number, row in enumerate(rows[language])
    }
    chosen = [place[int(row)] for row in shown]
    points.append(unit(vectors[language][layer, pooling][chosen]))
  flat, share = pca(np.concatenate(points))
  spots = flat.reshape(len(languages), len(shown), 2)
  for number in range(min(joined, len(shown))):
    centre = spots[:, number].mean(axis=0)
    for spot in spots[:, number]:
      axes.plot(
        *zip(centre, spot, strict=True), color="#333333", lw=0.6, alpha=0.6
      )
  for number, language in enumerate(languages):
    color = "black" if number == 0 else MUTED[(number - 1) % len(MUTED)]
    axes.scatter(
      *spots[number].T,
      s=11,
      color=color,
      alpha=0.75,
      linewidths=0,
      marker=_MARKERS[number % len(_MARKERS)],
      label=language,
      zorder=2,
    )
    axes.scatter(
      *spots[number, :joined].T,
      s=42,
      color=color,
      edgecolors="white",
      linewidths=0.7,
      marker=_MARKERS[number % len(_MARKERS)],
      zorder=3,
    )
  axes.set_xlabel(f"component 1 ({100 * share[0]:.0f} % of the variance)")
  axes.set_ylabel(f"component 2 ({100 * share[1]:.0f} %)")
  axes.set_xticks([])
  axes.set_yticks([])
  axes.grid(False)
