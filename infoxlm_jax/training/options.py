"""Options of a training job: those that belong together are one object.

A gin file binds their fields: `options.RunOptions.log_every = 50`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import optax

from infoxlm_jax.model import partitioning
from infoxlm_jax.training.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class RunOptions:
  """Which run it is, how long it goes on, and when it gives up.

  Attributes:
    model_dir: the run's folder.
    steps: updates of the whole run.
    seed: of the parameters, the masks and the order of the data.
    log_every: updates between lines of metrics.jsonl.
    bad_updates_allowed: consecutive updates without a finite loss and
      gradient (each changes nothing) before the run stops.
    hang_seconds: end the process when no update came for so long. None: never.
  """

  model_dir: str
  steps: int
  seed: int = 0
  log_every: int = 10
  bad_updates_allowed: int = 0
  hang_seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class UpdateOptions:
  """How an update changes the parameters; see step.make_train_step.

  Attributes:
    optimizer: built with `learning_rate`.
    learning_rate: rate of update n + 1 as a function of n.
    loss_norm: how the objectives' losses are added: "joint_sum" or
      "per_task_mean".
    count_skipped: whether a skipped update counts for the objectives.
  """

  optimizer: optax.GradientTransformation
  learning_rate: Schedule
  loss_norm: str = "joint_sum"
  count_skipped: bool = True


@dataclasses.dataclass(frozen=True)
class Parallelism:
  """How the work of an update is split.

  Attributes:
    groups: pieces that a batch is built in; a multiple of every number of
      devices times microbatches that the run is to be continued on.
    microbatches: pieces in which a device computes its groups.
    zero1: split the optimiser's state, and its work, over the devices that
      hold copies of a parameter.
    mesh: builds the device mesh.
  """

  groups: int
  microbatches: int = 1
  zero1: bool = False
  mesh: Callable[..., Any] = partitioning.make_mesh


@dataclasses.dataclass(frozen=True)
class DataOptions:
  """Where the prepared data are.

  Attributes:
    folder: written by `prepare`. None: prepare now, into the run's folder.
    prepare: called with output=folder where `folder` is None.
  """

  folder: str | None = None
  prepare: Callable[..., Any] | None = None


@dataclasses.dataclass(frozen=True)
class WeightOptions:
  """Which weights a run starts from. They are read at its first start only.

  Attributes:
    init_from: a file, a folder or a name, see load.load_weights. None: random
      weights.
    allow_pickle: whether it may be one of torch's pickled files.
  """

  init_from: str | None = None
  allow_pickle: bool = False


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
  """How often a run is evaluated on dev, and on how much.

  Attributes:
    every: updates between evaluations.
    batches: batches of held-out text that the losses are measured on.
  """

  every: int = 1000
  batches: int = 8


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
  """How often a run is saved, and which checkpoints stay.

  Attributes:
    save_every: updates between checkpoints.
    keep_latest: newest checkpoints to keep.
    keep_best: checkpoints with the highest dev retrieval to keep besides.
  """

  save_every: int = 5000
  keep_latest: int = 3
  keep_best: int = 1
