"""Shows the data of a run: rows as the step gets them, and statistics.

  infoxlm-inspect-data --gin_file=gin/quickstart.gin --step 100
  infoxlm-inspect-data --run runs/quickstart --step 100 --stream xlco
  infoxlm-inspect-data --gin_file=gin/quickstart.gin --statistics
  infoxlm-inspect-data --data prepared --statistics --output pictures

Step 100 is update 100 of metrics.jsonl (the first is 1). Its batch and masks
come from the functions that training uses. For an existing run, the position
in the data comes from its newest checkpoint before the step. Data that are not
prepared yet are prepared into a temporary folder, if the configuration says
how.

A gin file is code: give only files that you trust.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from infoxlm_jax import gin_utils
from infoxlm_jax.cli import command
from infoxlm_jax.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command.run(
    lambda: inspect(*_parser().parse_known_args(argv)), gin_utils.plain
  )


def inspect(args: argparse.Namespace, overrides: Sequence[str]) -> None:
  """Prints rows or statistics of the data that the arguments name.

  Args:
    args: the arguments that _parser declares.
    overrides: all other arguments, --gin.NAME=VALUE.

  Raises:
    InputError: arguments that do not go together, a broken configuration, or
      data that are not there.
  """
  # The computation is small, and an accelerator may be busy.
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  _check(args)
  from infoxlm_jax.analysis import inspect_data

  if args.data:
    if overrides:
      raise InputError(f"unknown argument {overrides[0]!r} (see --help)")
    _print(
      inspect_data.at_data(args.data, args.rows, args.statistics, args.output)
    )
    return
  with _job_arguments(args, overrides) as (arguments, folder):
    if args.statistics:
      _print(inspect_data.at_statistics(arguments, folder, args.output))
    else:
      _print(
        inspect_data.at_step(
          arguments, folder, args.step, args.rows, args.stream
        )
      )


def _check(args: argparse.Namespace) -> None:
  if (bool(args.gin_file) + bool(args.run) + bool(args.data)) != 1:
    raise InputError(
      "give one of --gin_file FILE, --run FOLDER and --data FOLDER (see --help)"
    )
  if args.rows < 1:
    raise InputError(f"--rows {args.rows}: 1 at least")
  if args.step < 1:
    raise InputError(
      f"--step {args.step}: updates count from 1, as in metrics.jsonl"
    )
  if args.output and not args.statistics:
    raise InputError("--output goes with --statistics")


@contextlib.contextmanager
def _job_arguments(
  args: argparse.Namespace, overrides: Sequence[str]
) -> Iterator[tuple[dict[str, Any], Path]]:
  """The arguments that training would get, and the folder of its data."""
  from infoxlm_jax.analysis import inspect_data

  files = list(args.gin_file)
  if args.run:
    files = [str(args.run / "config.gin")]
    overrides = [*overrides, f"--gin.MODEL_DIR={args.run}"]
  search = [folder for folder in args.gin_search_paths.split(",") if folder]
  allowed = [name for name in args.gin_allow_imports.split(",") if name]
  arguments = gin_utils.load(
    files, overrides, search, allow_imports=allowed
  ).arguments()
  with tempfile.TemporaryDirectory(prefix="infoxlm-inspect-") as folder:
    yield arguments, inspect_data.data_folder(arguments, Path(folder))


def _print(lines: Iterator[str]) -> None:
  for line in lines:
    print(line)


def _parser() -> argparse.ArgumentParser:
  # With abbreviations, a mistyped --gin_fil would be read as --gin_file.
  parser = command.make_parser(
    "infoxlm-inspect-data", __doc__, allow_abbrev=False
  )
  what = parser.add_argument_group("the data to show (one of these)")
  what.add_argument(
    "--gin_file",
    action="append",
    default=[],
    metavar="FILE",
    help="a run's configuration; --gin.NAME=VALUE as in training",
  )
  what.add_argument(
    "--run",
    type=Path,
    metavar="FOLDER",
    help="an existing run: its own configuration and data",
  )
  what.add_argument(
    "--data",
    type=Path,
    metavar="FOLDER",
    help="prepared data alone: statistics and a few records",
  )
  parser.add_argument(
    "--gin.NAME=VALUE", dest="unused", metavar="", help="sets a macro"
  )
  parser.add_argument(
    "--gin_search_paths",
    default="",
    metavar="FOLDERS",
    help="more folders, separated by commas, for gin files",
  )
  parser.add_argument(
    "--gin_allow_imports",
    default="",
    metavar="MODULES",
    help="modules, separated by commas, that gin files may import",
  )
  parser.add_argument(
    "--step",
    type=int,
    default=1,
    metavar="N",
    help="the update, counted from 1 (default: %(default)s)",
  )
  parser.add_argument(
    "--rows",
    type=int,
    default=4,
    metavar="N",
    help="rows of each stream (default: %(default)s)",
  )
  parser.add_argument(
    "--stream", metavar="NAME", help="only this stream (default: all)"
  )
  parser.add_argument(
    "--statistics",
    action="store_true",
    help="a table by language and pair instead of rows",
  )
  parser.add_argument(
    "--output",
    type=Path,
    metavar="FOLDER",
    help="with --statistics: also write the table and a picture of it here",
  )
  return parser


if __name__ == "__main__":
  sys.exit(main())
