"""Measures a model while it is fine-tuned, and chooses by its dev scores."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from infoxlm_jax.finetuning import choice
from infoxlm_jax.finetuning.predict import Predict
from infoxlm_jax.finetuning.task import EvalSet, Task
from infoxlm_jax.runtime import distributed
from infoxlm_jax.runtime.metrics import read_metrics


class Measured(NamedTuple):
  """The results of one evaluation.

  Attributes:
    metrics: numbers for metrics.jsonl, by name: "dev/accuracy/fr".
    best_metric: mean over the languages of dev, which chooses the model.
    text: one line for the terminal.
  """

  metrics: dict[str, float]
  best_metric: float | None
  text: str

  def metric(self, name: str | None) -> float | None:
    """A metric by name; None: `best_metric`."""
    return self.best_metric if name is None else self.metrics[name]

  def __str__(self) -> str:
    return self.text


class TaskEvaluator:
  """evaluator(state, splits) -> Measured, for the loop of training.

  Test sets are measured whenever dev says that a model may be chosen: all of
  them where the mean over dev is the best so far, and a language's own where
  its dev score is. So nothing is chosen on test, and no checkpoint has to be
  kept for each language.

  Args:
    folder: of the run; its metrics.jsonl has the evaluations of earlier starts.
    task: its sets and its scorer.
    predict: from make_predict.
  """

  def __init__(self, folder: Path, task: Task, predict: Predict):
    self._folder, self._task, self._predict = folder, task, predict
    # The start sets a file with damaged lines aside, after this.
    self._evaluations = read_metrics(folder, skip_damaged=True)

  def __call__(self, state: Any, splits: Sequence[str]) -> Measured:
    del splits
    task, step = self._task, int(state.step)
    # A run that went back to a checkpoint comes by some updates again.
    self._evaluations = [x for x in self._evaluations if x["step"] < step]
    metrics = self._split(state, "dev", task.dev)
    mean = metrics[f"dev/{task.metric}/mean"]
    if step > 0:  # before, the head is random
      metrics |= self._split(state, "test", self._chosen(metrics))
    self._evaluations.append({"step": step, **metrics})
    text = f"dev {task.metric} {100 * mean:.1f} %"
    if len(task.dev) > 1:
      text += f" (mean of {len(task.dev)} languages)"
    return Measured(metrics, mean, text)

  def keep_start(self, start: Measured) -> None:
    """Nothing: the choice needs no figures from before training."""

  def draw(self, number: int, now: Measured) -> None:
    """Nothing: the job draws its figures from all of its runs."""

  def report(self, facts: Mapping[str, Any], start: Any, end: Measured) -> None:
    """Writes the run's results.json; see choice.write_results."""
    del start, end
    # The other processes read the file next.
    with distributed.together("writing the results"):
      if jax.process_index() == 0:
        choice.write_results(self._folder, self._task, facts)

  def _chosen(self, metrics: Mapping[str, float]) -> dict[str, EvalSet]:
    """The test sets of languages whose dev score is the best so far."""
    metric = self._task.metric
    best = choice.best(self._evaluations, metric)
    improved = {
      language
      for language in ("mean", *self._task.dev)
      if language not in best
      or metrics[f"dev/{metric}/{language}"] >= best[language].score
    }
    if "mean" in improved:
      return dict(self._task.test)
    return {k: v for k, v in self._task.test.items() if k in improved}

  def _split(
    self, state: Any, split: str, sets: Mapping[str, EvalSet]
  ) -> dict[str, float]:
    """Metrics by name, with a mean where all languages were measured."""
    scores = measure(self._task, self._predict, state.params, sets, split)
    whole = len(sets) == len(getattr(self._task, split))
    return {
      f"{split}/{name}/{language}": value
      for name, values in scores.items()
      for language, value in values.items()
      if whole or language != "mean"
    }


def measure(
  task: Task,
  predict: Predict,
  params: Any,
  sets: Mapping[str, EvalSet],
  title: str,
) -> dict[str, dict[str, float]]:
  """{measure: {language or "mean": fraction}} of some sets.

  Args:
    task: with the scorer.
    predict: see make_predict.
    params: of the model.
    sets: by language, or by pair of languages.
    title: of the progress bar.
  """
  out: dict[str, dict[str, float]] = {}
  hidden = not sys.stderr.isatty() or jax.process_index() != 0
  total = sum(len(own.examples) for own in sets.values())
  with tqdm(
    total=total, unit="example", desc=title, leave=False, disable=hidden
  ) as bar:
    for language, own in sets.items():
      scores = predict(params, own.examples, bar.update)
      for name, value in task.score(own, scores).items():
        out.setdefault(name, {})[language] = float(value)
  for values in out.values():
    values["mean"] = float(np.mean(list(values.values())))
  return out
