"""Moments of a run of soak.py: choosing them, and waiting for them."""

import random
import time
from pathlib import Path
from typing import Any

import soak_process
import soak_runs as runs

_LATE = 3  # updates after its own at which a kill waits no longer
FILL, START, UPDATE, SAVE, REPORT = "fill start update save report".split()


def moments(random_: random.Random, number: int) -> list[tuple[str, int]]:
  """(phase, update) of each kill of one run, in the order in which they come.

  Args:
    random_: to draw from.
    number: of kills.
  """
  drawn = [
    (random_.choice((START, UPDATE, UPDATE, SAVE)),) for _ in range(number)
  ]
  middle = sorted((random_.randrange(1, runs.STEPS), *phase) for phase in drawn)
  kills = [(phase, step) for step, phase in middle]
  if number > 2:
    kills[0], kills[-1] = (FILL, 0), (REPORT, runs.STEPS)
  return kills


def follow(
  process: Any,
  folder: Path,
  phase: str,
  step: int,
  reached: int,
  newest: int,
  delay: float,
) -> float:
  """Waits for the moment to kill; returns the seconds it took to recover.

  Args:
    process: to watch; if it ends, the wait ends.
    folder: its work folder.
    phase, step: the moment, see `moments`; phase "" never comes.
    reached: the last update of the processes before.
    newest: step of the newest checkpoint before this process.
    delay: seconds after the moment, which updates may cut short.
  """
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
    late = phase != "" and last >= max(step, reached) + _LATE
    if since is not None and (now - since >= delay or late):
      break
    if now - start > 150:
      break
    time.sleep(0.004)
  return recovered


def _is_there(
  phase: str, step: int, last: int, text: str, folder: Path
) -> bool:
  """Whether the phase has begun; a delay begins then."""
  if phase == START:
    return True
  if phase == FILL:
    return "filling the queue" in text
  if phase == UPDATE:
    return last >= step
  if phase == SAVE:
    saving = (folder / runs.RUN / "checkpoints").glob("*tmp*")
    missed = last >= step + runs.SAVE_EVERY  # it was over too soon to be seen
    return last >= step and (missed or any(saving))
  return phase == REPORT and f"update {runs.STEPS}: dev" in text


def newest_step(folder: Path) -> int:
  """Step of the newest complete checkpoint; 0: there is none."""
  names = [p.name for p in (folder / runs.RUN / "checkpoints").glob("*")]
  return max((int(name) for name in names if name.isdecimal()), default=0)
