"""Answers --dry_run and --compile_for for a training job.

The job's program is built as training builds it. No folder is written and no
device is used.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infoxlm_jax.analysis import compile_ahead, targets
from infoxlm_jax.data import row_budget
from infoxlm_jax.data.records import Store
from infoxlm_jax.errors import InputError
from infoxlm_jax.training import initial_weights, validation
from infoxlm_jax.training.input_pipeline import own_folder
from infoxlm_jax.training.options import RunOptions
from infoxlm_jax.training.program import Program, make_program

_NEEDED = (
  *("run", "model", "objectives", "streams", "update", "parallelism"),
  *("data", "weights", "evaluation", "checkpoints"),
)


def plan(
  arguments: Mapping[str, Any],
  *,
  target: str | None = None,
  compile_for: str | None = None,
  json_file: str | None = None,
) -> None:
  """Prints shapes and costs of a training job.

  Args:
    arguments: of pretrain.pretrain, by name.
    target: the machine to report costs for, see targets. None: all known chips
      are compared. The job itself takes the devices that it finds.
    compile_for: the same, and the step is compiled for this machine, which
      need not be here.
    json_file: file to write the report to as JSON; None: no file.

  Raises:
    InputError: the configuration cannot work, or JOB is not a training job.
    DoesNotFit: the compiled step needs more memory than the machine has.
  """
  if missing := [name for name in _NEEDED if name not in arguments]:
    raise InputError(
      "the JOB of this gin file is not a training job, so its costs cannot be"
      f" computed: it has no {', '.join(missing)}"
    )
  run, parallelism = arguments["run"], arguments["parallelism"]
  evaluation, checkpoints = arguments["evaluation"], arguments["checkpoints"]
  machine = targets.parse(name) if (name := compile_for or target) else None
  compiling = compile_for is not None
  validation.check_options(run, parallelism, evaluation, checkpoints)
  validation.check_rate(arguments["update"].learning_rate, run.steps)
  program = make_program(
    arguments["model"],
    arguments["objectives"],
    arguments["streams"],
    arguments["update"],
    parallelism,
    compile_ahead.mesh_for(parallelism.mesh, machine, compiling),
  )
  weights = arguments["weights"]
  if weights.init_from is not None:
    initial_weights.check(
      weights.init_from, program.model, weights.allow_pickle
    )
  compile_ahead.report_costs(
    _with_rows(program, arguments["data"].folder or _prepared_by(run)),
    target=machine,
    compiling=compiling,
    json_file=json_file,
  )


def _prepared_by(run: RunOptions) -> Path | None:
  """The data that the run has prepared into its folder, if it has."""
  if not run.model_dir:  # a dry run needs none
    return None
  folder = own_folder(run.model_dir)
  return folder if folder.is_dir() else None


def _with_rows(program: Program, data: str | Path | None) -> Program:
  """Returns the program with rows for all streams, chosen from DATA if None."""
  waiting = [
    name for name, stream in program.streams.items() if stream.rows is None
  ]
  if not waiting:
    return program
  if data is None:
    raise InputError(
      f"the streams {waiting} have rows = None, to be chosen from the prepared"
      " data, and there are none yet: add --gin.DATA=FOLDER to this dry run, or"
      " the MODEL_DIR of a run that has prepared them, or give the streams a"
      " number of rows, as --gin.TextStream.rows=NUMBER does"
    )
  streams, fits = row_budget.fit_all(
    program.streams, Store(Path(data) / "train"), program.parallelism.groups
  )
  row_budget.say(streams, fits)
  return dataclasses.replace(program, streams=streams)
