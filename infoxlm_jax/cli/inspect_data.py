"""Shows what a run is trained on: rows as the step sees them, and statistics.

    python tools/inspect_data.py --gin_file=gin/quickstart.gin --step 100
    python tools/inspect_data.py --run runs/quickstart --step 100 --stream xlco
    python tools/inspect_data.py --gin_file=gin/quickstart.gin --statistics
    python tools/inspect_data.py --data prepared --statistics --output pictures

Step 100 is update 100 of metrics.jsonl (the first is 1). Its batch and masks
come from the functions that training uses. Of a run that exists, positions are
those of its newest checkpoint before the step. Data that are not prepared yet
are prepared into a temporary folder where the configuration says how.

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
from infoxlm_jax.errors import InputError, exit_code


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  what = parser.add_argument_group("what to look at (one of these)")
  what.add_argument(
    "--gin_file", action="append", default=[], metavar="FILE",
    help="a run's configuration; --gin.NAME=VALUE as in training",
  )  # fmt: skip
  what.add_argument(
    "--run", type=Path, metavar="FOLDER",
    help="a run that exists: its own configuration and data",
  )  # fmt: skip
  what.add_argument(
    "--data", type=Path, metavar="FOLDER",
    help="prepared data alone: statistics and a few records",
  )  # fmt: skip
  parser.add_argument(
    "--gin.NAME=VALUE", dest="unused", metavar="", help="sets a macro"
  )
  parser.add_argument(
    "--gin_search_paths", default="", metavar="FOLDERS",
    help="more folders, separated by commas, for gin files",
  )  # fmt: skip
  parser.add_argument("--step", type=int, default=1, help="update, from 1 (1)")
  parser.add_argument(
    "--rows", type=int, default=4, help="rows of each stream (4)"
  )
  parser.add_argument("--stream", metavar="NAME", help="this one only")
  parser.add_argument(
    "--statistics", action="store_true",
    help="a table by language and pair instead of rows",
  )  # fmt: skip
  parser.add_argument(
    "--output", type=Path, metavar="FOLDER",
    help="with --statistics: write the table and a picture of it there too",
  )  # fmt: skip
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the tool; returns its exit code."""
  flags, rest = _parser().parse_known_args(argv)
  os.environ.setdefault("JAX_PLATFORMS", "cpu")

  def show() -> None:
    for line in _lines(flags, rest):
      print(line)

  return exit_code(show, gin_utils.plain)


def _lines(flags: argparse.Namespace, rest: Sequence[str]) -> Iterator[str]:
  if (bool(flags.gin_file) + bool(flags.run) + bool(flags.data)) != 1:
    raise InputError(
      "give one of --gin_file FILE, --run FOLDER and --data FOLDER (see --help)"
    )
  if flags.rows < 1:
    raise InputError(f"--rows {flags.rows}: 1 at least")
  if flags.step < 1:
    raise InputError(
      f"--step {flags.step}: updates count from 1, as in metrics.jsonl"
    )
  if flags.output and not flags.statistics:
    raise InputError("--output goes with --statistics")
  from infoxlm_jax.analysis import inspect_data

  if flags.data:
    if rest:
      raise InputError(f"unknown argument {rest[0]!r} (see --help)")
    yield from inspect_data.at_data(
      flags.data, flags.rows, flags.statistics, flags.output
    )
    return
  with _arguments(flags, rest) as (arguments, folder):
    if flags.statistics:
      yield from inspect_data.at_statistics(arguments, folder, flags.output)
    else:
      yield from inspect_data.at_step(
        arguments, folder, flags.step, flags.rows, flags.stream
      )


@contextlib.contextmanager
def _arguments(
  flags: argparse.Namespace, rest: Sequence[str]
) -> Iterator[tuple[dict[str, Any], Path]]:
  """What training would get, and the folder of its data."""
  from infoxlm_jax.analysis import inspect_data

  files = list(flags.gin_file)
  if flags.run:
    files = [str(flags.run / "config.gin")]
    rest = [*rest, f"--gin.MODEL_DIR={flags.run}"]
  search = [folder for folder in flags.gin_search_paths.split(",") if folder]
  arguments = gin_utils.load(files, rest, search).arguments()
  with tempfile.TemporaryDirectory(prefix="infoxlm-inspect-") as folder:
    yield arguments, inspect_data.data_folder(arguments, Path(folder))


if __name__ == "__main__":
  sys.exit(main())
