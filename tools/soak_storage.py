"""Full disks and closed streams of soak.py."""

import contextlib
import os
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import soak_process
import soak_runs as runs
from soak_kills import compared
from soak_outcomes import (
  DETECTED,
  RECOVERED,
  SILENT,
  TRACEBACK,
  WRONG_CODE,
  Outcome,
)

_FULL_ENOUGH, _LARGE = (300, 9_000), 200_000  # KB
STREAMS = (
  ">&-",
  "2>&-",
  ">&- 2>&-",
  ">/dev/full",
  "2>/dev/full",
  ">/dev/full 2>&1",
  "| head -n 1",
  "2>&1 >/dev/null | head -n 1",
)


def full_disk(
  place: Path, reference: Path, wanted: Mapping[str, Any], seed: int
) -> list[Outcome]:
  """A run whose disk fills up, then another start with room.

  The disk is a small tmpfs where this user may mount one; else the limit on
  the size of a file is set so that writing fails.

  Args:
    place: a new work folder.
    reference: the work folder of the reference run.
    wanted: what that run is compared by.
    seed: of the size.
  """
  random_ = random.Random(seed)
  work = runs.work_folder(place, reference)
  (work / runs.RUN).mkdir()
  size = random_.randrange(*_FULL_ENOUGH)
  with _small_disk(work / runs.RUN, size) as grow:
    kind = "full disk: file size" if grow is None else "full disk: tmpfs"
    limit = None
    if grow is None:
      limit = random_.choice((2_000, 20_000, 100_000, 200_000, 300_000))
    first = soak_process.run(runs.train, [runs.flags()], work, limit)
    if grow is not None:
      grow()
    start = time.monotonic()
    end = soak_process.run(runs.train, [runs.flags()], work)
    where = f"{limit or size * 1000:,} bytes"
    one = Outcome(kind, RECOVERED, where, "", time.monotonic() - start)
    (one,) = compared([one], end, work, wanted)
  if one.outcome != RECOVERED:
    return [one]
  if first.traceback:
    return [Outcome(kind, TRACEBACK, where, first.output)]
  if first.code not in (0, 2, 3):
    text = f"exit code {first.code}: {first.output}"
    return [Outcome(kind, WRONG_CODE, where, text)]
  return [one]


@contextlib.contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[Callable[[], None] | None]:
  """A disk of `size` KB at the folder; a function makes it large.

  Yields:
    None: this user cannot mount a disk.
  """
  mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(folder)]
  quiet: dict[str, Any] = {"capture_output": True, "check": False}
  try:
    mounted = subprocess.run(mount, **quiet).returncode == 0
  except OSError:
    mounted = False
  if not mounted:
    yield None
    return

  def grow() -> None:
    option = f"remount,size={_LARGE}k"
    subprocess.run(["mount", "-o", option, str(folder)], check=True)

  try:
    yield grow
  finally:
    subprocess.run(["umount", "-l", str(folder)], **quiet)


def closed_stream(
  place: Path,
  reference: Path,
  wanted: Mapping[str, Any],
  redirection: str,
  documented: Callable[[int], bool],
) -> list[Outcome]:
  """A run whose output cannot be written, in a process of its own.

  Args:
    place, reference, wanted: see `full_disk`.
    redirection: of a shell, one of STREAMS.
    documented: whether the documents have an exit code.
  """
  work = runs.work_folder(place, reference, part=True)
  command = [sys.executable, "-m", "infoxlm_jax.main", *runs.flags()]
  path = os.pathsep.join([str(runs.ROOT), os.environ.get("PYTHONPATH", "")])
  done = subprocess.run(
    ["bash", "-c", f"{shlex.join(command)} {redirection}; exit $PIPESTATUS"],
    cwd=work,
    env=os.environ | {"PYTHONPATH": path},
    stdin=subprocess.DEVNULL,
    capture_output=True,
    text=True,
    timeout=300,
  )
  kind = f"stream: {redirection}"
  code, finished = done.returncode, (work / runs.RUN / "results.json").exists()
  if "Traceback" in done.stdout + done.stderr:
    return [Outcome(kind, TRACEBACK, "run", done.stdout + done.stderr)]
  if code == 0 and not finished:
    return [Outcome(kind, SILENT, "run", "exit code 0, and not finished")]
  if code and (code == 1 or not documented(code)):  # 1 is for bugs
    return [Outcome(kind, WRONG_CODE, "run", f"exit code {code}")]
  start = time.monotonic()
  end = soak_process.run(runs.train, [runs.flags()], work)
  one = Outcome(
    kind, DETECTED if code else RECOVERED, "run", "", time.monotonic() - start
  )
  return compared([one], end, work, wanted)
