"""Evaluates a run: held-out losses, retrieval, and the final report."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import check_choice
from infoxlm_jax.evaluation import retrieval_eval
from infoxlm_jax.evaluation.embed import make_embed
from infoxlm_jax.evaluation.report import final_report, start_scores
from infoxlm_jax.evaluation.retrieval import Retrieval
from infoxlm_jax.evaluation.retrieval_eval import SPLITS, Scored
from infoxlm_jax.model.config import EncoderConfig

_RETRIEVAL = "dev/retrieval/"


class Evaluation(NamedTuple):
  """The results of one evaluation.

  Attributes:
    metrics: numbers for metrics.jsonl, by name.
    scores: retrieval by split, with the sentence vectors.
    seconds: that it took, by what was measured.
  """

  metrics: dict[str, float]
  scores: dict[str, Scored]
  seconds: Mapping[str, float] = MappingProxyType({})

  @property
  def best_metric(self) -> float | None:
    """Mean dev retrieval, by which the best checkpoint is chosen."""
    directions = [
      value
      for name, value in self.metrics.items()
      if name.startswith(_RETRIEVAL) and "_to_" in name
    ]
    return float(np.mean(directions)) if directions else None

  def metric(self, name: str | None) -> float | None:
    """A metric by name; None: `best_metric`.

    Raises:
      InputError: no metric has this name.
    """
    if name is None:
      return self.best_metric
    check_choice("best_metric", name, sorted(self.metrics))
    return self.metrics[name]

  def __str__(self) -> str:
    """One line for the terminal."""
    parts = [
      f"{name.removeprefix('dev/').removesuffix('/loss')} {value:.3f}"
      for name, value in self.metrics.items()
      if name.endswith("/loss")
    ]
    retrieval = self.best_metric
    if retrieval is not None:
      layer = int(self.metrics[_RETRIEVAL + "layer"])
      parts.append(f"retrieval {100 * retrieval:.1f} % (layer {layer})")
    spent = ", ".join(f"{k} {v:.1f} s" for k, v in self.seconds.items())
    return "dev: " + ", ".join(parts) + (f" ({spent})" if spent else "")


class Evaluates(Protocol):
  """What the loop of training asks of an evaluator."""

  def __call__(self, state: Any, splits: Sequence[str]) -> Any:
    """Measures a state.

    The result has `metrics`, numbers by name; `metric(name)`, one of them, by
    which the best checkpoint is chosen (None: a default); and a line for the
    terminal, its str.
    """

  def keep_start(self, start: Any) -> None:
    """Keeps what was measured before the first update."""

  def draw(self, number: int, now: Any) -> None:
    """Draws the run's pictures anew, after an evaluation on the way.

    Args:
      number: updates that are done.
      now: what was measured.
    """

  def report(self, facts: Mapping[str, Any], start: Any, end: Any) -> None:
    """Reports a finished run; `start` is None if the run was continued."""


class Evaluator:
  """evaluator(state, splits) -> Evaluation, always of the same sentences.

  Args:
    folder: of the run; the report goes there.
    data: folder of prepared data. Without its retrieval files there is no
      retrieval.
    tokenizer, model, mesh: of the run.
    held_out: measures the held-out losses and perplexities of a state, by
      name.
    first_state: makes the state before the first update again. None if the
      run began with given weights, since these may be gone.
    row_length: of the rows that sentences are packed into.
    prefix: put before every sentence of retrieval.
  """

  def __init__(
    self,
    folder: Path,
    data: Path,
    tokenizer: Tokenizer,
    model: EncoderConfig,
    mesh: Mesh,
    *,
    held_out: Callable[[Any], dict[str, float]],
    first_state: Callable[[], Any] | None,
    row_length: int,
    prefix: str = "",
  ):
    self._folder, self._first_state = folder, first_state
    self._start: Mapping[str, Scored] | None = None
    self._sets = retrieval_eval.load(
      data / "retrieval", tokenizer, row_length, prefix
    )
    self._embed = make_embed(
      model, mesh, poolings=retrieval_eval.POOLINGS, row_length=row_length
    )
    self._held_out = held_out

  def __call__(self, state: Any, splits: Sequence[str]) -> Evaluation:
    start = time.monotonic()
    metrics = self._held_out(state)
    middle = time.monotonic()
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
        metrics[_RETRIEVAL + direction] = at[direction]["mean"]
      metrics[_RETRIEVAL + "layer"] = layer
      metrics |= _by_layer(retrieval)
    seconds = {
      "held-out text": middle - start,
      "retrieval": time.monotonic() - middle,
    }
    return Evaluation(metrics, scores, seconds)

  def keep_start(self, start: Evaluation) -> None:
    """Writes retrieval before the first update to the run's folder.

    The report of a run that is stopped and continued needs it.
    """
    if jax.process_index() == 0:
      start_scores.keep_start(self._folder, start.scores)
    self._start = start.scores

  def draw(self, number: int, now: Evaluation) -> None:
    """Draws figures/ anew; process 0 alone does.

    Raises:
      StorageError: a picture could not be written.
    """
    if jax.process_index() == 0:
      if self._start is None:  # this start of the run goes on with a checkpoint
        self._start = start_scores.read_start(self._folder)
      final_report.draw(
        self._folder, self._start, now.scores, f"update {number:,}"
      )

  def report(
    self, facts: Mapping[str, Any], start: Evaluation | None, end: Evaluation
  ) -> None:
    """Writes a finished run's report, results and figures; prints its tables.

    Args:
      facts: of the run, for results.json: steps, seconds, tokens, ...
      start: before the first update. None if the run was continued: then it
        is measured again or, without `first_state`, read from the run's
        folder, which holds no vectors for the pictures.
      end: after the last update.

    Raises:
      StorageError: in all processes, if process 0 cannot write.
    """
    if start is not None:
      before: Mapping[str, Scored] = start.scores
    elif self._first_state is not None:
      before = self(self._first_state(), SPLITS).scores
    else:
      before = start_scores.read_start(self._folder)
    perplexity = _perplexity(end.metrics)
    if perplexity:
      facts = {**facts, "perplexity": perplexity}
    final_report.write(self._folder, facts, before, end.scores)


def _by_layer(retrieval: Retrieval) -> dict[str, float]:
  """dev/retrieval_by_layer/POOLING/LAYER: the mean of both directions."""
  mean = retrieval.mean().mean(axis=-1)  # [layers + 1, poolings]
  return {
    f"dev/retrieval_by_layer/{pooling}/{layer}": float(mean[layer, place])
    for place, pooling in enumerate(retrieval.poolings)
    for layer in range(len(mean))
  }


def _perplexity(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
  """{objective: {language: perplexity}} for results.json."""
  out: dict[str, dict[str, float]] = {}
  for name, value in metrics.items():
    objective, mark, language = name.partition("/perplexity/")
    if mark:
      out.setdefault(objective.removeprefix("dev/"), {})[language] = value
  return out
