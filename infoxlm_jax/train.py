"""The pretraining job: build everything once, then a short loop."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from infoxlm_jax import (
  checks,
  costs,
  negatives,
  partitioning,
  run_folder,
  side_steps,
  step,
)
from infoxlm_jax import state as train_state
from infoxlm_jax.checkpoint import Checkpoints
from infoxlm_jax.data import loader
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizer import Tokenizer, load_tokenizer
from infoxlm_jax.encoder import EncoderConfig
from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation import health, results
from infoxlm_jax.evaluation.during import Evaluation, best_of, in_words
from infoxlm_jax.metrics import MetricWriter
from infoxlm_jax.objectives.objective import Objective
from infoxlm_jax.progress import Progress
from infoxlm_jax.schedules import Schedule, constant
from infoxlm_jax.signals import Stopped, StopRequest, Watchdog
from infoxlm_jax.state import TrainState
from infoxlm_jax.training_log import TrainingLog

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
  weights: Mapping[str, float] | None = None,
  start_steps: Mapping[str, int] | None = None,
  data: str | None = None,
  prepare: Callable[..., Any] | None = None,
  mesh: Callable[[], Mesh] = partitioning.make_mesh,
  microbatches: int = 1,
  push_per_microbatch: bool = False,
  seed: int = 0,
  eval_every: int = 1000,
  eval_batches: int = 8,
  save_every: int = 5000,
  log_every: int = 10,
  keep_latest: int = 3,
  keep_best: int = 1,
  bad_updates_allowed: int = 0,
  hang_seconds: float | None = None,
  on_start: Callable[[], None] = lambda: None,
  dry_run: bool = False,
) -> None:
  """Pretrains an encoder; started again, it goes on exactly where it was.

  Args:
    model_dir: the run's folder.
    model: shapes of the encoder; its vocabulary must be the tokenizer's.
    objectives: what is trained, by name.
    streams: what the objectives read, by name. One that no objective reads
      is left out.
    optimizer: built with `learning_rate`.
    learning_rate: rate of update n + 1 as a function of n.
    steps: updates of the whole run.
    groups: pieces that a batch is built in; a multiple of every number of
      devices times microbatches that the run is to be continued on.
    momentum: of the key encoder, as a function of updates done.
    loss_norm: see step.make_train_step, as for the next four.
    weights: factor of each objective's loss.
    start_steps: update from which an objective counts.
    microbatches: pieces in which a device computes its groups.
    push_per_microbatch: when keys join the queue.
    data: a folder that `prepare` wrote. None: prepare now, into the run's
      folder, with `prepare`.
    prepare: called with output=folder when `data` is None.
    mesh: builds the device mesh.
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
    on_start: called once when the input is accepted, before the work.
    dry_run: print shapes and costs, and touch nothing.

  Raises:
    InputError, StorageError: see errors.
    Diverged: the last good checkpoint is kept.
    Stopped: asked to stop by a signal; everything is saved.
  """
  devices = mesh()
  streams = checks.used_streams(objectives, streams)
  checks.check_training(
    model, objectives, streams, groups, devices.size * microbatches, steps
  )
  checks.check_weighting(objectives, loss_norm, weights, start_steps)
  contrast = train_state.contrastive(objectives)
  keys_per_push = 0
  if contrast is not None:
    keys_per_push = streams[contrast.stream].batch
    keys_per_push //= microbatches if push_per_microbatch else 1
  abstract = train_state.abstract(
    model, objectives, optimizer, keys_per_push, devices
  )
  if dry_run:
    print(costs.describe(model, abstract, objectives, streams, devices))
    return

  folder = Path(model_dir)
  run_folder.claim(
    model_dir,
    {
      "model": dataclasses.asdict(model),
      "objectives": {name: repr(o) for name, o in objectives.items()},
      "seed": seed,
      "data": data or "prepared into this folder",
    },
  )
  if results.say_if_finished(folder, steps):
    return
  is_main = jax.process_index() == 0
  if is_main:
    run_folder.write_environment(folder)
    on_start()

  data_folder = _prepared(folder, data, prepare)
  tokenizer = load_tokenizer(data_folder / "tokenizer.model")
  checks.check_tokenizer(model, tokenizer)
  store = Store(data_folder / "train")
  mine = partitioning.local_groups(devices, groups)

  def batches(
    source: Store, samples: Mapping[str, int], updates: int, data_seed: int
  ) -> Iterator[tuple[Any, Any]]:
    drawn = loader.batches(
      streams,
      source,
      seed=data_seed,
      positions=samples,
      groups=groups,
      local_groups=mine,
      steps=updates,
    )
    for arrays, counts in drawn:
      yield partitioning.global_batch(arrays, devices), counts

  train_step = step.make_train_step(
    abstract,
    devices,
    model,
    objectives,
    optimizer,
    learning_rate=learning_rate,
    momentum=momentum,
    loss_norm=loss_norm,
    weights=weights,
    start_steps=start_steps,
    microbatches=microbatches,
    push_per_microbatch=push_per_microbatch,
  )
  nothing_drawn = dict.fromkeys(streams, 0)
  evaluate = Evaluation(
    data_folder,
    tokenizer,
    model,
    devices,
    side_steps.make_eval_step(abstract, devices, model, objectives),
    lambda held_out: batches(
      held_out, nothing_drawn, eval_batches, seed + _EVAL
    ),
    row_length=min(128, model.max_positions),
  )

  def first_state() -> TrainState:
    return train_state.init_sharded(
      seed, model, objectives, optimizer, keys_per_push, devices
    )

  checkpoints = Checkpoints(folder / "checkpoints", keep_latest, keep_best)
  restored = checkpoints.restore(abstract)
  if restored is None:
    state, position = first_state(), Position(nothing_drawn)
  else:
    state, stored = restored
    checks.check_restored(stored, tokenizer, streams)
    position = Position.read(stored)
    state = _reslotted(state, abstract, contrast)
  done = int(state.step)
  checks.check_steps(steps, done)
  files = {
    "model.json": _model_json(model, tokenizer, contrast),
    "tokenizer.model": Path(tokenizer.path).read_bytes(),
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
    clock = _Clock(position.seconds)

    def save(metric: float | None, wait: bool) -> None:
      position.tokens, position.seconds = log.tokens, clock()
      checkpoints.save(
        state, files | position.files(), metric=metric, wait=wait
      )

    if restored is None:
      start = evaluate(state, ("dev", "test"))
      writer.write(0, evaluate.metrics)
      progress.say(f"update 0: {in_words(evaluate.metrics)}")
      if contrast is not None:
        state = _fill_queue(
          state,
          side_steps.make_fill_step(abstract, devices, model, objectives),
          lambda updates: batches(store, nothing_drawn, updates, seed + _FILL),
          contrast.queue_size,
          streams[contrast.stream].batch,
        )
    else:
      start = None
      progress.say(f"going on after update {done}")

    stream = batches(store, position.samples, steps - done, seed)
    for number in range(done + 1, steps + 1):
      with log.waiting():
        batch, counts = next(stream)
      state, metrics = train_step(state, batch)
      position.advance(streams)
      log.add(number, metrics, counts)
      watchdog.alive()
      last = number == steps
      metric = None
      if number % eval_every == 0 and not last:
        with log.paused():
          log.flush()
          evaluate(state, ("dev",))
          writer.write(number, evaluate.metrics)
          progress.say(f"update {number}: {in_words(evaluate.metrics)}")
          if problem := health.collapsed(log.latest):
            progress.say(f"warning: {problem}")
          metric = best_of(evaluate.metrics)
      leaving = stop.code is not None and not last
      if number % save_every == 0 or last or leaving:
        with log.paused():
          log.flush()
          save(metric, wait=leaving)
      watchdog.alive()
      if leaving:
        raise Stopped(stop.code or 0)
    end = evaluate(state, ("dev", "test"))
    writer.write(steps, evaluate.metrics)
    checkpoints.wait()
  if start is None:
    start = evaluate(first_state(), ("dev", "test"))
  if is_main:
    facts = {
      "steps": steps,
      "tokens": log.tokens,
      "seconds": clock(),
      "parameters": costs.count_parameters(state.params),
      "seed": seed,
      "objectives": ", ".join(objectives),
      "data_sha256": store.manifest_sha256,
      "tokenizer_sha256": tokenizer.sha256,
    }
    results.write(folder, facts, start, end, f"Report of {folder.name}")


@dataclasses.dataclass
class Position:
  """What a checkpoint must know besides the arrays, kept on the host.

  Batches are a function of (seed, samples drawn), so this is all that an
  exact resume of the data needs.
  """

  samples: dict[str, int]  # drawn so far, by stream
  tokens: int = 0
  seconds: float = 0.0

  @classmethod
  def read(cls, files: Mapping[str, bytes]) -> "Position":
    return cls(**json.loads(files["position.json"]))

  def files(self) -> dict[str, bytes]:
    return {"position.json": json.dumps(dataclasses.asdict(self)).encode()}

  def advance(self, streams: Mapping[str, Any]) -> None:
    self.samples = {
      name: self.samples[name] + stream.batch
      for name, stream in streams.items()
    }


class _Clock:
  """Seconds of the run, those of earlier processes included."""

  def __init__(self, before: float):
    self._start = time.monotonic() - before

  def __call__(self) -> float:
    return time.monotonic() - self._start


def _prepared(
  folder: Path, data: str | None, prepare: Callable[..., Any] | None
) -> Path:
  if data is not None:
    return Path(data)
  if prepare is None:
    raise InputError(
      "neither DATA (a prepared folder) nor a way to prepare one is given;"
      " set --gin.DATA=FOLDER"
    )
  output = folder / "data"
  if jax.process_index() == 0:
    prepare(output=output)
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices("data prepared")
  return output


def _fill_queue(
  state: TrainState,
  fill_step: Callable[..., TrainState],
  batches: Callable[[int], Iterator[tuple[Any, Any]]],
  queue_size: int,
  batch_size: int,
) -> TrainState:
  """Fills the queue with keys of data before the first update (spec 1.3)."""
  for number, (batch, _) in enumerate(batches(-(-queue_size // batch_size))):
    state = fill_step(state, batch, number)
  return state


def _reslotted(
  state: TrainState, abstract: TrainState, contrast: Any
) -> TrainState:
  """The state with its queue in this run's batch size."""
  if state.queue is None or abstract.queue is None:
    return state
  batch = abstract.queue.keys.shape[1]
  if batch == state.queue.keys.shape[1]:
    return state
  reslot = jax.jit(
    lambda queue: negatives.reslot(queue, contrast.queue_size, batch),
    out_shardings=jax.tree.map(lambda x: x.sharding, abstract.queue),
  )
  return dataclasses.replace(state, queue=reslot(state.queue))


def _model_json(
  model: EncoderConfig, tokenizer: Tokenizer, contrast: Any
) -> bytes:
  """What one must know to use the weights, without any gin."""
  described = {
    "architecture": "xlm-roberta",
    "encoder": dataclasses.asdict(model),
    "padded_vocab": model.padded_vocab,
    "special_ids": {"bos": 0, "pad": model.pad_id, "eos": 2, "unk": 3}
    | {"mask": model.mask_id},
    "tokenizer_sha256": tokenizer.sha256,
    "contrast": None if contrast is None else dataclasses.asdict(contrast),
  }
  return json.dumps(described, indent=2).encode()
