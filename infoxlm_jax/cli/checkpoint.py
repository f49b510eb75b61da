"""Looks into the checkpoints of a run; changes nothing.

  infoxlm-checkpoint list runs/quickstart
  infoxlm-checkpoint verify runs/quickstart
  infoxlm-checkpoint verify runs/quickstart/checkpoints/500
  infoxlm-checkpoint diff runs/one runs/other

`list` shows step, size, date, metrics and whether all bytes are what was
saved. `verify` names the damaged files and arrays; of a run it also compares
metrics.jsonl, results.json and the other small files that a start reads. `diff`
shows the arrays that differ; of a run it takes the newest checkpoint. Exit code
1: something is damaged (verify), or two checkpoints differ (diff).
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from infoxlm_jax.cli import command


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  problems: list[str] = []
  code = command.run(lambda: problems.extend(examine(_parse(argv))))
  return code or int(bool(problems))


def examine(args: argparse.Namespace) -> list[str]:
  """Does what the arguments say; prints the result.

  Returns:
    The lines that make the exit code 1.

  Raises:
    InputError: there is no checkpoint, or one cannot be read.
  """
  # An accelerator may be busy with the run.
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  if args.action == "list":
    _list(args.run)
    return []
  problems = _verify(args.run) if args.action == "verify" else _diff(args)
  for problem in problems:
    print(problem)
  return problems


def _list(run: Path) -> None:
  from infoxlm_jax.checkpoint import examine as stored

  print(f"{'step':>9} {'MB':>9}  {'date':19}  {'state':7}  metrics")
  for step in stored.folders(run):
    date = time.strftime(
      "%Y-%m-%d %H:%M:%S", time.localtime(step.stat().st_mtime)
    )
    state = "damaged" if stored.damage(step) else "intact"
    measured = ", ".join(f"{k} {v:g}" for k, v in stored.metrics(step).items())
    megabytes = stored.size(step) / 1e6
    print(f"{step.name:>9} {megabytes:9.1f}  {date}  {state:7}  {measured}")


def _verify(run: Path) -> list[str]:
  from infoxlm_jax.checkpoint import examine as stored
  from infoxlm_jax.training import kept_files

  problems = []
  for step in stored.folders(run):
    if own := stored.damage(step):
      problems += own
    else:
      print(f"{step}: intact")
  return problems + kept_files.damage(run)


def _diff(args: argparse.Namespace) -> list[str]:
  from infoxlm_jax.checkpoint import examine as stored

  apart = [f"{p}: {text}" for p, text in stored.differences(args.a, args.b)]
  if not apart:
    print("no array differs")
  return apart


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = command.make_parser("infoxlm-checkpoint", __doc__)
  actions = parser.add_subparsers(dest="action", required=True, metavar="WHAT")
  for name, text in (
    ("list", "the checkpoints of a run"),
    ("verify", "compare all bytes with what was saved"),
  ):
    action = actions.add_parser(name, help=text)
    action.add_argument(
      "run", type=Path, help="a run's folder, or one checkpoint's"
    )
  action = actions.add_parser("diff", help="the arrays in which two differ")
  action.add_argument("a", type=Path, help="a checkpoint's folder, or a run's")
  action.add_argument("b", type=Path, help="the other")
  return parser.parse_args(argv)


if __name__ == "__main__":
  sys.exit(main())
