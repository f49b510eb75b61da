"""Damage of soak.py to the files of a checkpoint, a run and prepared data.

Most damage is looked at by a process that opens many runs, one after another,
up to the first update: it is what every start does. A part of it, and all that
such a start does not read, is followed by a whole start.
"""

import fnmatch
import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import soak_process
import soak_runs as runs
from soak_outcomes import (
  DETECTED,
  HARMLESS,
  LOST,
  RECOVERED,
  SILENT,
  TRACEBACK,
  WRONG_CODE,
  Outcome,
)

KINDS = ("bit flip", "truncation", "deletion", "swap")
# Files that no start reads, or of which no number of the run depends.
NOT_READ = (
  # orbax' own marks, its notes on chunks and on the devices of the writer.
  "run/checkpoints/*/commit_success.txt",
  "run/checkpoints/*/_CHECKPOINT_METADATA",
  "run/checkpoints/*/state/_sharding",
  "run/checkpoints/*/state/array_metadatas/*",
  "run/checkpoints/*/metrics/*",
  # The index of the arrays as one process wrote it; the merged one is read.
  # The arrays' own pieces are there, too: they are harmless only where every
  # bit of the restored state was seen to be what was saved.
  "run/checkpoints/*/state/ocdbt.process_*/*",
  # Only the newest intact checkpoint is read.
  "run/checkpoints/30/*",
  "run/checkpoints/4?/*",
  "run/checkpoints/50/*",
  # Written for people.
  "run/environment.json",
  "run/config.gin",
  "run/operative_config.gin",
  "run/rows.json",
  "run/tensorboard/*",
  "data/report.md",
)
# Of the run's own folder: they are read after the first update, or written.
_LATER = ("run/metrics.jsonl", "run/start.json")


def choose(work: Path, random_: random.Random) -> Path:
  """A file of a work folder, relative to it.

  It is mostly one of the newest checkpoint or of the data.
  """
  files = [p.relative_to(work) for p in work.rglob("*") if p.is_file()]
  steps = [int(p.name) for p in (work / "run/checkpoints").iterdir()]
  newest = f"run/checkpoints/{max(steps)}/"
  groups = [
    [p for p in files if str(p).startswith(newest)],
    [p for p in files if str(p).startswith("data/")],
    [p for p in files if str(p).startswith("run/") and len(p.parts) == 2],
    files,
  ]
  (group,) = random_.choices(groups, (5, 4, 2, 1))
  return random_.choice(sorted(group))


def damage(
  work: Path, name: Path, kind: str, random_: random.Random
) -> tuple[str, list[str]]:
  """Damages a file; returns how, in words, and the names of all damaged."""
  path, names = work / name, [str(name)]
  content = path.read_bytes()
  if kind == "deletion" or not content:
    path.unlink()
    return "deleted", names
  if kind == "truncation":
    kept = random_.randrange(len(content))
    path.write_bytes(content[:kept])
    return f"cut to {kept} of {len(content)} bytes", names
  if kind == "swap":
    others = [
      p for p in sorted(path.parent.iterdir()) if p.is_file() and p != path
    ]
    others = [p for p in others if p.read_bytes() != content]
    if others:
      other = random_.choice(others)
      path.write_bytes(other.read_bytes())
      other.write_bytes(content)
      names.append(str(other.relative_to(work)))
      return f"swapped with {other.name}", names
  place, bit = random_.randrange(len(content)), random_.randrange(8)
  flipped = bytearray(content)
  flipped[place] ^= 1 << bit
  path.write_bytes(flipped)
  return f"bit {bit} of byte {place} of {len(content)} flipped", names


def inject(
  place: Path,
  reference: Path,
  wanted: Mapping[str, Any],
  seed: int,
  kind: str,
  whole: bool,
) -> list[Outcome]:
  """Damages one file of a run that was stopped half-way, and starts it.

  Args:
    place: a new work folder.
    reference: the work folder of the reference run.
    wanted: what that run is compared by.
    seed: of the damage.
    kind: one of KINDS.
    whole: let the run end, in a process of its own; else it is opened here.
  """
  random_ = random.Random(seed)
  work = runs.work_folder(place, reference, part=True)
  name = choose(work, random_)
  how, names = damage(work, name, kind, random_)
  where = next((n for n in names if not _matches(n, NOT_READ)), names[0])
  later = any(_matches(n, _LATER) for n in names)
  outcome = None if whole or later else _opened(work, reference)
  if outcome is None:
    outcome = _started(work, wanted)
  verdict, detail, seconds = outcome
  listed = _matches(where, NOT_READ)
  if verdict == HARMLESS and not listed:
    # No check has seen it: the whole run must show that nothing depends on it.
    verdict, detail, seconds = _started(work, wanted)
  elif verdict == RECOVERED and listed:
    verdict = HARMLESS
  return [Outcome(kind, verdict, where, f"{how}: {detail}", seconds)]


def _started(work: Path, wanted: Mapping[str, Any]) -> tuple[str, str, float]:
  """A whole start in a process of its own: outcome, detail, seconds."""
  end = soak_process.run(runs.train, [runs.flags()], work)
  if end.traceback:
    return TRACEBACK, end.output, end.seconds
  if end.code in (2, 3) and "error: " in end.output:
    return DETECTED, end.output, 0.0
  if end.code:
    return WRONG_CODE, f"exit code {end.code}: {end.output}", 0.0
  text = runs.difference(wanted, work / runs.RUN)
  in_rows = text in ("rows", "rows, results")  # which has notes made of them
  if in_rows and f"{runs.RUN}/metrics.jsonl" in end.output:
    # Lines of it are lost, which the start says; all else is as it was.
    return DETECTED, end.output, 0.0
  if text:
    return SILENT, f"differs in {text}", end.seconds
  return RECOVERED, "", end.seconds


def _opened(work: Path, reference: Path) -> tuple[str, str, float]:
  """Opens the run in this process, as each start does before the first update.

  Returns:
    Outcome, detail and seconds; HARMLESS: nothing noticed the damage.
  """
  from infoxlm_jax.errors import InputError, StorageError

  before, start = Path.cwd(), time.monotonic()
  os.chdir(work)
  try:
    run = open_run()
  except (InputError, StorageError) as error:
    return DETECTED, str(error), 0.0
  except Exception as error:
    return TRACEBACK, f"{type(error).__name__}: {error}", 0.0
  finally:
    os.chdir(before)
  seconds = time.monotonic() - start
  run.checkpoints.close()
  return _compared(run, reference, seconds)


def _compared(
  run: Any, reference: Path, seconds: float
) -> tuple[str, str, float]:
  """Whether an opened run has the bits that the undamaged one saved."""
  from infoxlm_jax.checkpoint.checksums import describe

  step = int(run.state.step)
  folder = reference / runs.PART / "checkpoints"
  steps = sorted(int(p.name) for p in folder.iterdir())
  if not run.resumed or step not in steps[-2:]:
    return LOST, f"the run begins again at update {step}", seconds
  files = folder / str(step) / "files"
  arrays = json.loads((files / "checksums.json").read_text())["arrays"]
  position = json.loads((files / "position.json").read_text())
  if json.loads(json.dumps(describe(run.state))) != arrays:
    return SILENT, f"arrays differ from those of checkpoint {step}", seconds
  if run.position.samples != position["samples"]:
    return SILENT, "another position in the data", seconds
  return (HARMLESS if step == steps[-1] else RECOVERED), "", seconds


def open_run() -> Any:
  """The run of the current folder, ready for its next update.

  Raises:
    InputError, StorageError: see errors.
  """
  from infoxlm_jax import gin_utils
  from infoxlm_jax.model import partitioning
  from infoxlm_jax.training import setup
  from infoxlm_jax.training.program import make_program

  options = [flag for flag in runs.flags() if "--gin_file" not in flag]
  file = runs.flags()[0].partition("=")[2]
  arguments = gin_utils.load([file], options, [], ()).arguments()
  mesh = partitioning.make_mesh(arguments["parallelism"].mesh)
  program = make_program(
    arguments["model"],
    arguments["objectives"],
    arguments["streams"],
    arguments["update"],
    arguments["parallelism"],
    mesh,
  )
  run = setup.start(
    arguments["run"],
    program,
    arguments["data"],
    arguments["weights"],
    arguments["evaluation"],
    arguments["checkpoints"],
  )
  assert run is not None
  return run


def _matches(name: str, patterns: Sequence[str]) -> bool:
  return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
