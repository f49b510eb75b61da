"""Everything that a training job opens and makes before its first update."""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from infoxlm_jax.data import dropped, prepared_files
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.data.tokenizers.export import why_not_exported
from infoxlm_jax.evaluation.evaluator import Evaluator
from infoxlm_jax.evaluation.report import final_report
from infoxlm_jax.objectives.identity import comparable, identity
from infoxlm_jax.runtime import lock, run_dir
from infoxlm_jax.runtime.run_layout import find_step
from infoxlm_jax.training import initial_weights, sentence_encoder, validation
from infoxlm_jax.training.held_out import make_measure
from infoxlm_jax.training.input_pipeline import (
  Feed,
  check_data,
  prepared_folder,
)
from infoxlm_jax.training.kept_files import newest_copies
from infoxlm_jax.training.options import (
  CheckpointOptions,
  DataOptions,
  EvaluationOptions,
  RunOptions,
  WeightOptions,
)
from infoxlm_jax.training.program import Program
from infoxlm_jax.training.run import (
  EVALUATION,
  Run,
  assemble,
  keep_weights_report,
  read_weights,
)


def start(
  run: RunOptions,
  program: Program,
  data: DataOptions,
  weights: WeightOptions,
  evaluation: EvaluationOptions,
  checkpoints: CheckpointOptions,
  on_start: Callable[[], None] = lambda: None,
) -> Run | None:
  """Opens a run's folder and data, and makes or restores its state.

  The paths of the data are looked at first, which takes no time. Weights are
  read before the folder is claimed: bad ones leave nothing behind.

  Args:
    program: from make_program.
    run, data, weights, evaluation, checkpoints, on_start: see
      pretrain.pretrain.

  Returns:
    None where the run has done its steps already; its tables are printed.

  Raises:
    InputError, StorageError: see errors.
  """
  folder = Path(run.model_dir)
  if find_step(folder) is None:
    check_data(data.folder, data.check)
  given = read_weights(folder, program, weights, run.seed)
  # As it was given: a Path would turn gs://a into gs:/a.
  own = _identity(run, program, data, weights)
  run_dir.claim(run.model_dir, own, comparable, newest_copies(folder))
  if final_report.say_if_finished(folder, run.steps):
    return None
  lock.hold(folder)
  started = time.monotonic()
  if jax.process_index() == 0:
    run_dir.write_environment(folder)
    if given is not None:
      print(given[1])
      for note in sentence_encoder.warnings(
        str(weights.init_from), given[1], program, evaluation.prefix
      ):
        print(f"warning: {note}")
      keep_weights_report(folder, given[1])
    on_start()
  data_folder = prepared_folder(folder, data.folder, data.prepare)
  tokenizer = load_tokenizer(data_folder)
  if jax.process_index() == 0 and (why := why_not_exported(tokenizer)):
    logging.warning(why)
  prepared_files.check_tokenizer(data_folder, tokenizer)
  validation.check_tokenizer(program.model, tokenizer)
  store = Store(data_folder / "train")
  dropped.check_enough(program.streams, store)
  if given is not None and weights.init_from is not None:
    initial_weights.check_tokenizer(weights.init_from, tokenizer)

  def evaluator_of(program: Program, feed: Feed) -> Evaluator:
    return Evaluator(
      folder,
      data_folder,
      tokenizer,
      program.model,
      program.mesh,
      held_out=make_measure(
        program, feed.apart(EVALUATION), data_folder / "dev", evaluation
      ),
      first_state=functools.partial(program.random_state, run.seed)
      if weights.init_from is None
      else None,
      row_length=min(128, program.model.max_positions),
      prefix=evaluation.prefix,
    )

  return assemble(
    run,
    program,
    store,
    tokenizer,
    given,
    evaluator_of=evaluator_of,
    eval_every=evaluation.every,
    checkpoints=checkpoints,
    started=started,
  )


def _identity(
  run: RunOptions, program: Program, data: DataOptions, weights: WeightOptions
) -> dict[str, Any]:
  """identity.json: settings that must not change between starts of one run.

  They are compared with the file as text: a key or a value in another form
  would refuse every run that has begun before.
  """
  return {
    "model": dataclasses.asdict(program.model),
    "objectives": {
      name: identity(objective)
      for name, objective in program.objectives.items()
    },
    "seed": run.seed,
    "data": data.folder or "prepared into this folder",
    "init_from": weights.init_from,
  }
