"""The program of a configuration: abstract state, shardings, jitted steps.

Training and a dry run build the same program. Building it allocates no arrays
and compiles nothing.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from infoxlm_jax.checkpoint import metadata
from infoxlm_jax.checkpoint.manager import Checkpoints
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.base import Objective
from infoxlm_jax.training import eval_step, initial_weights, step, validation
from infoxlm_jax.training import state as train_state
from infoxlm_jax.training.options import Parallelism, UpdateOptions
from infoxlm_jax.training.state import TrainState


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
    keys_per_push: keys of one push into the queue; 0 without a queue.
  """

  model: EncoderConfig
  objectives: Mapping[str, Objective]
  streams: Mapping[str, Any]
  update: UpdateOptions
  parallelism: Parallelism
  mesh: Mesh
  state: TrainState
  keys_per_push: int

  @property
  def contrast(self) -> Any | None:
    """The objective with keys and a queue, if there is one."""
    return train_state.contrastive(self.objectives)

  def train_step(self) -> Any:
    """Builds the jitted update, see step.make_train_step."""
    return step.make_train_step(
      self.state,
      self.mesh,
      self.model,
      self.objectives,
      self.update.optimizer,
      learning_rate=self.update.learning_rate,
      momentum=self.update.momentum,
      loss_norm=self.update.loss_norm,
      microbatches=self.parallelism.microbatches,
      push_per_microbatch=self.update.push_per_microbatch,
      zero1=self.parallelism.zero1,
    )

  def eval_step(self) -> Callable[..., Any]:
    """Builds the jitted held-out losses, see eval_step.make_eval_step."""
    return eval_step.make_eval_step(
      self.state, self.mesh, self.model, self.objectives
    )

  def fill_step(self) -> Callable[..., TrainState]:
    """Builds the jitted push of a batch's keys, where there is a queue."""
    return eval_step.make_fill_step(
      self.state, self.mesh, self.model, self.objectives
    )

  def random_state(self, seed: int) -> TrainState:
    """The state before the first update, with random parameters."""
    return train_state.init_sharded(
      seed,
      self.model,
      self.objectives,
      self.update.optimizer,
      self.keys_per_push,
      self.mesh,
      self.parallelism.zero1,
    )

  def state_of(self, params: Any, seed: int) -> TrainState:
    """The state before the first update, with the given parameters."""
    return initial_weights.state_of(
      params,
      seed,
      self.objectives,
      self.update.optimizer,
      self.state,
      self.keys_per_push,
    )

  def restore(
    self, checkpoints: Checkpoints
  ) -> tuple[TrainState, Mapping[str, bytes]] | None:
    """State and files of the newest checkpoint; None if there is none.

    A queue that was saved with another batch size is brought to this one's.
    """
    restored = checkpoints.restore(self.state)
    if restored is None:
      return None
    state, files = restored
    return train_state.reslotted(state, self.state, self.contrast), files

  def describe(self, tokenizer: Tokenizer) -> bytes:
    """model.json of the checkpoints."""
    return metadata.describe_model(self.model, tokenizer, self.contrast)


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
  keys_per_push = 0
  contrast = train_state.contrastive(objectives)
  if contrast is not None:
    keys_per_push = streams[contrast.stream].batch
    keys_per_push //= microbatches if update.push_per_microbatch else 1
  state = train_state.abstract(
    model, objectives, update.optimizer, keys_per_push, mesh, parallelism.zero1
  )
  return Program(
    model, objectives, streams, update, parallelism, mesh, state, keys_per_push
  )


def count_parameters(params: Any) -> int:
  """Parameters in a tree of arrays, the padding of the vocabulary included."""
  return sum(math.prod(x.shape) for x in jax.tree.leaves(params))
