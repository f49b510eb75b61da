"""The pictures of a run, drawn at each evaluation and at its end."""

from pathlib import Path
from typing import Any

from infoxlm_jax.evaluation import collapse
from infoxlm_jax.evaluation.report import (
  curves,
  figures,
  held_out_curves,
  retrieval_figures,
)
from infoxlm_jax.evaluation.report.start_scores import Scores, read_similarity
from infoxlm_jax.evaluation.retrieval_eval import POOLINGS, Scored
from infoxlm_jax.evaluation.similarity import Similarity, similarities
from infoxlm_jax.runtime.metrics import Row

FOLDER = "figures"
Figures = list[Path | None]


def draw(
  folder: Path,
  rows: list[Row],
  start: Scores,
  now: Scores,
  name: str = "end of training",
) -> Figures:
  """Draws figures/ anew.

  Args:
    folder: of the run.
    rows: of its metrics.jsonl.
    start: scores before the first update; {}: they are not shown. Scores
      without vectors (read_start) are left out of the picture of sentences.
    now: scores of the model; without "dev" only metrics are drawn.
    name: of the model, in the titles.

  Returns:
    The pictures in the order of the report; None for one that was not drawn.

  Raises:
    StorageError: a file could not be written.
  """
  out = folder / FOLDER
  pictures: Figures = [curves.plot_losses(rows, out)]
  names = collapse.contrasts((key for row in rows for key in row), "train/")
  for contrast in names if len(names) > 1 else (None,):
    pictures.append(curves.plot_contrast_health(rows, out, contrast))
  pictures.append(held_out_curves.plot_perplexity(rows, out))
  pictures.append(held_out_curves.plot_layers_over_steps(rows, out))
  if "dev" in now:
    pictures += _of_retrieval(folder, start, now, name)
  return pictures


def _of_retrieval(
  folder: Path, start: Scores, scores: Scores, name: str
) -> Figures:
  out = folder / FOLDER
  layer, pooling = scores["dev"].retrieval.choose()
  place = POOLINGS.index(pooling)
  split = "test" if "test" in scores else "dev"
  now, before = scores[split], start.get(split)
  drawn = before if before and before.vectors else None

  def close(scored: Scored) -> Similarity:
    return similarities(scored.vectors, scored.rows, layer, place)

  def points(scored: Scored) -> Any:
    return (scored.vectors, scored.rows, layer, place)

  earlier = None
  if drawn:
    earlier = close(drawn)
  elif before:
    earlier = read_similarity(folder, split, layer, place)
  return [
    retrieval_figures.plot_retrieval(
      now.retrieval,
      out,
      pooling,
      before.retrieval if before else None,
      name,
    ),
    figures.plot_similarity(close(now), out, earlier, name),
    figures.plot_sentences(
      points(now), out, points(drawn) if drawn else None, name=name
    ),
  ]
