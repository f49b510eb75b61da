r"""Looks whether this machine is fit for training, one line for each thing.

  infoxlm-doctor
  infoxlm-doctor --tokenizer sentencepiece.bpe.model --model_dir /data/runs

It looks at the versions of Python and of all packages, at the devices that jax
computes on, whether TensorFlow leaves them to jax, at memory, at the ids of
the tokenizer, and whether runs can be written. "ok" or "WRONG" begins each
line. Exit code 1: something is wrong; its line says what to do.
"""

import argparse
import sys
from collections.abc import Sequence

from infoxlm_jax.cli import command


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  wrong: list[str] = []
  code = command.run(lambda: wrong.extend(report(_parser().parse_args(argv))))
  return code or int(bool(wrong))


def report(args: argparse.Namespace) -> list[str]:
  """Prints a line for each thing that is looked at.

  Returns:
    The lines of those that are wrong.
  """
  # Slow to import, and not needed for --help.
  from infoxlm_jax.analysis import doctor

  wrong = []
  for finding in doctor.examine(args.tokenizer, args.model_dir):
    print(finding, flush=True)
    if finding.wrong:
      wrong.append(str(finding))
  return wrong


def _parser() -> argparse.ArgumentParser:
  parser = command.make_parser("infoxlm-doctor", __doc__)
  parser.add_argument(
    "--tokenizer",
    metavar="PATH",
    help="file or folder of one (default: the quickstart's)",
  )
  parser.add_argument(
    "--model_dir",
    default="runs",
    metavar="FOLDER",
    help="where runs are to be written (default: %(default)s)",
  )
  return parser


if __name__ == "__main__":
  sys.exit(main())
