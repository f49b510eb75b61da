"""A fine-tuning job as it was asked for: checked, counted and in words."""

import dataclasses
import math
from typing import Any

from infoxlm_jax.data.labelled.examples import ExampleStore
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.finetuning.options import FineTuning
from infoxlm_jax.finetuning.tables import RANDOM, facts_in_words
from infoxlm_jax.finetuning.task import Task
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.identity import identity
from infoxlm_jax.training import validation
from infoxlm_jax.training.options import Parallelism, WeightOptions


@dataclasses.dataclass(frozen=True)
class Job:
  """What all runs of a job share.

  Attributes:
    options, task, model, tokenizer, parallelism: see finetune.
    weights: to start from; without init_from where they are random.
    steps: updates of a run.
    store: the examples to train on, hashed once for all runs.
    languages: of the model's language embeddings; () without.
  """

  options: FineTuning
  task: Task
  model: EncoderConfig
  weights: WeightOptions
  tokenizer: Tokenizer
  parallelism: Parallelism
  steps: int
  store: ExampleStore
  languages: tuple[str, ...] = ()


def steps_of(options: FineTuning, task: Task) -> int:
  """Updates of a run."""
  count = sum(map(len, task.train.values()))
  steps = math.ceil(options.epochs * count / options.batch)
  return min(steps, options.max_steps or steps)


def check(options: FineTuning) -> None:
  """Raises InputError, naming the option, where a value is impossible."""
  validation.check_counts(
    options, batch="BATCH", evaluations="EVALUATIONS", log_every=None
  )
  name = type(options).__name__
  for field in ("seeds", "rates"):
    values = list(getattr(options, field))
    if not values or len(set(values)) < len(values):
      raise InputError(
        f"{name}.{field} = {values}: give at least one, and each once"
      )
  if min(options.rates) <= 0 or options.epochs <= 0 or options.warmup < 0:
    raise InputError(
      f"{name}: rates = {list(options.rates)} and epochs = {options.epochs}"
      f" must be above 0, warmup = {options.warmup} not below"
    )
  if options.max_steps is not None:
    validation.check_counts(options, max_steps="MAX_STEPS")


def with_initial_weights(
  task: Task, options: FineTuning, weights: WeightOptions
) -> Task:
  """The task, with the initial weights among its facts.

  So results.json, report.md and the terminal say where a model started.
  """
  facts: dict[str, Any] = {"initial_weights": weights.init_from}
  if options.random_weights:
    facts = {
      "initial_weights": RANDOM,
      "shape_and_tokenizer": weights.init_from,
    }
  return dataclasses.replace(task, facts=facts | dict(task.facts))


def identity_of(job: Job) -> dict[str, Any]:
  """identity.json: settings that must not change between starts of a run."""
  task, options = job.task, job.options
  return {
    "task": task.name,
    "model": dataclasses.asdict(job.model),
    "objective": identity(task.objective),
    "init_from": job.weights.init_from,
    "classes": list(task.classes),
    "steps": job.steps,
    "batch": options.batch,
    "warmup": options.warmup,
    "weight_decay": options.weight_decay,
    "evaluations": options.evaluations,
  }


def in_words(job: Job) -> str:
  """What the job will do, for the terminal."""
  task, options = job.task, job.options
  train = sum(map(len, task.train.values()))
  lines = [
    f"{task.name} of {task.source}",
    f"train: {train:,} examples in {', '.join(task.train)}",
  ]
  for name in ("dev", "test", "crossed"):
    sets = getattr(task, name)
    count = sum(len(own.examples) for own in sets.values())
    if sets:
      lines.append(f"{name}: {count:,} examples in {', '.join(sets)}")
  lines += facts_in_words(task)
  runs = len(options.seeds) + len(options.rates) - 1
  lines.append(
    f"{runs} runs of {job.steps:,} updates of {options.batch} examples; dev is"
    f" measured {options.evaluations} times in each"
  )
  return "\n".join(lines)
