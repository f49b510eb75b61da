"""The fine-tuning job: a run for each seed, on the loop of pretraining."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from infoxlm_jax.checkpoint.importers.find_tokenizer import (
  find_tokenizer,
  with_ids_of,
)
from infoxlm_jax.checkpoint.importers.load import load_weights
from infoxlm_jax.data.labelled.examples import ExampleStore
from infoxlm_jax.data.labelled_stream import LabelledStream
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.report import results_file
from infoxlm_jax.finetuning import choice, report
from infoxlm_jax.finetuning.evaluator import TaskEvaluator, measure
from infoxlm_jax.finetuning.languages import languages_for, with_languages
from infoxlm_jax.finetuning.options import FineTuning
from infoxlm_jax.finetuning.plan import (
  Job,
  check,
  identity_of,
  in_words,
  steps_of,
  with_initial_weights,
)
from infoxlm_jax.finetuning.predict import Predict, make_predict
from infoxlm_jax.finetuning.task import Task
from infoxlm_jax.model import partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.runtime import distributed, lock, run_dir
from infoxlm_jax.runtime.run_layout import CHECKPOINTS
from infoxlm_jax.training import optimizer, schedules
from infoxlm_jax.training.kept_files import newest_copies
from infoxlm_jax.training.options import (
  CheckpointOptions,
  Parallelism,
  RunOptions,
  UpdateOptions,
  WeightOptions,
)
from infoxlm_jax.training.pretrain import train
from infoxlm_jax.training.program import Program, make_program
from infoxlm_jax.training.run import (
  assemble,
  keep_weights_report,
  read_weights,
)

MakeTask = Callable[[Tokenizer, EncoderConfig], Task]
_OBJECTIVE = "task"  # its name among the metrics
# As transformers leaves out biases and layer norms.
_NO_DECAY = ("bias$", "norm/scale$")


def finetune(
  *,
  options: FineTuning,
  task: MakeTask,
  model: EncoderConfig,
  weights: WeightOptions,
  tokenizer: str | None = None,
  parallelism: Parallelism,
  on_start: Callable[[], None] = lambda: None,
  dry_run: bool = False,
) -> None:
  """Fine-tunes a model once for every seed, and reports their mean.

  Every run is a folder of its own, with checkpoints and metrics as in
  pretraining; started again, the job goes on exactly where it was.

  Args:
    options: see FineTuning.
    task: reads the data: (tokenizer, model) -> Task.
    model: the encoder's shapes, with dropout.
    weights: of the pretrained encoder; they must be given for its tokenizer
      even where options.random_weights leaves them unread.
    tokenizer: file or folder of the tokenizer where `weights` hold none.
    parallelism: see options.Parallelism.
    on_start: called once when the input is accepted.
    dry_run: print what would be done, write nothing.

  Raises:
    InputError, StorageError, Diverged, Stopped: see pretrain.pretrain.
  """
  check(options)
  if weights.init_from is None:
    raise InputError("no weights are given; set --gin.MODEL=FOLDER")
  loaded = find_tokenizer(weights.init_from, tokenizer)
  if loaded is None:
    raise InputError(
      f"{weights.init_from}: holds no tokenizer; set --gin.TOKENIZER=FILE"
    )
  model = with_ids_of(model, loaded, weights.init_from)
  languages = languages_for(model, weights.init_from, options.language_ids)
  made = with_initial_weights(task(loaded, model), options, weights)
  if languages:
    made = with_languages(made, languages, model.ids.eos)
  job = Job(
    options=options,
    task=made,
    model=model,
    weights=WeightOptions() if options.random_weights else weights,
    tokenizer=loaded,
    parallelism=parallelism,
    steps=steps_of(options, made),
    store=ExampleStore(made.source, made.train, model.ids),
    languages=languages,
  )
  print(in_words(job))
  if dry_run:
    return
  run_dir.claim(options.model_dir, identity_of(job))
  on_start()
  first = options.seeds[0]
  tried = {rate: _run(job, first, rate) for rate in options.rates}
  rate = max(tried, key=lambda rate: report.dev_mean(tried[rate], made))
  runs = {first: tried[rate]}
  for seed in options.seeds[1:]:
    runs[seed] = _run(job, seed, rate)
  with distributed.together("writing the report"):
    if jax.process_index() == 0:
      report.write(Path(options.model_dir), made, rate, tried, runs)


def _run(job: Job, seed: int, rate: float) -> dict[str, Any]:
  """Trains one model, or goes on with it; returns its results.json."""
  options, task = job.options, job.task
  name = f"seed_{seed}"
  if len(options.rates) > 1:
    name = f"rate_{rate:g}_{name}"
  folder = Path(options.model_dir) / name
  run = RunOptions(str(folder), job.steps, seed, options.log_every)
  print(f"\n{folder}: seed {seed}, rate {rate:g}")
  crosses = options.crossed and bool(task.crossed)
  finished = results_file.read_results(folder)
  own = identity_of(job) | {"seed": seed, "rate": rate}
  if finished and finished.get("steps", 0) >= job.steps:
    run_dir.claim(folder, own)  # or these are figures of other settings
    # A process that died after the last update has not measured these yet.
    if not crosses or "crossed" in finished[task.name]:
      print("finished before")
      return finished
  started = time.monotonic()
  program = _program(job, rate)
  given = read_weights(folder, program, job.weights, seed)
  run_dir.claim(folder, own, copies=newest_copies(folder))
  lock.hold(folder)
  if jax.process_index() == 0:
    run_dir.write_environment(folder)
    if given is not None:
      keep_weights_report(folder, given[1])
  predict = make_predict(
    task.objective,
    program.model,
    partitioning.specs_of(program.state.params),
    program.mesh,
  )
  every = max(1, math.ceil(job.steps / options.evaluations))
  train(
    assemble(
      run,
      program,
      job.store,
      job.tokenizer,
      given,
      evaluator_of=lambda program, feed: TaskEvaluator(folder, task, predict),
      eval_every=every,
      checkpoints=CheckpointOptions(every, keep_latest=1, keep_best=1),
      started=started,
    )
  )
  results = results_file.read_results(folder)
  assert results is not None  # the run has just written it
  if crosses:
    results[task.name]["crossed"] = _crossed(
      job, program, folder, predict, results
    )
    with distributed.together("writing the results"):
      if jax.process_index() == 0:
        results_file.write_results(folder, results)
  return results


def _program(job: Job, rate: float) -> Program:
  """The program of a run: AdamW, a linear rise and fall of the rate."""
  options, task = job.options, job.task
  warmup = options.warmup
  schedule = schedules.linear_warmup_decay(
    rate, round(warmup * job.steps if warmup < 1 else warmup), job.steps
  )
  examples = next(iter(task.train.values()))
  stream = LabelledStream(
    batch=options.batch,
    row_length=task.row_length,
    padded=task.padded,
    arrays=tuple(examples.arrays),
    label_size=0
    if examples.labels is None
    else math.prod(examples.labels.shape[1:]),
    language_ids=job.languages or None,
  )
  return make_program(
    job.model,
    {_OBJECTIVE: task.objective},
    {task.objective.stream: stream},
    UpdateOptions(
      optimizer.adamw(
        schedule,
        beta2=0.999,
        eps=1e-8,
        weight_decay=options.weight_decay,
        no_decay=_NO_DECAY,
      ),
      schedule,
    ),
    job.parallelism,
    partitioning.make_mesh(job.parallelism.mesh),
  )


def _crossed(
  job: Job,
  program: Program,
  folder: Path,
  predict: Predict,
  results: Mapping[str, Any],
) -> dict[str, dict[str, float]]:
  """The scores of language pairs, by the model that a run has chosen."""
  step = results[job.task.name][choice.ONE_MODEL]["step"]
  _, params, _ = load_weights(
    folder / CHECKPOINTS / str(step),
    mesh=program.mesh,
    heads=list(program.state.params["heads"]),
    model=program.model,
  )
  return measure(job.task, predict, params, job.task.crossed, "crossed")
