r"""Converts weights of other programs into a checkpoint of this project.

  infoxlm-import-checkpoint --input xlm-roberta-base --output base
  infoxlm-import-checkpoint --input model.safetensors --output base \
    --tokenizer sentencepiece.bpe.model

INPUT is a local folder or file (nothing is downloaded): a Hugging Face folder
of XLM-R, RoBERTa, InfoXLM, XLM-Align, BERT (mBERT, e5) or XLM, with the
weights in one or several safetensors files or, with --allow_pickle, in torch's
.bin or fairseq's model.pt. config.json must be beside the weights, except for
model.pt. The command prints for every tensor whether it was loaded. OUTPUT is
a checkpoint with weights only, for training (--gin.INIT_FROM=OUTPUT), export
and encoding; INIT_FROM also accepts INPUT itself.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from infoxlm_jax.cli import command


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command.run(lambda: convert(_parser().parse_args(argv)))


def convert(args: argparse.Namespace) -> None:
  """Writes the checkpoint and prints the report.

  Raises:
    InputError: the output exists, the weights cannot be used, or the
      tokenizer's ids are not those of transformers.
    StorageError: writing failed.
  """
  # Slow to import, and not needed for --help.
  from infoxlm_jax.checkpoint import metadata
  from infoxlm_jax.checkpoint.importers.compare_tokenizer import (
    compare_with_folder,
  )
  from infoxlm_jax.checkpoint.importers.find_tokenizer import (
    find_tokenizer,
    imported_folder,
    with_ids_of,
  )
  from infoxlm_jax.checkpoint.importers.languages import languages_of
  from infoxlm_jax.checkpoint.importers.load import load_weights
  from infoxlm_jax.checkpoint.metadata import describe_model
  from infoxlm_jax.checkpoint.params import write_params
  from infoxlm_jax.runtime import run_layout

  source, output = Path(args.input), Path(args.output)
  command.check_new(output)
  config, params, report = load_weights(source, allow_pickle=args.allow_pickle)
  tokenizer = find_tokenizer(source, args.tokenizer)
  files, origin, compared = {}, None, ""
  if tokenizer is not None:
    config = with_ids_of(config, tokenizer, source)
    files = dict(tokenizer.files)
    origin = imported_folder(source, args.tokenizer)
    if not args.skip_comparison:
      compared = compare_with_folder(tokenizer, origin)
  files[metadata.MODEL] = describe_model(
    config,
    tokenizer,
    imported_from=None if origin is None else str(origin.absolute()),
    languages=languages_of(source),
  )
  if args.tokenizer is None and (step := run_layout.find_step(source)):
    # model.json of a run also says how sentence vectors are read.
    stored = metadata.read_step_files(step)
    files[metadata.MODEL] = stored[metadata.MODEL]
  print(report)
  if compared:
    print(compared)
  write_params(output, params, files)
  if "masked_lm" not in params["heads"]:
    print(
      "no head for masked language modelling: a run that needs one initialises"
      " it, and says so"
    )
  having = "without" if tokenizer is None else "with"
  print(f"{output}: {config.architecture}, {having} a tokenizer")


def _parser() -> argparse.ArgumentParser:
  parser = command.make_parser("infoxlm-import-checkpoint", __doc__)
  command.add_model(
    parser,
    "--input",
    model="a Hugging Face folder, a file of weights, or a checkpoint",
    tokenizer="the weights' tokenizer, stored with them (default: the one in"
    " INPUT)",
  )
  parser.add_argument(
    "--output",
    required=True,
    metavar="FOLDER",
    help="a new folder, the checkpoint",
  )
  parser.add_argument(
    "--skip_comparison",
    action="store_true",
    help="do not compare the tokenizer's ids with those of transformers,"
    " where it is installed",
  )
  return parser


if __name__ == "__main__":
  sys.exit(main())
