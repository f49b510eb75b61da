r"""Writes a model as a folder for transformers or sentence-transformers.

    python tools/export.py --checkpoint runs/quickstart --format hf \
      --output quickstart-hf

    python tools/export.py --checkpoint runs/quickstart \
      --format sentence-transformers --layer 1 --pooling mean \
      --output quickstart-st

Format `hf`: model.safetensors, config.json, the tokenizer's files and a model
card. Format `sentence-transformers`: the same of the encoder up to a layer,
and the modules that pool its tokens. Where torch and the libraries are
installed, the folder is loaded again and compared on a few sentences; it
appears only if they agree. An existing output is not overwritten.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infoxlm_jax.errors import InputError, exit_code
from infoxlm_jax.runtime.files import check_new


def run(args: argparse.Namespace) -> None:
  """Exports what the arguments name."""
  # Only now what is slow to import.
  from infoxlm_jax.checkpoint.exporters import export, source, trim_vocabulary
  from infoxlm_jax.checkpoint.exporters.model_card import About

  check_new(args.output)
  found = source.open_source(
    args.checkpoint,
    tokenizer=args.tokenizer,
    encoder=args.encoder,
    allow_pickle=args.allow_pickle,
  )
  if args.keep_pieces_from:
    found, saved = trim_vocabulary.trim_vocabulary(
      found, args.keep_pieces_from, args.prefix
    )
    print(saved)
  about = About(
    args.name or Path(args.output).name,
    args.languages,
    args.license,
    args.base_model,
  )
  if args.format == "hf":
    _refuse(args, "pooling", "normalize", "prefix")
    if args.layer is not None:
      found = source.first_layers(found, args.layer)
    lines = export.export_transformers(
      found,
      args.output,
      about,
      dtype=args.dtype,
      check=not args.skip_comparison,
    )
  else:
    layer, pooling = found.chosen
    if args.layer is not None:
      layer = args.layer
    elif not layer:  # layer 0, of no transformer layer, is no model
      layer = found.config.num_layers
    pooling = args.pooling or pooling or "mean"
    print(f"sentence vectors: layer {layer}, pooling {pooling}")
    lines = export.export_sentence_transformers(
      found,
      args.output,
      about,
      layer=layer,
      pooling=pooling,
      normalize=args.normalize,
      prefix=args.prefix,
      dtype=args.dtype,
      check=not args.skip_comparison,
    )
  for line in lines:
    print(line)
  print(f"written: {args.output}")


def _refuse(args: argparse.Namespace, *names: str) -> None:
  for name in names:
    if getattr(args, name) and not (name == "prefix" and args.keep_pieces_from):
      raise InputError(
        f"--{name} belongs to --format sentence-transformers: a folder for"
        " transformers gives vectors of tokens"
      )


def main(argv: list[str] | None = None) -> int:
  """Runs the tool; returns its exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--checkpoint",
    required=True,
    help="a run's folder, a checkpoint's, a Hugging Face folder, or a file of"
    " weights",
  )
  parser.add_argument(
    "--format", required=True, choices=["hf", "sentence-transformers"]
  )
  parser.add_argument("--output", required=True, help="a new folder")
  parser.add_argument(
    "--tokenizer", help="its file or folder, where the model has none"
  )
  parser.add_argument(
    "--encoder",
    choices=["query", "key"],
    default="query",
    help="the trained encoder, or the key encoder: its moving average, of the"
    " layers that the contrast reads",
  )
  parser.add_argument(
    "--layer",
    type=int,
    help="leave out the layers above this one (and the heads). Default: for"
    " sentence-transformers what the run's evaluation chose on dev, else all",
  )
  parser.add_argument(
    "--pooling",
    help="mean (without <s> and </s>), mean_all (with them), first (<s>);"
    " default: what the run chose on dev, else mean",
  )
  parser.add_argument(
    "--normalize", action="store_true", help="vectors of length 1"
  )
  parser.add_argument(
    "--prefix",
    default="",
    help="put before every text, such as 'query: ' for e5",
  )
  parser.add_argument(
    "--keep_pieces_from",
    nargs="+",
    type=Path,
    metavar="FILE",
    help="keep only the vocabulary that these texts use (a text a line, or"
    " the cells of .tsv; also .gz, .xz)",
  )
  parser.add_argument(
    "--dtype",
    default="float32",
    choices=["float32", "bfloat16", "float16"],
    help="of the stored weights",
  )
  parser.add_argument(
    "--skip_comparison",
    action="store_true",
    help="do not load the result in torch to compare outputs",
  )
  parser.add_argument("--name", help="title of the model card")
  parser.add_argument(
    "--languages", nargs="+", default=[], help="codes, for the model card"
  )
  parser.add_argument("--license", help="for the model card, such as mit")
  parser.add_argument("--base_model", help="for the model card")
  parser.add_argument(
    "--allow_pickle",
    action="store_true",
    help="read torch's pickled files too; only from people that you trust",
  )
  args = parser.parse_args(argv)
  logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
  logging.getLogger("absl").setLevel(logging.ERROR)
  return exit_code(lambda: run(args))


if __name__ == "__main__":
  sys.exit(main())
