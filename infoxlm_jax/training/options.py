"""Options of a training job: those that belong together are one object.

A gin file binds their fields: `options.RunOptions.log_every = 50`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import optax

from infoxlm_jax.checkpoint import retention
from infoxlm_jax.checkpoint.retention import Retention
from infoxlm_jax.model import partitioning
from infoxlm_jax.training.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class RunOptions:
  """Folder, length and seed of a run.

  Attributes:
    model_dir: the run's folder.
    steps: updates of the whole run.
    seed: of the parameters, the masks and the order of the data.
    log_every: updates between lines of metrics.jsonl.
    bad_updates_allowed: consecutive updates that may be skipped since a number
      in them is not finite (each changes nothing). After one more the run
      goes back to its last checkpoint, and on with other data; if that happens
      again, it stops.
    spike_sigmas: it goes back, too, after `spike_updates` losses in a row that
      are so many standard deviations above the mean. None: it does not.
    spike_updates: see spike_sigmas.
    replay_every: updates from one that is computed twice, and compared bit for
      bit, to the next; takes the memory of a second state. None: none is.
    hang_seconds: end the process after so long without an update. None: never.
  """

  model_dir: str
  steps: int
  seed: int = 0
  log_every: int = 10
  bad_updates_allowed: int = 0
  spike_sigmas: float | None = None
  spike_updates: int = 10
  replay_every: int | None = None
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
    mesh: sizes of the device mesh.
  """

  groups: int
  microbatches: int = 1
  zero1: bool = False
  mesh: partitioning.MeshShape = partitioning.ALL_DEVICES


@dataclasses.dataclass(frozen=True)
class DataOptions:
  """The prepared data.

  Attributes:
    folder: of prepared data. None: the run prepares them into its own folder.
    prepare: called as prepare(output=...) if `folder` is None.
    check: called before the weights are read if `folder` is None; raises
      InputError where `prepare` could not begin. None: nothing is checked.
  """

  folder: str | None = None
  prepare: Callable[..., Any] | None = None
  check: Callable[[], Any] | None = None


@dataclasses.dataclass(frozen=True)
class WeightOptions:
  """The initial weights, which a run reads when it is started first.

  Attributes:
    init_from: file or folder of weights, see load.load_weights. None: random
      weights.
    allow_pickle: whether to accept one of torch's pickled files.
  """

  init_from: str | None = None
  allow_pickle: bool = False


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
  """Evaluation on dev during a run.

  Attributes:
    every: updates between evaluations.
    batches: batches of held-out text that the losses are measured on.
    prefix: put before every sentence of retrieval, such as "query: " for e5.
    examples: held-out items of each language, or pair of languages, that
      perplexity is measured on; of a smaller language all. 0: it is not
      measured.
  """

  every: int = 1000
  batches: int = 8
  prefix: str = ""
  examples: int = 64


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
  """Checkpoints during a run; each rule keeps what it wants, for itself.

  Attributes:
    save_every: updates between checkpoints.
    keep_latest: number of newest checkpoints to keep.
    keep_best: number of checkpoints with the best metric to keep besides. Only
      those can be best that are saved at an update with an evaluation.
    keep_every: keep those of updates that are multiples of this for ever. None:
      none.
    best_metric: name of the metric of an evaluation, such as "dev/mlm/loss".
      None: mean dev retrieval.
    lowest_is_best: whether lower is better, as for a loss.
  """

  save_every: int = 5000
  keep_latest: int = 3
  keep_best: int = 1
  keep_every: int | None = None
  best_metric: str | None = None
  lowest_is_best: bool = False

  def retention(self) -> Retention:
    """The rules that keep checkpoints.

    Raises:
      InputError: a rule makes no sense.
    """
    return Retention(
      self.keep_latest,
      self.keep_best,
      self.keep_every,
      self.best_metric or retention.DEFAULT_METRIC,
      self.lowest_is_best,
    )
