r"""Converts weights from elsewhere into a checkpoint of this project.

    python tools/import_checkpoint.py --input xlm-roberta-base --output base
    python tools/import_checkpoint.py --input model.safetensors --output base \
      --tokenizer sentencepiece.bpe.model

INPUT is a folder or a file that is here already (nothing is downloaded): a
Hugging Face folder of XLM-R, RoBERTa, InfoXLM, XLM-Align, BERT (mBERT, e5) or
XLM with safetensors, one file or several, a .npz, or, with --allow_pickle,
torch's .bin and fairseq's model.pt; config.json stands beside the weights.
Prints what became of every tensor. OUTPUT is then a checkpoint of weights
only, for training (--gin.INIT_FROM=OUTPUT), export and encoding; training also
takes INPUT itself.
"""

import argparse
import sys
from pathlib import Path

from infoxlm_jax.errors import InputError, exit_code


def convert(
  source: Path, output: Path, tokenizer: Path | None, allow_pickle: bool
) -> None:
  """Writes the checkpoint and prints the report."""
  # Slow to import, and not needed for --help.
  from infoxlm_jax.checkpoint import manager, metadata
  from infoxlm_jax.checkpoint.importers.find_tokenizer import (
    find_tokenizer,
    with_ids_of,
  )
  from infoxlm_jax.checkpoint.importers.load import load_weights
  from infoxlm_jax.checkpoint.metadata import describe_model
  from infoxlm_jax.runtime import run_layout

  if output.exists():
    raise InputError(f"{output} exists: move it away, or choose another name")
  config, params, report = load_weights(source, allow_pickle=allow_pickle)
  found = find_tokenizer(source, tokenizer)
  files = {}
  if found is not None:
    config = with_ids_of(config, found, source)
    files = dict(found.files)
  files[metadata.MODEL] = describe_model(config, found)
  if tokenizer is None and (step := run_layout.find_step(source)):
    # A run's checkpoint says more of itself: how it reads a sentence's vector.
    stored = metadata.read_step_files(step)
    files[metadata.MODEL] = stored[metadata.MODEL]
  print(report)
  manager.write_params(output, params, files)
  if "masked_lm" not in params["heads"]:
    print(
      "no head for masked language modelling: a run that needs one initialises"
      " it, and says so"
    )
  having = "without" if found is None else "with"
  print(f"{output}: {config.architecture}, {having} a tokenizer")


def main(argv: list[str] | None = None) -> int:
  """Runs the tool; returns its exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--input", type=Path, required=True, help="see above")
  parser.add_argument(
    "--output", type=Path, required=True, help="a new folder, the checkpoint"
  )
  parser.add_argument(
    "--tokenizer",
    type=Path,
    help="the weights' tokenizer, stored with them; default: the one in INPUT",
  )
  parser.add_argument(
    "--allow_pickle",
    action="store_true",
    help="read torch's .bin and .pt, which can be harmful; only for files"
    " whose origin you know",
  )
  args = parser.parse_args(argv)
  return exit_code(
    lambda: convert(args.input, args.output, args.tokenizer, args.allow_pickle)
  )


if __name__ == "__main__":
  sys.exit(main())
