"""Kills and signals of soak.py, at random moments of training and preparing."""

import functools
import itertools
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import soak_process
import soak_runs as runs
from soak_moments import (
  FILL,
  REPORT,
  SAVE,
  START,
  UPDATE,
  follow,
  moments,
  newest_step,
)
from soak_outcomes import (
  LOST,
  RECOVERED,
  SILENT,
  TRACEBACK,
  WRONG_CODE,
  Outcome,
)

_RESUMED = re.compile(r"going on after update (\d+)")


def training(
  place: Path,
  reference: Path,
  wanted: Mapping[str, Any],
  seed: int,
  kills: int,
) -> list[Outcome]:
  """Kills one run several times, lets it end, and compares it.

  Args:
    place: a new work folder.
    reference: the work folder of the reference run.
    wanted: what that run is compared by.
    seed: of the moments.
    kills: number of kills.
  """
  random_ = random.Random(seed)
  folder = runs.work_folder(place, reference)
  output = [folder / runs.RUN]
  outcomes: list[Outcome] = []
  reached = 0
  for phase, step in moments(random_, kills):
    newest = newest_step(folder)
    delay = random_.uniform(0, 3 if phase == START else 0.3)
    wait = functools.partial(
      _wait_in_run,
      folder=folder,
      moment=(phase, step),
      reached=reached,
      newest=newest,
      delay=delay,
    )
    end, seconds = killed(runs.train, [runs.flags()], folder, output, wait)
    reached = max(reached, runs.last_step(folder / runs.RUN))
    if outcomes:
      outcomes[-1] = _judged(outcomes[-1], end, newest, seconds)
    outcomes.append(Outcome(f"kill: {phase}", RECOVERED, f"update {reached}"))
    if end.code != -signal.SIGKILL:
      return compared(outcomes, end, folder, wanted)
  newest, start = newest_step(folder), time.monotonic()
  with soak_process.started(runs.train, [runs.flags()], folder) as process:
    seconds = follow(process, folder, "", 0, reached, newest, 0)
    end = soak_process.ended(process, folder, start)
  if outcomes:
    outcomes[-1] = _judged(outcomes[-1], end, newest, seconds)
  return compared(outcomes, end, folder, wanted)


def _wait_in_run(
  process: Any,
  attempt: int,
  folder: Path,
  moment: tuple[str, int],
  reached: int,
  newest: int,
  delay: float,
) -> float:
  """The `wait` of `killed` for a run; see soak_moments.follow."""
  if attempt:
    moment = (START, 0)
  return follow(process, folder, *moment, reached, newest, delay * 0.5**attempt)


def _wait_in_preparing(process: Any, attempt: int, delay: float) -> float:
  process.join(delay * 0.5**attempt)
  return 0.0


def killed(
  work: Callable[..., int],
  arguments: Sequence[Any],
  folder: Path,
  output: Sequence[Path],
  wait: Callable[[Any, int], float],
) -> tuple[soak_process.End, float]:
  """Starts a process and kills it.

  A process that ended before its kill is undone: its output becomes what it was
  before, and another one is started, to be killed earlier.

  Args:
    work, arguments, folder: see soak_process.started.
    output: all that the process writes.
    wait: returns at the moment to kill a process, or when it has ended, with
      the seconds to recover. Its second argument counts the processes before
      this one; the more, the earlier the moment.

  Returns:
    The end of the process, by the kill or by a failure, and the seconds that
    `wait` returned.
  """
  before = folder / "before"
  before.mkdir()
  _copy(output, before)
  for attempt in itertools.count():
    start = time.monotonic()
    with soak_process.started(work, arguments, folder) as process:
      seconds = wait(process, attempt)
      process.kill()
      end = soak_process.ended(process, folder, start)
    if end.code != 0:
      break
    for path in output:
      shutil.rmtree(path, ignore_errors=True)
    _copy([before / path.name for path in output], folder)
  shutil.rmtree(before)
  return end, seconds


def _copy(folders: Sequence[Path], target: Path) -> None:
  for path in folders:
    if path.is_dir():
      shutil.copytree(path, target / path.name)


def compared(
  outcomes: Sequence[Outcome],
  end: soak_process.End,
  folder: Path,
  wanted: Mapping[str, Any],
) -> list[Outcome]:
  """Outcomes of one run, after its last process ended."""
  if end.code:
    verdict: tuple[str, str] | None = (
      TRACEBACK if end.traceback else LOST,
      end.output[-500:],
    )
  else:
    text = runs.difference(wanted, folder / runs.RUN)
    verdict = (SILENT, f"differs in {text}") if text else None
  if verdict is None:
    return list(outcomes)
  return [
    Outcome(o.kind, verdict[0], o.where, verdict[1], o.seconds)
    for o in outcomes
  ]


def _judged(
  before: Outcome, end: soak_process.End, newest: int, seconds: float
) -> Outcome:
  """The outcome of a kill, once the next start has ended."""
  outcome, detail = before.outcome, ""
  resumed = _RESUMED.search(end.output)
  if end.traceback:
    outcome, detail = TRACEBACK, end.output
  elif "measuring what" in end.output and newest:
    outcome, detail = LOST, f"checkpoint {newest} was there before"
  elif resumed and int(resumed[1]) < newest:
    outcome, detail = LOST, f"went back to {resumed[1]} from {newest}"
  return Outcome(before.kind, outcome, before.where, detail, seconds)


def preparing(
  place: Path, reference: Path, prepare_seconds: float, seed: int, kills: int
) -> list[Outcome]:
  """Kills preparing several times, lets it end, and compares all bytes.

  Args:
    place, reference, seed, kills: see `training`.
    prepare_seconds: that preparing took for the reference run.
  """
  random_ = random.Random(seed)
  place.mkdir(parents=True)
  (place / runs.TEXTS).symlink_to(reference / runs.TEXTS)
  arguments = [runs.TEXTS, runs.DATA]
  output = [place / runs.DATA, place / f"{runs.DATA}.partial"]
  for _ in range(kills):
    delay = random_.uniform(0, prepare_seconds)
    wait = functools.partial(_wait_in_preparing, delay=delay)
    end, _ = killed(runs.prepared, arguments, place, output, wait)
    if end.code != -signal.SIGKILL:
      break
  else:
    end = soak_process.run(runs.prepared, arguments, place)
  outcome, detail = RECOVERED, ""
  if end.code:
    outcome, detail = (TRACEBACK if end.traceback else LOST), end.output
  elif _contents(place / runs.DATA) != _contents(reference / runs.DATA):
    outcome, detail = SILENT, "the prepared data have other bytes"
  return [Outcome("kill: prepare", outcome, "", detail, end.seconds)] * kills


def _contents(folder: Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.name != "report.md"  # which has seconds
  }


def signalled(
  place: Path,
  reference: Path,
  wanted: Mapping[str, Any],
  seed: int,
  documented: Callable[[int], bool],
) -> list[Outcome]:
  """Sends one signal at a random moment, starts again, and compares.

  Args:
    place, reference, wanted, seed: see `training`.
    documented: whether the documents have an exit code.
  """
  random_ = random.Random(seed)
  number = random_.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
  phase = random_.choice((START, FILL, UPDATE, SAVE, REPORT))
  delay = random_.uniform(0, 3 if phase == START else 0.3)
  folder = runs.work_folder(place, reference)
  step = random_.randrange(1, runs.STEPS - runs.SAVE_EVERY)
  start = time.monotonic()
  with soak_process.started(runs.train, [runs.flags()], folder) as process:
    follow(process, folder, phase, step, 0, 0, delay)
    if process.is_alive() and process.pid is not None:
      os.kill(process.pid, number)
    first = soak_process.ended(process, folder, start)
  newest, reached = newest_step(folder), runs.last_step(folder / runs.RUN)
  start = time.monotonic()
  with soak_process.started(runs.train, [runs.flags()], folder) as process:
    seconds = follow(process, folder, "", 0, reached, newest, 0)
    end = soak_process.ended(process, folder, start)
  code = first.code if first.code >= 0 else 128 - first.code
  one = Outcome(
    f"signal: {number.name}", RECOVERED, f"{phase}, update {reached}"
  )
  one = _judged(one, end, newest, seconds)
  (one,) = compared([one], end, folder, wanted)
  if one.outcome == RECOVERED and first.traceback:
    one = Outcome(one.kind, TRACEBACK, one.where, first.output, seconds)
  elif one.outcome == RECOVERED and not documented(code):
    text = f"exit code {code}"
    one = Outcome(one.kind, WRONG_CODE, one.where, text, seconds)
  return [one]
