r"""Turns texts into vectors with a run, a checkpoint or a Hugging Face model.

    python tools/encode.py --model runs/quickstart --layer 1 --pooling mean \
      --input texts.txt --output vectors.npy

    python tools/encode.py --model e5 --tokenizer sentencepiece.bpe.model \
      --pooling mean_all --prefix 'query: ' --normalize \
      --input texts.txt --output vectors.jsonl

A line of the input is a text; lines end at \n only, and an empty line is an
empty text. The output has a vector for every line, in their order: .npy is a
float32 array [lines, size], .jsonl a JSON array a line. It appears when it is
whole; an existing one is not overwritten. "-" is standard input or output.
Input of any size is read piece by piece.
"""

import argparse
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from infoxlm_jax.errors import InputError, exit_code
from infoxlm_jax.evaluation import vector_files


def read(name: str) -> Iterator[str]:
  """Lines of a file (.gz and .xz too), or of standard input.

  Raises:
    InputError: missing, empty, damaged, or not UTF-8.
  """
  from infoxlm_jax.data.corpora.open_files import read_lines

  if name != vector_files.STDOUT:
    yield from (line for _, line in read_lines(name))
    return
  for number, raw in enumerate(sys.stdin.buffer, 1):
    try:
      text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
      raise InputError(
        f"standard input, line {number}: not UTF-8 ({error.reason} at place"
        f" {error.start + 1} of the line)"
      ) from None
    yield text.removesuffix("\n").removesuffix("\r")


def run(args: argparse.Namespace) -> None:
  """Encodes what the arguments name."""
  if args.output != vector_files.STDOUT:
    vector_files.check_new(args.output)
  if args.input != vector_files.STDOUT and not Path(args.input).is_file():
    raise InputError(f"cannot read {args.input}: no such file")
  # Only now what is slow to import.
  from infoxlm_jax.evaluation import inference
  from infoxlm_jax.model.pooling import Reading

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
  with tqdm(unit="text", disable=not sys.stderr.isatty(), leave=False) as bar:
    vectors = encoder.encode_stream(read(args.input), reading, done=bar.update)
    if args.input != vector_files.STDOUT:
      # Also to tell of a broken line before anything is computed.
      bar.total = sum(1 for _ in read(args.input))
    with vector_files.open_vectors(
      args.output, encoder.config.hidden_size
    ) as write:
      count = 0
      for some in vectors:
        write(some)
        count += len(some)
  if args.output != vector_files.STDOUT:
    size = encoder.config.hidden_size
    print(f"written: {args.output} ({count:,} vectors of {size})")


def main(argv: list[str] | None = None) -> int:
  """Runs the tool; returns its exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--model",
    required=True,
    help="a run's folder, a checkpoint's, a Hugging Face folder, or a file of"
    " weights",
  )
  parser.add_argument(
    "--tokenizer", help="its file or folder, where the model has none"
  )
  parser.add_argument(
    "--input", required=True, help="a text a line; - is stdin"
  )
  parser.add_argument(
    "--output", required=True, help=".npy, .jsonl, or - for stdout"
  )
  parser.add_argument(
    "--layer", type=int, help="read after this layer (default: the last)"
  )
  parser.add_argument(
    "--pooling",
    default="mean",
    help="mean (without <s> and </s>), mean_all (with them), first (<s>);"
    " default: mean",
  )
  parser.add_argument("--prefix", default="", help="put before every text")
  parser.add_argument(
    "--normalize", action="store_true", help="scale vectors to length 1"
  )
  parser.add_argument(
    "--max_length", type=int, help="cut texts after so many tokens"
  )
  parser.add_argument(
    "--batch_tokens",
    type=int,
    default=4096,
    help="computed at a time on each device (default 4096)",
  )
  parser.add_argument(
    "--dtype", default="float32", choices=["float32", "bfloat16"]
  )
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
