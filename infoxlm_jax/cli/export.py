r"""Writes a model as a folder for transformers or sentence-transformers.

  infoxlm-export --checkpoint runs/quickstart --format hf \
    --output quickstart-hf

  infoxlm-export --checkpoint runs/quickstart --format sentence-transformers \
    --layer 1 --pooling mean --output quickstart-st

Format `hf`: model.safetensors, config.json, the tokenizer's files and a model
card. Format `sentence-transformers`: the same for the encoder up to a layer,
with the modules that pool its tokens. Where torch and the libraries are
installed, they load the result and compare its outputs with ours on a few
sentences; the folder appears only if they agree. An existing output is not
overwritten.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infoxlm_jax.cli import command
from infoxlm_jax.errors import InputError

if TYPE_CHECKING:  # slow to import, and not needed for --help
  import numpy as np

  from infoxlm_jax.checkpoint.exporters.source import Source
  from infoxlm_jax.model.pooling import Reading


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command.run(lambda: export_model(_parser().parse_args(argv)))


def export_model(args: argparse.Namespace) -> None:
  """Exports the model that the arguments name, and prints a report.

  Raises:
    InputError: arguments that do not go together, or a model that the
      exporters refuse.
    StorageError: writing failed.
  """
  from infoxlm_jax.checkpoint.exporters import export, source, trim_vocabulary
  from infoxlm_jax.checkpoint.exporters.model_card import About

  if args.format == "hf":
    _refuse_vectors(args)
  command.check_new(args.output)
  model = source.open_source(
    args.checkpoint,
    tokenizer=args.tokenizer,
    encoder=args.encoder,
    allow_pickle=args.allow_pickle,
  )
  if args.format == "sentence-transformers":
    export.check_reads_text(model)
  if args.keep_pieces_from:
    model, saved = trim_vocabulary.trim_vocabulary(
      model, args.keep_pieces_from, args.prefix
    )
    print(saved)
  about = About(
    args.name or Path(args.output).name,
    args.languages,
    args.license,
    args.base_model,
  )
  if args.format == "hf":
    if args.layer is not None:
      model = source.first_layers(model, args.layer)
    lines = export.export_transformers(
      model,
      args.output,
      about,
      dtype=args.dtype,
      check=not args.skip_comparison,
    )
  else:
    layer, pooling = model.chosen
    if args.layer is not None:
      layer = args.layer
    elif not layer:  # layer 0, the embedding output, is not a model
      layer = model.config.num_layers
    pooling = args.pooling or pooling or "mean"
    print(f"sentence vectors: layer {layer}, pooling {pooling}")
    lines = export.export_sentence_transformers(
      model,
      args.output,
      about,
      layer=layer,
      pooling=pooling,
      normalize=args.normalize,
      prefix=args.prefix,
      dtype=args.dtype,
      encode=None if args.skip_comparison else encode,
    )
  for line in lines:
    print(line)
  print(f"written: {args.output}")


def encode(
  source: "Source", texts: Sequence[str], reading: "Reading"
) -> "np.ndarray":
  """Vectors that an exported model must reproduce: float32 [N, D].

  Computed by `infoxlm_jax.load`'s encoder, on one device.
  """
  from infoxlm_jax.evaluation import inference
  from infoxlm_jax.model import partitioning

  assert source.tokenizer is not None
  mesh = partitioning.make_mesh(partitioning.MeshShape(devices=1))
  encoder = inference.Encoder(
    source.config, source.params, source.tokenizer, mesh
  )
  return encoder.encode(
    texts,
    layer=reading.layer,
    pooling=reading.pooling,
    prefix=reading.prefix,
    normalize=reading.normalize,
  )


def _refuse_vectors(args: argparse.Namespace) -> None:
  """Refuses --pooling, --normalize and --prefix: `hf` has no place for them."""
  given = {
    "pooling": args.pooling,
    "normalize": args.normalize,
    # Trimming reads texts with it.
    "prefix": args.prefix and not args.keep_pieces_from,
  }
  for name, value in given.items():
    if value:
      raise InputError(
        f"--{name} belongs to --format sentence-transformers: a folder for"
        " transformers gives vectors of tokens"
      )


def _parser() -> argparse.ArgumentParser:
  parser = command.make_parser("infoxlm-export", __doc__)
  model = command.add_model(parser, "--checkpoint")
  model.add_argument(
    "--encoder",
    choices=["query", "key"],
    default="query",
    help="the trained encoder, or the key encoder: its moving average, of the"
    " layers that the contrast reads (default: %(default)s)",
  )
  model.add_argument(
    "--keep_pieces_from",
    nargs="+",
    type=Path,
    metavar="FILE",
    help="keep only the vocabulary that these texts use (one text per line,"
    " or in each cell of .tsv; also .gz, .xz)",
  )
  folder = parser.add_argument_group("the folder")
  folder.add_argument(
    "--format",
    required=True,
    choices=["hf", "sentence-transformers"],
    help="the library that will load it; hf is transformers",
  )
  folder.add_argument(
    "--output", required=True, metavar="FOLDER", help="a new folder"
  )
  folder.add_argument(
    "--dtype",
    default="float32",
    choices=["float32", "bfloat16", "float16"],
    help="of the stored weights (default: %(default)s)",
  )
  folder.add_argument(
    "--skip_comparison",
    action="store_true",
    help="do not load the result in torch to compare outputs",
  )
  command.add_vectors(
    parser,
    layer="leave out the layers above this one, and the heads; default: for"
    " sentence-transformers the layer that the run's evaluation chose on dev,"
    " else all",
    pooling=None,
    pooling_default="the one that the run's evaluation chose on dev, else mean",
  )
  card = parser.add_argument_group("the model card")
  card.add_argument(
    "--name", metavar="TITLE", help="default: the name of the output"
  )
  card.add_argument(
    "--languages",
    nargs="+",
    default=[],
    metavar="CODE",
    help="default: those of the run's evaluation",
  )
  card.add_argument("--license", metavar="NAME", help="such as mit")
  card.add_argument(
    "--base_model",
    metavar="NAME",
    help="the model that the training started from",
  )
  return parser


if __name__ == "__main__":
  sys.exit(main())
