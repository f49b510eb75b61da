"""The pretraining job: build everything once, then a short loop."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import optax

from infoxlm_jax.analysis import compile_ahead, cost_model, targets
from infoxlm_jax.checkpoint import metadata
from infoxlm_jax.checkpoint.manager import Checkpoints
from infoxlm_jax.checkpoint.metadata import Position, describe_model
from infoxlm_jax.data import row_budget
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation import collapse
from infoxlm_jax.evaluation.evaluator import Evaluation, best_of, in_words
from infoxlm_jax.evaluation.report import final_report
from infoxlm_jax.evaluation.report.final_report import Scores
from infoxlm_jax.evaluation.retrieval_eval import SPLITS
from infoxlm_jax.model import attention, partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.base import Objective
from infoxlm_jax.runtime import distributed, host_memory, run_dir
from infoxlm_jax.runtime.files import write_atomically
from infoxlm_jax.runtime.metrics import MetricWriter
from infoxlm_jax.runtime.progress import Progress
from infoxlm_jax.runtime.run_layout import find_step
from infoxlm_jax.runtime.signals import Stopped, StopRequest, Watchdog
from infoxlm_jax.training import eval_step, initial_weights, step, validation
from infoxlm_jax.training import state as train_state
from infoxlm_jax.training.input_pipeline import Feed, prepared_folder
from infoxlm_jax.training.schedules import Schedule, constant
from infoxlm_jax.training.state import TrainState
from infoxlm_jax.training.train_log import TrainingLog

# Pre-fill and evaluation draw data and masks of their own, so that neither
# shifts the batches or the random numbers of training.
_FILL, _EVAL = 1, 2
_MOMENTUM = constant(0.9999)


def pretrain(
  *,
  model_dir: str,
  model: EncoderConfig,
  objectives: Mapping[str, Objective],
  streams: Mapping[str, Any],
  optimizer: optax.GradientTransformation,
  learning_rate: Schedule,
  steps: int,
  groups: int,
  momentum: Schedule = _MOMENTUM,
  loss_norm: str = "joint_sum",
  data: str | None = None,
  init_from: str | None = None,
  allow_pickle: bool = False,
  prepare: Callable[..., Any] | None = None,
  mesh: partitioning.MeshShape = partitioning.ALL_DEVICES,
  microbatches: int = 1,
  push_per_microbatch: bool = False,
  zero1: bool = False,
  seed: int = 0,
  eval_every: int = 1000,
  eval_batches: int = 8,
  save_every: int = 5000,
  log_every: int = 10,
  keep_latest: int = 3,
  keep_best: int = 1,
  bad_updates_allowed: int = 0,
  hang_seconds: float | None = None,
  target: str | None = None,
  on_start: Callable[[], None] = lambda: None,
  dry_run: bool = False,
  compile_for: str | None = None,
  json_file: str | None = None,
) -> None:
  """Pretrains an encoder; started again, it goes on exactly where it was.

  Args:
    model_dir: the run's folder.
    model: shapes of the encoder; its vocabulary must be the tokenizer's.
    objectives: what is trained, by name.
    streams: what the objectives read, by name. One that no objective reads
      is left out. Rows of None are chosen from the prepared data.
    optimizer: built with `learning_rate`.
    learning_rate: rate of update n + 1 as a function of n.
    steps: updates of the whole run.
    groups: pieces that a batch is built in; a multiple of every number of
      devices times microbatches that the run is to be continued on.
    momentum: of the key encoder, as a function of updates done.
    loss_norm: see step.make_train_step, as for the next two.
    microbatches: pieces in which a device computes its groups.
    push_per_microbatch: when keys join the queue.
    zero1: split what the optimiser keeps, and its work, over the devices
      that hold copies of a parameter.
    data: a folder that `prepare` wrote. None: prepare now, into the run's
      folder, with `prepare`.
    init_from: weights to start from, see weights.load.load_weights. None:
      random ones. Read at the first start only.
    allow_pickle: whether `init_from` may be one of torch's pickled files.
    prepare: called with output=folder when `data` is None.
    mesh: sizes of the device mesh.
    seed: of the parameters, the masks and the order of the data.
    eval_every: updates between evaluations on dev.
    eval_batches: batches of held-out text that losses are measured on.
    save_every: updates between checkpoints.
    log_every: updates between lines of metrics.jsonl.
    keep_latest: newest checkpoints to keep.
    keep_best: checkpoints with the highest dev retrieval to keep besides.
    bad_updates_allowed: consecutive updates without a finite loss and
      gradient (each changes nothing) before the run stops.
    hang_seconds: end the process when no update came for so long.
    target: the machine that the configuration is meant for, as compile_for;
      a dry run tells what it costs there. A run takes what it finds.
    on_start: called once when the input is accepted, before the work.
    dry_run: print shapes and costs, and touch nothing.
    compile_for: compile the step for this machine, which need not be here
      (see targets), print what it costs there, and touch nothing.
    json_file: where these two write what they print.

  Raises:
    InputError, StorageError: see errors.
    Diverged: the last good checkpoint is kept.
    DoesNotFit: compile_for finds too little memory there.
    Stopped: asked to stop by a signal; everything is saved.
  """
  looking = dry_run or compile_for is not None
  meant_for = compile_for or target
  if looking:
    machine = targets.parse(meant_for) if meant_for else None
    devices = compile_ahead.mesh_for(mesh, machine, compile_for is not None)
  else:
    devices = partitioning.make_mesh(mesh)
  streams = validation.used_streams(objectives, streams)
  validation.check_counts(
    steps=steps,
    groups=groups,
    microbatches=microbatches,
    eval_every=eval_every,
    eval_batches=eval_batches,
    save_every=save_every,
    log_every=log_every,
    keep_latest=keep_latest,
  )
  validation.check_training(
    model, objectives, streams, groups, devices.size * microbatches
  )
  validation.check_loss_norm(loss_norm)
  contrast = train_state.contrastive(objectives)
  keys_per_push = 0
  if contrast is not None:
    keys_per_push = streams[contrast.stream].batch
    keys_per_push //= microbatches if push_per_microbatch else 1
  abstract = train_state.abstract(
    model, objectives, optimizer, keys_per_push, devices, zero1
  )

  build_step = functools.partial(
    step.make_train_step,
    abstract,
    devices,
    model,
    objectives,
    optimizer,
    learning_rate=learning_rate,
    momentum=momentum,
    loss_norm=loss_norm,
    microbatches=microbatches,
    push_per_microbatch=push_per_microbatch,
    zero1=zero1,
  )
  if looking:
    if init_from is not None:
      initial_weights.check(init_from, model, allow_pickle)
    compile_ahead.look(
      model,
      abstract,
      objectives,
      _fitted_for_dry_run(streams, data, groups),
      devices,
      groups=groups,
      microbatches=microbatches,
      zero1=zero1,
      target=machine,
      build=build_step if compile_for is not None else None,
      json_file=json_file,
    )
    return

  folder = Path(model_dir)
  source = init_from if find_step(folder) is None else None
  if source is not None:
    initial_weights.check(source, model, allow_pickle)

  attention.check(
    model.attention,
    model.num_heads,
    model.hidden_size // model.num_heads,
    max(stream.row_length for stream in streams.values()),
    model.dtype,
  )
  weights = None
  if source is not None:
    # Before the folder is claimed: bad weights leave nothing behind.
    weights = initial_weights.read_params(
      source,
      allow_pickle=allow_pickle,
      seed=seed,
      model=model,
      objectives=objectives,
      mesh=devices,
    )

  def first_state() -> TrainState:
    if weights is not None:
      return initial_weights.state_of(
        weights[0], seed, objectives, optimizer, abstract, keys_per_push
      )
    return train_state.init_sharded(
      seed, model, objectives, optimizer, keys_per_push, devices, zero1
    )

  identity = {
    "model": dataclasses.asdict(model),
    "objectives": {name: _lasting(o) for name, o in objectives.items()},
    "seed": seed,
    "data": data or "prepared into this folder",
    "init_from": init_from,
  }
  run_dir.claim(model_dir, identity)
  if final_report.say_if_finished(folder, steps):
    return
  started = time.monotonic()
  is_main = jax.process_index() == 0
  if is_main:
    run_dir.write_environment(folder)
    if weights is not None:
      print(weights[1])
      write_atomically(folder / initial_weights.REPORT_FILE, f"{weights[1]}\n")
    on_start()

  data_folder = prepared_folder(folder, data, prepare)
  tokenizer = load_tokenizer(data_folder)
  validation.check_tokenizer(model, tokenizer)
  if source is not None:
    initial_weights.check_tokenizer(source, tokenizer)
  store = Store(data_folder / "train")
  streams, fits = row_budget.fit_all(streams, store, groups)
  if is_main:
    run_dir.claim_data(folder, store.manifest_sha256)
    run_dir.write_rows(folder, streams, fits)
    row_budget.say(streams, fits)
  feed = Feed(streams, devices, groups, seed)

  checkpoints = Checkpoints(folder / "checkpoints", keep_latest, keep_best)
  restored = checkpoints.restore(abstract)
  if restored is None:
    state, position = first_state(), Position(feed.start())
    weights = None  # the state has taken them over
  else:
    state, stored = restored
    validation.check_restored(stored, tokenizer, streams)
    position = Position.read(stored)
    state = train_state.reslotted(state, abstract, contrast)
  done = int(state.step)
  validation.check_steps(steps, done)
  started -= position.seconds

  train_step = build_step()
  held_out_feed = feed.apart(_EVAL)
  evaluate = Evaluation(
    data_folder,
    tokenizer,
    model,
    devices,
    eval_step.make_eval_step(abstract, devices, model, objectives),
    lambda held_out: held_out_feed.draw(held_out, feed.start(), eval_batches),
    row_length=min(128, model.max_positions),
  )
  files = {
    metadata.MODEL: describe_model(model, tokenizer, contrast),
    **tokenizer.files,
  }
  with (
    checkpoints,
    MetricWriter(folder, is_main, done if restored else None) as writer,
    Progress(steps, done, enabled=is_main) as progress,
    StopRequest() as stop,
    Watchdog(hang_seconds) as watchdog,
  ):
    log = TrainingLog(
      writer,
      progress,
      every=log_every,
      bad_updates_allowed=bad_updates_allowed,
      tokens=position.tokens,
    )

    def scores(number: int, splits: Sequence[str]) -> Scores:
      found = evaluate(state, splits)
      epochs = feed.epochs(store, position.samples)
      writer.write(number, evaluate.metrics | epochs)
      progress.say(f"update {number}: {in_words(evaluate.metrics)}")
      return found

    start: Scores | None = None
    if restored is None:
      progress.say("measuring what the weights can do before the first update")
      start = scores(0, SPLITS)
      if is_main:
        final_report.keep_start(folder, start)
      if contrast is not None:
        fill = eval_step.make_fill_step(abstract, devices, model, objectives)
        pushes = -(-contrast.queue_size // streams[contrast.stream].batch)
        progress.say(f"filling the queue: {pushes} batches of keys")
        drawn = feed.apart(_FILL).draw(store, feed.start(), pushes)
        for number, (batch, _) in enumerate(drawn):
          state = fill(state, batch, number)
    else:
      progress.say(f"going on after update {done}")

    agreed = distributed.Agreement()
    batches = feed.draw(store, position.samples, steps - done)
    host_memory.give_back_freed()
    for number in range(done + 1, steps + 1):
      with log.waiting():
        batch, counts = next(batches)
      state, metrics = train_step(state, batch)
      position.advance(streams)
      log.add(number, metrics, counts)
      last = number == steps
      best = None
      if number % eval_every == 0 and not last:
        with log.paused():
          log.flush()
          scores(number, ("dev",))
          if problem := collapse.collapsed(log.latest):
            progress.say(f"warning: {problem}")
          best = best_of(evaluate.metrics)
      code = agreed(stop.code)
      leaving = code is not None and not last
      if number % save_every == 0 or last or leaving:
        with log.paused():
          log.flush()
          position.tokens = log.tokens
          position.seconds = time.monotonic() - started
          checkpoints.save(
            state, files | position.file(), metric=best, wait=leaving
          )
      watchdog.alive()
      if leaving:
        raise Stopped(code or 0)
    end = scores(steps, SPLITS)
    checkpoints.wait()
  if start is None:
    # Random ones are made again; given ones are read once, and may be gone.
    start = (
      final_report.read_start(folder)
      if init_from
      else evaluate(first_state(), SPLITS)
    )
  if is_main:
    facts = {
      "steps": steps,
      "tokens": log.tokens,
      "seconds": time.monotonic() - started,
      "parameters": cost_model.count_parameters(state.params),
      "seed": seed,
      "objectives": ", ".join(objectives),
      "data_hash": store.manifest_sha256,
      "tokenizer_hash": tokenizer.sha256,
    }
  with distributed.together("writing the report"):
    if is_main:
      final_report.write(folder, facts, start, end, f"Report of {folder.name}")


def _fitted_for_dry_run(
  streams: Mapping[str, Any], data: str | None, groups: int
) -> Mapping[str, Any]:
  """The streams with rows, which may have to be chosen from DATA."""
  waiting = [name for name, stream in streams.items() if stream.rows is None]
  if not waiting:
    return streams
  if data is None:
    raise InputError(
      f"the streams {waiting} have rows = None, to be chosen from the prepared"
      " data, and none are given: add --gin.DATA=FOLDER to this dry run"
      " (prepare them first), or give the streams a number of rows"
    )
  fitted, fits = row_budget.fit_all(
    streams, Store(Path(data) / "train"), groups
  )
  row_budget.say(fitted, fits)
  return fitted


def _lasting(objective: Any) -> str:
  """An objective's options but those that may change on the way."""
  return repr(dataclasses.replace(objective, weight=1.0, start_step=0))
