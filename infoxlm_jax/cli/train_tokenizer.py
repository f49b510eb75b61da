r"""Trains a tokenizer on text of many languages.

  infoxlm-train-tokenizer --input tasks/data/verses.train.tsv.gz \
    --vocab_size 8000 --output verses.model
  infoxlm-train-tokenizer --input en.txt fr.txt.gz \
    --model_type wordpiece --vocab_size 8000 --output tokenizer.json

(The first command made tasks/data/verses.spm.model, which this project ships.)

`unigram` writes a SentencePiece model (XLM-R's ids: two more than its pieces).
`wordpiece` and `bpe` (of bytes) write a Hugging Face tokenizer.json with the
special tokens of BERT and of XLM-R.

Inputs are TSV files with the languages in their header (a first column `id` is
left out), or plain text files named after their language (`fr.txt`,
`fr.txt.gz`). From a language with n sentences, a number proportional to
n^alpha is used: the largest numbers for which no sentence is needed twice. The
same input and options give the same bytes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from infoxlm_jax.cli import command
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime.files import write_atomically

# The usual ending of each type's file. A SentencePiece file may have any other
# ending than .json.
_ENDINGS = {"unigram": ".model", "wordpiece": ".json", "bpe": ".json"}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command.run(lambda: train(_parser().parse_args(argv)))


def train(args: argparse.Namespace) -> None:
  """Trains and writes a tokenizer, and prints a table of its languages.

  Raises:
    InputError: the output exists or has the wrong ending, the files hold no
      sentence, or the vocabulary cannot be trained on them.
    StorageError: writing failed.
  """
  command.check_new(args.output)
  ending = _ENDINGS[args.model_type]
  if (args.output.suffix == ".json") != (ending == ".json"):
    raise InputError(
      f"--output {args.output}: {args.model_type} is written as a {ending}"
      " file; give such a name."
    )
  if args.max_sentences < 1:
    raise InputError(f"--max_sentences {args.max_sentences}: 1 at least")
  if not 0 < args.character_coverage <= 1:
    raise InputError(
      f"--character_coverage {args.character_coverage}: a share is above 0 and"
      " at most 1"
    )
  # Slow to import, and not needed for --help.
  from infoxlm_jax.data.tokenizers import train_on_files
  from infoxlm_jax.data.tokenizers.base import tokenizer_from_files

  sentences = train_on_files.read_sentences(args.input)
  if not sentences:
    raise InputError("the input files hold no sentence.")
  files = train_on_files.train(
    train_on_files.balance(
      sentences, args.alpha, args.seed, args.max_sentences
    ),
    args.model_type,
    args.vocab_size,
    args.character_coverage,
    args.normalizer,
  )
  tokenizer = tokenizer_from_files(files, str(args.output))
  table = train_on_files.report(tokenizer, sentences)
  write_atomically(args.output, *files.values())
  print(table)
  print(f"{args.output}: {tokenizer.vocab_size} ids, {tokenizer.sha256}")


def _parser() -> argparse.ArgumentParser:
  parser = command.make_parser("infoxlm-train-tokenizer", __doc__)
  add = parser.add_argument
  add(
    "--input",
    nargs="+",
    type=Path,
    required=True,
    metavar="FILE",
    help="files to read (.gz and .xz too)",
  )
  add(
    "--output",
    type=Path,
    required=True,
    metavar="FILE",
    help="a new file: .model for unigram, .json for the others",
  )
  add(
    "--model_type",
    choices=list(_ENDINGS),
    default="unigram",
    help="see above (default: %(default)s)",
  )
  add(
    "--vocab_size",
    type=int,
    default=8000,
    metavar="N",
    help="pieces (default: %(default)s)",
  )
  add(
    "--alpha",
    type=float,
    default=0.7,
    metavar="A",
    help="a language with n sentences counts as n^A (default: %(default)s)",
  )
  add(
    "--seed",
    type=int,
    default=0,
    metavar="N",
    help="chooses the sentences (default: %(default)s)",
  )
  add(
    "--max_sentences",
    type=int,
    default=2_000_000,
    metavar="N",
    help="sentences to train on, all languages together (default: %(default)s)",
  )
  add(
    "--character_coverage",
    type=float,
    default=0.9998,
    metavar="SHARE",
    help="share of the characters that get pieces; not for bpe (default:"
    " %(default)s)",
  )
  add(
    "--normalizer",
    default="nfkc",
    metavar="NAME",
    help="of SentencePiece, for unigram only (default: %(default)s)",
  )
  return parser


if __name__ == "__main__":
  sys.exit(main())
