"""Evaluation while a run goes: held-out losses and retrieval on dev."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.evaluation import retrieval_eval
from infoxlm_jax.evaluation.embed import make_embed
from infoxlm_jax.evaluation.retrieval_eval import Scored
from infoxlm_jax.model.config import EncoderConfig

_RETRIEVAL = "dev/retrieval/"


class Evaluation:
  """evaluate(state, splits) -> scores by split; `metrics` for the log.

  Args:
    folder: prepared data; a missing dev store or retrieval file leaves out
      what needs it.
    tokenizer, model, mesh: of the run.
    eval_step: from step.make_eval_step.
    batches: batches of a store for the held-out losses, the same ones
      whenever it is called.
    row_length: of the rows that sentences are packed into.
  """

  def __init__(
    self,
    folder: Path,
    tokenizer: Tokenizer,
    model: EncoderConfig,
    mesh: Mesh,
    eval_step: Callable[..., Any],
    batches: Callable[[Store], Iterator[tuple[Any, Any]]],
    row_length: int,
  ):
    self._sets = retrieval_eval.load(
      folder / "retrieval", tokenizer, row_length
    )
    self._embed = make_embed(
      model, mesh, poolings=retrieval_eval.POOLINGS, row_length=row_length
    )
    dev = folder / "dev"
    self._dev = Store(dev) if dev.is_dir() else None
    self._eval_step, self._batches = eval_step, batches
    self.metrics: dict[str, float] = {}

  def __call__(self, state: Any, splits: Sequence[str]) -> dict[str, Scored]:
    self.metrics = self._losses(state)
    scores = {
      split: retrieval_eval.score(self._embed, state.params, self._sets[split])
      for split in splits
      if split in self._sets
    }
    if "dev" in scores:
      retrieval = scores["dev"].retrieval
      layer, pooling = retrieval.choose()
      at = retrieval.at(layer, pooling)
      for direction in retrieval.directions:
        self.metrics[_RETRIEVAL + direction] = at[direction]["mean"]
      self.metrics[_RETRIEVAL + "layer"] = layer
    return scores

  def _losses(self, state: Any) -> dict[str, float]:
    if self._dev is None:
      return {}
    total: Mapping[str, Any] = {}
    for number, (batch, _) in enumerate(self._batches(self._dev)):
      sums = jax.device_get(self._eval_step(state, batch, number))
      total = jax.tree.map(np.add, total, sums) if total else sums
    return {
      f"dev/{name}": float(value / max(weight, 1e-9))
      for name, (value, weight) in total.items()
    }


def best_of(metrics: Mapping[str, float]) -> float | None:
  """What the best checkpoint has most of: mean dev retrieval."""
  found = [
    value
    for name, value in metrics.items()
    if name.startswith(_RETRIEVAL) and "_to_" in name
  ]
  return float(np.mean(found)) if found else None


def in_words(metrics: Mapping[str, float]) -> str:
  """One line of an evaluation for the terminal."""
  parts = [
    f"{name.removeprefix('dev/').removesuffix('/loss')} {value:.3f}"
    for name, value in metrics.items()
    if name.endswith("/loss")
  ]
  best = best_of(metrics)
  if best is not None:
    layer = int(metrics[_RETRIEVAL + "layer"])
    parts.append(f"retrieval {100 * best:.1f} % (layer {layer})")
  return "dev: " + ", ".join(parts)
