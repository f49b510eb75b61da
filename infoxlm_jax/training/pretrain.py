"""The pretraining job: setup builds a run, `train` is the loop over updates."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from infoxlm_jax.evaluation.retrieval_eval import SPLITS
from infoxlm_jax.model import partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.base import Objective
from infoxlm_jax.runtime import distributed, host_memory
from infoxlm_jax.runtime.metrics import MetricWriter
from infoxlm_jax.runtime.progress import Progress
from infoxlm_jax.runtime.signals import Stopped, StopRequest, Watchdog
from infoxlm_jax.training import (
  alarm,
  kept_files,
  recovery,
  setup,
  validation,
)
from infoxlm_jax.training.bad_updates import BadUpdates, UpdateWatch
from infoxlm_jax.training.options import (
  CheckpointOptions,
  DataOptions,
  EvaluationOptions,
  Parallelism,
  RunOptions,
  UpdateOptions,
  WeightOptions,
)
from infoxlm_jax.training.program import make_program
from infoxlm_jax.training.run import Run
from infoxlm_jax.training.train_log import TrainingLog


def pretrain(
  *,
  run: RunOptions,
  model: EncoderConfig,
  objectives: Mapping[str, Objective],
  streams: Mapping[str, Any],
  update: UpdateOptions,
  parallelism: Parallelism,
  data: DataOptions,
  weights: WeightOptions,
  evaluation: EvaluationOptions,
  checkpoints: CheckpointOptions,
  on_start: Callable[[], None] = lambda: None,
) -> None:
  """Pretrains an encoder; started again, it goes on exactly where it was.

  Args:
    run: folder, length and seed of the run.
    model: shapes of the encoder; its vocabulary must be the tokenizer's.
    objectives: the losses, by name.
    streams: the batches that objectives read, by name. A stream that no
      objective reads is left out. Rows of None are chosen from the prepared
      data.
    update: optimiser, learning rate and the sum of the losses.
    parallelism: the devices, and how a batch is split over them.
    data: the prepared data, or how to prepare them.
    weights: the initial parameters; random ones by default.
    evaluation: how often to evaluate, and on how many batches.
    checkpoints: how often to save, and which checkpoints to keep.
    on_start: called once when the input is accepted, before the first update.

  Raises:
    InputError, StorageError: see errors.
    Diverged: updates went wrong again after the run went back to a checkpoint,
      or there was none; the last good checkpoint is kept.
    Stopped: a signal asked the run to stop; everything is saved.
  """
  validation.check_options(run, parallelism, evaluation, checkpoints)
  mesh = partitioning.make_mesh(parallelism.mesh)
  program = make_program(model, objectives, streams, update, parallelism, mesh)
  ready = setup.start(
    run, program, data, weights, evaluation, checkpoints, on_start
  )
  if ready is not None:
    train(ready)


def train(run: Run) -> None:
  """Trains a run to its last update and writes its report.

  Raises:
    StorageError, Diverged, Stopped: see pretrain.
  """
  files = {**run.model_files, **kept_files.to_copy(run.folder)}
  run = dataclasses.replace(run, model_files=files)
  with run.checkpoints, StopRequest() as stop:
    while True:
      try:
        return _train(run, stop)
      except BadUpdates as error:
        bad = error.with_traceback(None)  # which holds the state's arrays
      run = recovery.go_back(run, bad)


def _train(run: Run, stop: StopRequest) -> None:
  """See train.

  Raises:
    BadUpdates: updates went wrong; the run's position is after them.
  """
  state, position, done = run.state, run.position, int(run.state.step)
  steps, is_main = run.options.steps, jax.process_index() == 0
  with (
    MetricWriter(run.folder, is_main, done if run.resumed else None) as writer,
    Progress(steps, done, enabled=is_main) as progress,
    Watchdog(run.options.hang_seconds) as watchdog,
  ):
    agreed = distributed.Agreement()
    log = TrainingLog(
      writer,
      progress,
      every=run.options.log_every,
      watch=UpdateWatch(
        run.options.bad_updates_allowed,
        run.options.spike_sigmas,
        run.options.spike_updates,
      ),
      tokens=position.tokens,
    )

    def evaluate(number: int, splits: Sequence[str]) -> Any:
      evaluation = run.evaluator(state, splits)
      epochs = run.feed.epochs(run.store, position.samples)
      evaluation.metric(run.best_metric)  # one that there is
      writer.write(number, evaluation.metrics | epochs)
      progress.say(f"update {number}: {evaluation}")
      return evaluation

    start = None
    if run.resumed:
      progress.say(f"going on after update {done}")
    else:
      # Before anything is measured: every key looks right in an empty queue.
      state = run.fill(state, progress.say)
      _leave_if_asked(agreed, stop)
      progress.say("measuring what the weights can do before the first update")
      start = evaluate(0, SPLITS)
      run.evaluator.keep_start(start)

    train_step = recovery.with_replay(
      run.program.train_step(), run.options.replay_every
    )
    if done < steps:
      _leave_if_asked(agreed, stop)
    batches = run.feed.draw(run.store, position.samples, steps - done)
    host_memory.give_back_freed()
    for number in range(done + 1, steps + 1):
      with log.waiting():
        batch, counts = next(batches)
      state, metrics = train_step(state, batch)
      position.advance(run.program.streams)
      log.add(number, metrics, counts)
      last, best_metric = number == steps, None
      if number % run.eval_every == 0 and not last:
        with log.paused():
          log.flush()
          evaluation = evaluate(number, ("dev",))
          best_metric = evaluation.metric(run.best_metric)
          if problem := alarm.collapse_warning(
            run.program, log.latest, number, run.options.log_every
          ):
            progress.say(f"warning: {problem}")
      code = agreed(stop.code)
      leaving = code is not None and not last
      if number % run.save_every == 0 or last or leaving:
        with log.paused():
          log.flush()
          recovery.check_finite(state)
          position.tokens, position.seconds = log.tokens, run.seconds()
          files = {**run.model_files, **position.file()}
          wait = leaving or last
          run.checkpoints.save(state, files, metric=best_metric, wait=wait)
      watchdog.alive()
      if leaving:
        raise Stopped(code or 0)
    end = evaluate(steps, SPLITS)
    run.checkpoints.wait()
  run.evaluator.report(run.facts(log.tokens), start, end)


def _leave_if_asked(agreed: distributed.Agreement, stop: StopRequest) -> None:
  """Raises Stopped if a signal came before the first update of this start.

  There is nothing to save then.
  """
  agreed(stop.code)  # of several processes, the next call has this one's codes
  if (code := agreed(stop.code)) is not None:
    raise Stopped(code)
