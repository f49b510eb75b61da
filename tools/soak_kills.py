"""Kills and signals of soak.py, at random moments of training and preparing."""

import itertools
import os
import random
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import soak_process
import soak_runs as runs
from soak_outcomes import (
  LOST,
  RECOVERED,
  SILENT,
  TRACEBACK,
  WRONG_CODE,
  Outcome,
)

_RESUMED = re.compile(r"going on after update (\d+)")
# Kills of a series besides those during updates and saves.
_FILL, _START, _UPDATE, _SAVE, _REPORT = "fill start update save report".split()


def moments(random_: random.Random, number: int) -> list[tuple[str, int]]:
  """(phase, update) of each kill of one run, in the order in which they come.

  Args:
    random_: to draw from.
    number: of kills.
  """
  drawn = [
    (random_.choice((_START, _UPDATE, _UPDATE, _SAVE)),) for _ in range(number)
  ]
  middle = sorted((random_.randrange(1, runs.STEPS), *phase) for phase in drawn)
  kills = [(phase, step) for step, phase in middle]
  if number > 2:
    kills[0], kills[-1] = (_FILL, 0), (_REPORT, runs.STEPS)
  return kills


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
  outcomes: list[Outcome] = []
  reached = 0
  for phase, step in [*moments(random_, kills), ("", 0)]:
    newest = _newest(folder)
    delay = random_.uniform(0, 3 if phase == _START else 0.3)
    start = time.monotonic()
    with soak_process.started(runs.train, [runs.flags()], folder) as process:
      seconds = _follow(process, folder, phase, step, reached, newest, delay)
      if phase:
        process.kill()
      end = soak_process.ended(process, folder, start)
    reached = max(reached, runs.last_step(folder / runs.RUN))
    if outcomes:
      outcomes[-1] = _judged(outcomes[-1], end, newest, seconds)
    if phase and end.code == -signal.SIGKILL:
      outcomes.append(Outcome(f"kill: {phase}", RECOVERED, f"update {reached}"))
    elif end.code == 0:
      break
  return compared(outcomes, end, folder, wanted)


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


def _follow(
  process: Any,
  folder: Path,
  phase: str,
  step: int,
  reached: int,
  newest: int,
  delay: float,
) -> float:
  """Waits for the moment to kill; returns the seconds it took to recover."""
  start, recovered, since = time.monotonic(), 0.0, None
  while process.is_alive():
    now = time.monotonic()
    text = soak_process.said(folder)
    begun = "going on after" in text or "filling the queue" in text
    last = runs.last_step(folder / runs.RUN) if begun else -1
    if last >= reached and not recovered:
      recovered = now - start
    if since is None and _is_there(phase, step, last, text, folder):
      since = now
    if since is not None and now - since >= delay:
      break
    if now - start > 150:
      break
    time.sleep(0.004)
  return recovered


def _is_there(
  phase: str, step: int, last: int, text: str, folder: Path
) -> bool:
  """Whether the phase has begun; a delay begins then."""
  if phase == _START:
    return True
  if phase == _FILL:
    return "filling the queue" in text
  if phase == _UPDATE:
    return last >= step
  if phase == _SAVE:
    saving = (folder / runs.RUN / "checkpoints").glob("*tmp*")
    return last >= step and any(saving)
  return phase == _REPORT and f"update {runs.STEPS}: dev" in text


def _newest(folder: Path) -> int:
  """Step of the newest complete checkpoint; 0: there is none."""
  names = [p.name for p in (folder / runs.RUN / "checkpoints").glob("*")]
  return max((int(name) for name in names if name.isdecimal()), default=0)


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
  place: Path, reference: Path, seed: int, kills: int
) -> list[Outcome]:
  """Kills preparing several times, lets it end, and compares all bytes."""
  random_ = random.Random(seed)
  place.mkdir(parents=True)
  (place / runs.TEXTS).symlink_to(reference / runs.TEXTS)
  arguments = [runs.TEXTS, runs.DATA]
  killed = 0
  for number in itertools.count():
    start = time.monotonic()
    with soak_process.started(runs.prepared, arguments, place) as process:
      if number < kills:
        process.join(random_.uniform(0, 1.5))
        process.kill()
      end = soak_process.ended(process, place, start)
    killed += end.code == -signal.SIGKILL
    if end.code != -signal.SIGKILL:
      break
  outcome, detail = RECOVERED, ""
  if end.code:
    outcome, detail = (TRACEBACK if end.traceback else LOST), end.output
  elif _contents(place / runs.DATA) != _contents(reference / runs.DATA):
    outcome, detail = SILENT, "the prepared data have other bytes"
  one = Outcome("kill: prepare", outcome, "", detail, end.seconds)
  return [one] * killed


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
  phase = random_.choice((_START, _FILL, _UPDATE, _SAVE, _REPORT))
  delay = random_.uniform(0, 3 if phase == _START else 0.3)
  folder = runs.work_folder(place, reference)
  step = random_.randrange(1, runs.STEPS - runs.SAVE_EVERY)
  start = time.monotonic()
  with soak_process.started(runs.train, [runs.flags()], folder) as process:
    _follow(process, folder, phase, step, 0, 0, delay)
    if process.is_alive() and process.pid is not None:
      os.kill(process.pid, number)
    first = soak_process.ended(process, folder, start)
  newest, reached = _newest(folder), runs.last_step(folder / runs.RUN)
  start = time.monotonic()
  with soak_process.started(runs.train, [runs.flags()], folder) as process:
    seconds = _follow(process, folder, "", 0, reached, newest, 0)
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
