r"""Turns texts into vectors with a run, a checkpoint or a Hugging Face model.

  infoxlm-encode --model runs/quickstart --layer 1 --pooling mean \
    --input texts.txt --output vectors.npy

  infoxlm-encode --model e5 --tokenizer sentencepiece.bpe.model \
    --pooling mean_all --prefix 'query: ' --normalize \
    --input texts.txt --output vectors.jsonl

Each line of the input is one text; lines end at \n only, an empty line is an
empty text, and "<mask>" in a text is text. The output has one vector for each
line, in the same order: .npy is a float32 array [lines, size], .jsonl has one
JSON array in each line. The file appears when it is complete, and an existing
one is not overwritten. "-" is standard input or output. Input of any size is
read piece by piece.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from infoxlm_jax.cli import command
from infoxlm_jax.errors import InputError

_STANDARD = "-"  # input or output


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command.run(lambda: encode_file(_parser().parse_args(argv)))


def encode_file(args: argparse.Namespace) -> None:
  """Encodes the input that the arguments name, line by line.

  Raises:
    InputError: the model or the texts cannot be read, the output exists, or
      the model does not have the layer or pooling.
    StorageError: writing failed.
  """
  # Slow to import, and not needed for --help.
  from tqdm import tqdm

  from infoxlm_jax.evaluation import inference, vector_files
  from infoxlm_jax.model.pooling import Reading

  if args.output != _STANDARD:
    command.check_new(args.output)
    vector_files.check_new(args.output)
  if args.input != _STANDARD and not Path(args.input).is_file():
    raise InputError(f"cannot read {args.input}: no such file")
  reading = Reading(
    args.layer,
    args.pooling,
    args.prefix,
    args.normalize,
    args.max_length,
    args.batch_tokens,
  )
  encoder = inference.load(
    args.model,
    tokenizer=args.tokenizer,
    dtype=args.dtype,
    allow_pickle=args.allow_pickle,
  )
  size = encoder.config.hidden_size
  with tqdm(unit="text", disable=not sys.stderr.isatty(), leave=False) as bar:
    parts = encoder.encode_stream(_lines(args.input), reading, done=bar.update)
    if args.input != _STANDARD:
      # This also reports a broken line before anything is computed.
      bar.total = sum(1 for _ in _lines(args.input))
    with vector_files.open_vectors(args.output, size) as write:
      count = 0
      for vectors in parts:
        write(vectors)
        count += len(vectors)
  if args.output != _STANDARD:
    print(f"written: {args.output} ({count:,} vectors of {size})")


def _lines(name: str) -> Iterator[str]:
  """Lines of a file (.gz and .xz too), or of standard input.

  Raises:
    InputError: the input is missing, empty, damaged, or not UTF-8, or a line
      is too long.
  """
  from infoxlm_jax.data.corpora.open_files import read_lines
  from infoxlm_jax.runtime import read_files

  if name != _STANDARD:
    yield from (line for _, line in read_lines(name))
    return
  lines = read_files.lines(sys.stdin.buffer, "standard input")
  for number, raw in enumerate(lines, 1):
    try:
      text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
      raise InputError(
        f"standard input, line {number}: not UTF-8 ({error.reason} at place"
        f" {error.start + 1} of the line)"
      ) from None
    yield text.removesuffix("\n").removesuffix("\r")


def _parser() -> argparse.ArgumentParser:
  parser = command.make_parser("infoxlm-encode", __doc__)
  model = command.add_model(parser, "--model")
  model.add_argument(
    "--dtype",
    default="float32",
    choices=["float32", "bfloat16"],
    help="of the computation (default: %(default)s)",
  )
  model.add_argument(
    "--batch_tokens",
    type=int,
    default=4096,
    metavar="N",
    help="tokens of a batch on each device (default: %(default)s)",
  )
  texts = parser.add_argument_group("the texts")
  texts.add_argument(
    "--input",
    required=True,
    metavar="FILE",
    help="one text per line (.gz and .xz too); - is standard input",
  )
  texts.add_argument(
    "--output",
    required=True,
    metavar="FILE",
    help=".npy, .jsonl, or - for standard output",
  )
  texts.add_argument(
    "--max_length",
    type=int,
    metavar="N",
    help="cut texts after N tokens (default: the number of the model's"
    " positions)",
  )
  command.add_vectors(
    parser,
    layer="1 is the first layer, 0 the embedding output (default: the last)",
    pooling="mean",
    pooling_default="mean",
  )
  return parser


if __name__ == "__main__":
  sys.exit(main())
