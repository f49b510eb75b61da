"""Disturbs small runs in many ways and counts how each disturbance ends.

  python tools/soak.py --kills 20 --bit_flips 20 --disk_full 5 --bad_inputs 200

Every run trains the same small model on a few verses and is compared with a
run that was left alone: "recovered" means that all weights and metrics are the
same, bit for bit. Prints a table, the files whose damage is harmless since
nothing reads them, and what went wrong; the last line is JSON:

  injected     number of disturbances
  detected     refused with an error of ours and its exit code
  harmless     the damaged file is not read, or a damaged text is still a text
  recovered    ended as the undisturbed run, bit for bit
  silent       ended with other numbers, or unfinished, with exit code 0
  tracebacks   an exception that is none of ours
  lost         no good checkpoint remained, or a run that could not go on
  wrong_codes  an exit code that no document has
  hung         no end

Exit code 0: none of the last five. Damage that is not asked for by a number of
its own (truncations, deletions, swaps) is injected as often as bits are
flipped, in all. Works on Linux.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import soak_damage
import soak_inputs
import soak_kills
import soak_process
import soak_runs as runs
import soak_storage
import soak_worker
from soak_outcomes import (
  FAILURES,
  HUNG,
  Outcome,
  counts,
  failures,
  harmless,
  table,
)

_INPUTS_EACH = 25  # bad inputs that are read in one piece of work
Work = Callable[[Path], list[Outcome]]


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the tool; returns its exit code."""
  options = _parse(argv)
  with tempfile.TemporaryDirectory(prefix="soak-") as place:
    folder = Path(place)
    cache = options.cache or folder / "compiled"
    os.environ.update(soak_process.environment(cache.absolute()))
    reference = folder / "reference"
    with_part = options.bit_flips + options.streams + options.bad_inputs > 0
    wanted, prepare_seconds = runs.make_reference(reference, with_part)
    if options.bad_inputs:
      _export(reference)
    print(f"reference: {runs.STEPS} updates", file=sys.stderr, flush=True)
    deadline = time.monotonic() + options.seconds
    outcomes, left = inject(
      works(options, reference, wanted, prepare_seconds),
      folder,
      deadline,
      options.jobs,
    )
  print(table(outcomes))
  for name in harmless(outcomes):
    print(f"harmless: {name}")
  for line in failures(outcomes):
    print(line)
  if left:
    print(f"{left} pieces of work were left out: --seconds {options.seconds:g}")
  sums = counts(outcomes)
  print(json.dumps(sums))
  return int(any(sums[name] for name in FAILURES))


def works(
  options: argparse.Namespace,
  reference: Path,
  wanted: dict,
  prepare_seconds: float,
) -> list[tuple[bool, Work]]:
  """The pieces of work, in random order.

  Args:
    options: of the command line.
    reference: the work folder of the reference run.
    wanted, prepare_seconds: see soak_runs.make_reference.

  Returns:
    (whether it runs in a worker process, a function of a new folder) each.
  """
  seeds = random.Random(options.seed)
  common = {"reference": reference, "wanted": wanted}
  found: list[tuple[bool, Work]] = []

  def add(in_worker: bool, function: Callable, **arguments: object) -> None:
    found.append((in_worker, functools.partial(function, **arguments)))

  def seed() -> int:
    return seeds.randrange(1 << 30)

  prepare = options.kills // 5
  for part in _shares(options.kills - prepare, options.series):
    add(False, soak_kills.training, seed=seed(), kills=part, **common)
  for part in _shares(prepare, 5):
    add(
      False,
      soak_kills.preparing,
      reference=reference,
      prepare_seconds=prepare_seconds,
      seed=seed(),
      kills=part,
    )
  for number in range(2 * options.bit_flips):
    kind = "bit flip"
    if number >= options.bit_flips:
      kind = soak_damage.KINDS[1 + number % 3]
    whole = number % 12 == 11
    add(
      not whole,
      soak_damage.inject,
      seed=seed(),
      kind=kind,
      whole=whole,
      **common,
    )
  for _ in range(options.disk_full):
    add(False, soak_storage.full_disk, seed=seed(), **common)
  is_documented = documented()
  for _ in range(options.signals):
    add(
      False,
      soak_kills.signalled,
      seed=seed(),
      documented=is_documented,
      **common,
    )
  for number in range(options.streams):
    redirection = soak_storage.STREAMS[number % len(soak_storage.STREAMS)]
    add(
      False,
      soak_storage.closed_stream,
      redirection=redirection,
      documented=is_documented,
      **common,
    )
  for part in _shares(options.bad_inputs, _INPUTS_EACH):
    add(True, soak_inputs.inject, reference=reference, seed=seed(), number=part)
  seeds.shuffle(found)
  return found


def inject(
  todo: Sequence[tuple[bool, Work]], folder: Path, deadline: float, jobs: int
) -> tuple[list[Outcome], int]:
  """Does the work, several pieces at a time, until the deadline.

  Args:
    todo: from `works`.
    folder: for the work folders.
    deadline: a time of time.monotonic(); no piece begins after it.
    jobs: pieces at a time.

  Returns:
    All outcomes, and the number of pieces that were left out.
  """
  outcomes: list[Outcome] = []
  left = 0
  with concurrent.futures.ThreadPoolExecutor(jobs) as threads:
    tasks = [
      threads.submit(_work, folder / f"work{number}", deadline, *piece)
      for number, piece in enumerate(todo)
    ]
    for number, task in enumerate(concurrent.futures.as_completed(tasks), 1):
      done = task.result()
      left += done is None
      outcomes += done or []
      for line in failures(done or []):
        print(line, file=sys.stderr, flush=True)
      if number % 25 == 0:
        sums = json.dumps(counts(outcomes))
        print(f"{number}/{len(todo)}: {sums}", file=sys.stderr, flush=True)
  return outcomes, left


def _work(
  place: Path, deadline: float, in_worker: bool, work: Work
) -> list[Outcome] | None:
  """The outcomes of one piece of work; None: it was too late."""
  if time.monotonic() > deadline:
    return None
  try:
    if in_worker:
      return soak_worker.call(work, place)
    return work(place)
  except (TimeoutError, subprocess.TimeoutExpired) as error:
    return [Outcome("process", HUNG, str(place.name), str(error))]
  finally:
    shutil.rmtree(place, ignore_errors=True)


def documented() -> Callable[[int], bool]:
  """Whether --help or docs/pods.md has an exit code."""
  from infoxlm_jax import main as entry

  pods = (runs.ROOT / "docs" / "pods.md").read_text("utf-8")
  text = io.StringIO()
  with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
    entry.main(["--help"])
  listed = re.findall(r"(?<=  )(\d+) ", text.getvalue())
  listed += re.findall(
    r"\d+", " ".join(re.findall(r"^\| ([\d, ]+) \|", pods, re.M))
  )
  return frozenset(map(int, listed)).__contains__


def _export(reference: Path) -> None:
  """Writes the weights of the whole run in another format, to be damaged.

  Raises:
    RuntimeError: export failed.
  """
  end = soak_process.run(runs.exported, ["whole", "weights"], reference)
  if end.code:
    raise RuntimeError(f"the undisturbed export failed:\n{end.output}")


def _shares(total: int, most: int) -> list[int]:
  """`total` in parts of `most`; the last has the rest."""
  return [min(most, total - done) for done in range(0, total, most)]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )

  def number(flag: str, default: int, text: str) -> None:
    parser.add_argument(flag, type=int, default=default, help=text)

  number("--kills", 20, "SIGKILL; a fifth of them while preparing")
  number("--series", 10, "kills of one run of 60 updates")
  number("--bit_flips", 20, "and as many truncations, deletions and swaps")
  number("--disk_full", 5, "runs whose disk fills up")
  number("--signals", 6, "SIGTERM, SIGINT, SIGHUP")
  number("--streams", 8, "closed or full standard streams")
  number("--bad_inputs", 200, "damaged and hostile inputs, for all readers")
  number("--jobs", os.cpu_count() or 1, "pieces of work at a time")
  number("--seed", 0, "of all random choices; moments depend on the machine")
  parser.add_argument(
    "--seconds",
    type=float,
    default=3600,
    help="no piece of work begins after these; those left out are counted",
  )
  parser.add_argument(
    "--cache", type=Path, help="folder that keeps compiled programs"
  )
  return parser.parse_args(argv)


if __name__ == "__main__":
  sys.exit(main())
