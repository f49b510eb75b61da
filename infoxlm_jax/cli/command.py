"""Shared parts of the commands: parsing, errors, exit codes, options."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from infoxlm_jax.errors import InputError, exit_code
from infoxlm_jax.runtime import files, platforms

_EXIT_CODES = """
exit codes:
  0 done
  2 bad input or arguments: nothing is written
  3 storage failed
  130 Ctrl-C
"""


class _Parser(argparse.ArgumentParser):
  """Raises InputError instead of printing the usage and exiting."""

  def error(self, message: str) -> NoReturn:
    raise InputError(f"{message} (see {self.prog} --help)")


def make_parser(
  name: str, description: str | None, allow_abbrev: bool = True
) -> argparse.ArgumentParser:
  """A parser that raises InputError for arguments that it cannot read.

  Args:
    name: of the console script; errors name it, too.
    description: --help shows it unchanged, before the options.
    allow_abbrev: whether --out may stand for --output.
  """
  return _Parser(
    prog=name,
    description=description,
    epilog=_EXIT_CODES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=allow_abbrev,
  )


def run(
  command: Callable[[], object],
  in_words: Callable[[Exception], str] = str,
) -> int:
  """Runs a command and returns its exit code, see errors.exit_code.

  Warnings are logged to standard error; from absl, which orbax logs through,
  only errors.

  Args:
    command: parses the arguments and does the work.
    in_words: turns an exception into the message that is printed.
  """
  logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
  logging.getLogger("absl").setLevel(logging.ERROR)
  platforms.leave_out_absent()
  return exit_code(command, in_words)


def check_new(output: str | Path) -> None:
  """Checks an output before any work is done.

  Raises:
    InputError: it exists, or its parent is not a folder.
  """
  files.check_new(output)
  place = next(p for p in Path(output).absolute().parents if p.exists())
  if not place.is_dir():
    raise InputError(f"{output}: cannot be written: {place} is no folder")


def add_model(
  parser: argparse.ArgumentParser,
  flag: str,
  *,
  model: str = "a run's folder (its newest checkpoint), a checkpoint's, a"
  " Hugging Face folder, or a file of weights",
  tokenizer: str = "its file or folder, where the model has none",
) -> argparse._ArgumentGroup:
  """Adds the options that choose a model.

  They are `flag`, --tokenizer and --allow_pickle.

  Args:
    parser: to add them to.
    flag: the option that names the model, such as "--model".
    model: help of that flag.
    tokenizer: help of --tokenizer.

  Returns:
    The group of these options, to which more can be added.
  """
  group = parser.add_argument_group("the model")
  group.add_argument(flag, required=True, help=model)
  group.add_argument("--tokenizer", metavar="PATH", help=tokenizer)
  group.add_argument(
    "--allow_pickle",
    action="store_true",
    help="read torch's .bin and .pt too, which can run programs: only files"
    " from people that you trust",
  )
  return group


def add_vectors(
  parser: argparse.ArgumentParser,
  *,
  layer: str,
  pooling: str | None,
  pooling_default: str,
) -> None:
  """Adds the options that say how a text becomes a vector.

  They are --layer, --pooling, --normalize and --prefix.

  Args:
    parser: to add them to.
    layer: help of --layer.
    pooling: default of --pooling.
    pooling_default: that default in words.
  """
  group = parser.add_argument_group("the vector of a text")
  group.add_argument("--layer", type=int, metavar="N", help=layer)
  group.add_argument(
    "--pooling",
    default=pooling,
    help="mean (without <s> and </s>), mean_all (with them), first (<s>);"
    f" default: {pooling_default}",
  )
  group.add_argument(
    "--normalize", action="store_true", help="scale vectors to length 1"
  )
  group.add_argument(
    "--prefix",
    default="",
    metavar="TEXT",
    help="put before every text, such as 'query: ' for e5 (default: nothing)",
  )
