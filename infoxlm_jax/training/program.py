"""The program of a configuration: abstract state, shardings, jitted steps.

Training and a dry run build the same program. Building it allocates no arrays
and compiles nothing.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from jax.sharding import Mesh

from infoxlm_jax.checkpoint import metadata
from infoxlm_jax.checkpoint.manager import Checkpoints
from infoxlm_jax.data import alternating_stream
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives import contrast
from infoxlm_jax.objectives.base import Objective
from infoxlm_jax.training import eval_step, initial_weights, step, validation
from infoxlm_jax.training import state as train_state
from infoxlm_jax.training.options import Parallelism, UpdateOptions
from infoxlm_jax.training.state import Recipe, TrainState


@dataclasses.dataclass(frozen=True)
class Program:
  """All that the jitted steps of a run are built from.

  Attributes:
    model: shapes of the encoder.
    objectives: by name.
    streams: those that an objective reads, by name; rows may be None.
    update, parallelism: see options.
    mesh: of devices, or of descriptions of devices.
    state: abstract: shapes, dtypes and shardings.
  """

  model: EncoderConfig
  objectives: Mapping[str, Objective]
  streams: Mapping[str, Any]
  update: UpdateOptions
  parallelism: Parallelism
  mesh: Mesh
  state: TrainState

  @property
  def recipe(self) -> Recipe:
    """The parts that decide the shapes of the state."""
    return _recipe(
      self.model, self.objectives, self.streams, self.update, self.parallelism
    )

  def train_step(self) -> Any:
    """Builds the jitted update, see step.make_train_step."""
    return step.make_train_step(
      self.recipe,
      self.state,
      self.mesh,
      learning_rate=self.update.learning_rate,
      loss_norm=self.update.loss_norm,
      count_skipped=self.update.count_skipped,
      zero1=self.parallelism.zero1,
    )

  def eval_step(
    self, names: Collection[str], languages: int
  ) -> Callable[..., Any]:
    """Builds the jitted held-out losses, see eval_step.make_eval_step."""
    return eval_step.make_eval_step(
      self.recipe, self.state, self.mesh, names, languages
    )

  def fill_step(self, name: str) -> Callable[..., TrainState]:
    """Builds the jitted step that fills the state of an objective."""
    return eval_step.make_fill_step(self.recipe, self.state, self.mesh, (name,))

  def fill_batches(self) -> dict[str, int]:
    """Batches that fill an objective's state, by its name."""
    return eval_step.fill_batches(self.recipe)

  def random_state(self, seed: int) -> TrainState:
    """The state before the first update, with random parameters."""
    return train_state.init_sharded(
      self.recipe, seed, self.mesh, self.parallelism.zero1
    )

  def state_of(self, params: Any, seed: int) -> TrainState:
    """The state before the first update, of given parameters."""
    return initial_weights.state_of(params, seed, self.recipe, self.state)

  def restore(
    self, checkpoints: Checkpoints, before: int | None = None
  ) -> tuple[TrainState, Mapping[str, bytes]] | None:
    """State and files of the newest checkpoint; None if there is none.

    A queue that was saved with another batch size is brought to this one's.

    Args:
      checkpoints: of the run.
      before: see Checkpoints.restore.
    """
    restored = checkpoints.restore(
      self.state, train_state.resizable(self.objectives), before
    )
    if restored is None:
      return None
    state, files = restored
    return train_state.resized(state, self.state, self.objectives), files

  def describe(self, tokenizer: Tokenizer) -> bytes:
    """model.json of the checkpoints."""
    parts = [
      part
      for name, stream in self.streams.items()
      for part, _ in alternating_stream.parts(name, stream, 0).values()
    ]
    languages = (getattr(part, "language_ids", None) for part in parts)
    return metadata.describe_model(
      self.model,
      tokenizer,
      contrast=contrast.describe(self.objectives),
      languages=next(filter(None, languages), None),
    )


def make_program(
  model: EncoderConfig,
  objectives: Mapping[str, Objective],
  streams: Mapping[str, Any],
  update: UpdateOptions,
  parallelism: Parallelism,
  mesh: Mesh,
) -> Program:
  """Checks a configuration and builds its program.

  Args:
    model, objectives, streams, update, parallelism: see pretrain.pretrain.
    mesh: from parallelism.mesh.

  Raises:
    InputError: a parameter has an impossible value; the message names it.
  """
  streams = validation.used_streams(objectives, streams)
  groups, microbatches = parallelism.groups, parallelism.microbatches
  validation.check_training(
    model, objectives, streams, groups, mesh.size * microbatches
  )
  validation.check_loss_norm(update.loss_norm)
  recipe = _recipe(model, objectives, streams, update, parallelism)
  state = train_state.abstract(recipe, mesh, parallelism.zero1)
  return Program(model, objectives, streams, update, parallelism, mesh, state)


def _recipe(
  model: EncoderConfig,
  objectives: Mapping[str, Objective],
  streams: Mapping[str, Any],
  update: UpdateOptions,
  parallelism: Parallelism,
) -> Recipe:
  return Recipe(
    model,
    objectives,
    update.optimizer,
    {name: stream.batch for name, stream in streams.items()},
    parallelism.microbatches,
  )
