"""A run that is ready for its next update, whatever it trains."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from infoxlm_jax.checkpoint import metadata
from infoxlm_jax.checkpoint.importers.report import Report
from infoxlm_jax.checkpoint.manager import Checkpoints
from infoxlm_jax.checkpoint.metadata import Position
from infoxlm_jax.data import row_budget
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.evaluation.evaluator import Evaluates
from infoxlm_jax.model import attention
from infoxlm_jax.runtime import run_dir
from infoxlm_jax.runtime.files import write_atomically
from infoxlm_jax.runtime.run_layout import CHECKPOINTS, find_step
from infoxlm_jax.training import initial_weights, validation
from infoxlm_jax.training.input_pipeline import Feed
from infoxlm_jax.training.options import (
  CheckpointOptions,
  RunOptions,
  WeightOptions,
)
from infoxlm_jax.training.program import Program
from infoxlm_jax.training.state import TrainState, count_parameters

# Filling the queue and evaluation draw data of their own, so that neither
# shifts the batches of training.
_FILL, EVALUATION = 1, 2


@dataclasses.dataclass(frozen=True)
class Run:
  """A run that is ready for its next update.

  Attributes:
    folder: the run's.
    options: see options.RunOptions.
    eval_every, save_every: updates between evaluations and checkpoints.
    program: the steps to compile and their shapes; all streams have rows.
    tokenizer: of the data and the model.
    store: records to train on, or labelled examples.
    feed: draws the batches.
    evaluator: measures a state, and writes the report at the end.
    checkpoints: open; the loop closes them.
    model_files: small files that every checkpoint gets, by name.
    state: before the next update, which donates its arrays.
    position: in the data, before the next update; the loop advances it.
    resumed: whether state and position come from a checkpoint.
    best_metric: see options.CheckpointOptions.
    returned_to: step of the checkpoint that the run went back to after bad
      updates; None: it did not.
    started: time.monotonic() at which a run that was never interrupted would
      have begun.
  """

  folder: Path
  options: RunOptions
  eval_every: int
  save_every: int
  program: Program
  tokenizer: Tokenizer
  store: Any
  feed: Feed
  evaluator: Evaluates
  checkpoints: Checkpoints
  model_files: Mapping[str, bytes]
  state: TrainState
  position: Position
  resumed: bool
  started: float
  best_metric: str | None = None
  returned_to: int | None = None

  def seconds(self) -> float:
    """Seconds that the run has taken, earlier starts included."""
    return time.monotonic() - self.started

  def fill(
    self,
    state: TrainState,
    say: Callable[[str], None],
    before_each: Callable[[], None],
  ) -> TrainState:
    """Fills queues with keys of batches that training does not see.

    Args:
      state: before the first update; its arrays are donated.
      say: prints a line.
      before_each: called before each batch; may raise Stopped.
    """
    program, feed = self.program, self.feed
    for name, count in program.fill_batches().items():
      say(f"filling the queue of {name}: {count} batches of keys")
      fill = program.fill_step(name)
      batches = feed.apart(_FILL).draw(self.store, feed.start(), count)
      for number, (batch, _) in enumerate(batches):
        before_each()
        state = fill(state, batch, number)
    return state

  def facts(self, tokens: int) -> dict[str, Any]:
    """The facts of the run for results.json.

    Args:
      tokens: number of tokens trained on.
    """
    return {
      "steps": self.options.steps,
      "tokens": tokens,
      "seconds": self.seconds(),
      "parameters": count_parameters(self.program.state.params),
      "seed": self.options.seed,
      "objectives": ", ".join(self.program.objectives),
      "data_hash": self.store.manifest_sha256,
      "tokenizer_hash": self.tokenizer.sha256,
    }


def assemble(
  run: RunOptions,
  program: Program,
  store: Any,
  tokenizer: Tokenizer,
  given: tuple[dict[str, Any], Report] | None,
  *,
  evaluator_of: Callable[[Program, Feed], Evaluates],
  eval_every: int,
  checkpoints: CheckpointOptions,
  started: float,
) -> Run:
  """A run on data that are open, in a folder that is claimed.

  Args:
    run, program, checkpoints: see setup.start.
    store: records to train on: a Store, or an ExampleStore.
    tokenizer: of the data and the model.
    given: the initial weights; None: random, or a checkpoint's.
    evaluator_of: makes the evaluator of (program, feed).
    eval_every: updates between evaluations.
    started: time.monotonic() of this start.

  Raises:
    InputError: the checkpoint is of another configuration.
  """
  folder = Path(run.model_dir)
  program = _claim_data(folder, program, store)
  feed = Feed(
    program.streams, program.mesh, program.parallelism.groups, run.seed
  )
  opened = Checkpoints(folder / CHECKPOINTS, checkpoints.retention())
  restored = _restore(opened, program, tokenizer, run.steps)
  state, position = restored or _first_state(program, given, feed)
  described = program.describe(tokenizer)
  return Run(
    folder=folder,
    options=run,
    eval_every=eval_every,
    save_every=checkpoints.save_every,
    program=program,
    tokenizer=tokenizer,
    store=store,
    feed=feed,
    evaluator=evaluator_of(program, feed),
    checkpoints=opened,
    model_files={metadata.MODEL: described, **tokenizer.files},
    state=state,
    position=position,
    resumed=restored is not None,
    started=started - position.seconds,
    best_metric=checkpoints.best_metric,
  )


def read_weights(
  folder: Path, program: Program, weights: WeightOptions, seed: int
) -> tuple[dict[str, Any], Report] | None:
  """The initial parameters; None if they are random or a checkpoint exists.

  Checks the weights' shapes first, which is quick, then the attention kernel
  on these devices, and only then reads the tensors.
  """
  model, source = program.model, weights.init_from
  if find_step(folder) is not None:
    source = None  # the run goes on from its checkpoint
  if source is not None:
    initial_weights.check(source, model, weights.allow_pickle)
  attention.check(
    model.attention,
    model.num_heads,
    model.hidden_size // model.num_heads,
    max(stream.row_length for stream in program.streams.values()),
    model.dtype,
  )
  if source is None:
    return None
  return initial_weights.read_params(
    source,
    allow_pickle=weights.allow_pickle,
    seed=seed,
    model=model,
    objectives=program.objectives,
    mesh=program.mesh,
  )


def keep_weights_report(folder: Path, report: Report) -> None:
  """Writes what was read of the weights into the run's folder."""
  write_atomically(folder / initial_weights.REPORT_FILE, f"{report}\n")


def _claim_data(folder: Path, program: Program, store: Store) -> Program:
  """Writes data.json and rows.json; returns the program with all rows set."""
  groups = program.parallelism.groups
  streams, fits = row_budget.fit_all(program.streams, store, groups)
  if jax.process_index() == 0:
    run_dir.claim_data(folder, store.manifest_sha256)
    run_dir.write_rows(folder, streams, fits)
    row_budget.say(streams, fits)
    row_budget.say_large_batches(streams, store)
  return dataclasses.replace(program, streams=streams)


def _restore(
  checkpoints: Checkpoints, program: Program, tokenizer: Tokenizer, steps: int
) -> tuple[TrainState, Position] | None:
  """State and position of the newest checkpoint, if there is one."""
  restored = program.restore(checkpoints)
  if restored is None:
    return None
  state, files = restored
  validation.check_restored(files, tokenizer, program.streams)
  validation.check_steps(steps, int(state.step))
  return state, Position.read(files)


def _first_state(
  program: Program, given: tuple[dict[str, Any], Report] | None, feed: Feed
) -> tuple[TrainState, Position]:
  position = Position(feed.start())
  if given is not None:
    return program.state_of(given[0], feed.seed), position
  return program.random_state(feed.seed), position
