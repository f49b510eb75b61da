"""Converts weights from elsewhere into a checkpoint of this project.

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
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infoxlm_jax.errors import InputError, StorageError

if TYPE_CHECKING:
  from infoxlm_jax.data.tokenizer import Tokenizer


def find_tokenizer(
  source: Path, given: Path | None, described: Mapping[str, Any]
) -> "Tokenizer | None":
  """The tokenizer to add: the one that is given, or the one beside the weights.

  Args:
    source: folder or file of weights.
    given: on the command line.
    described: model.json, of our own checkpoint with a tokenizer already.
  """
  from infoxlm_jax.data.tokenizer import holds_tokenizer, load_tokenizer

  if described["tokenizer_sha256"]:
    if given is not None:
      raise InputError(
        f"{source}: is a checkpoint that has its tokenizer: leave out"
        " --tokenizer"
      )
    return None
  if given is not None:
    return load_tokenizer(given)
  folder = source if source.is_dir() else source.parent
  return load_tokenizer(folder) if holds_tokenizer(folder) else None


def convert(
  source: Path, output: Path, tokenizer: Path | None, allow_pickle: bool
) -> None:
  """Writes the checkpoint and prints the report."""
  # Slow to import, and not needed for --help.
  from infoxlm_jax import checkpoint
  from infoxlm_jax.checkpoint_files import (
    CHECKSUMS,
    MODEL,
    POSITION,
    describe_model,
    find_step,
    read_step_files,
  )
  from infoxlm_jax.weights.load import load_weights, with_ids

  if output.exists():
    raise InputError(f"{output} exists: move it away, or choose another name")
  config, params, report = load_weights(source, allow_pickle=allow_pickle)
  files = {MODEL: describe_model(config)}
  if (step := find_step(source)) is not None:
    # What our own checkpoint says of itself stays, and so does its tokenizer.
    files = read_step_files(step)
    for name in (CHECKSUMS, POSITION):
      files.pop(name, None)
  found = find_tokenizer(source, tokenizer, json.loads(files[MODEL]))
  if found is not None:
    config = with_ids(config, found, str(source))
    files |= {MODEL: describe_model(config, found), **found.files}
  print(report)
  checkpoint.write_params(output, params, files)
  stored = json.loads(files[MODEL])["tokenizer_sha256"]
  print(
    f"{output}: {config.architecture},"
    f" {'with' if stored else 'without'} a tokenizer"
  )


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
    help="file or folder of the weights' tokenizer, stored with them; default:"
    " the one that stands beside them",
  )
  parser.add_argument(
    "--allow_pickle",
    action="store_true",
    help="read torch's .bin and .pt, which can be harmful; only for files"
    " whose origin you know",
  )
  args = parser.parse_args(argv)
  try:
    convert(args.input, args.output, args.tokenizer, args.allow_pickle)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except StorageError as error:
    print(f"error: {error}", file=sys.stderr)
    return 3
  except KeyboardInterrupt:
    return 130
  return 0


if __name__ == "__main__":
  sys.exit(main())
