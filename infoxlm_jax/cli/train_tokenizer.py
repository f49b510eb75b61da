r"""Trains a tokenizer on text of many languages.

    python tools/train_tokenizer.py --input tasks/data/verses.train.tsv.gz \
      --vocab_size 8000 --output tasks/data/verses.spm.model
    python tools/train_tokenizer.py --input en.txt fr.txt.gz \
      --model_type wordpiece --vocab_size 8000 --output tokenizer.json

`unigram` writes a SentencePiece model (XLM-R's ids: two more than its pieces),
`wordpiece` and `bpe` (of bytes) a Hugging Face tokenizer.json with the special
tokens of BERT and of XLM-R.

Inputs are TSV files whose header names languages (a first column `id` is left
out) or plain text files named after their language (`fr.txt`, `fr.txt.gz`).
A language with n sentences takes part with a number proportional to n^alpha,
the most that needs no sentence twice. Same input and options, same bytes out.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tqdm

from infoxlm_jax.data.corpora.file_names import LANGUAGE
from infoxlm_jax.data.corpora.open_files import read_lines
from infoxlm_jax.data.corpora.tsv import read_table
from infoxlm_jax.data.sampler import mix, permute
from infoxlm_jax.data.tokenizers.base import Tokenizer, tokenizer_from_files
from infoxlm_jax.data.tokenizers.file_names import JSON, SENTENCEPIECE
from infoxlm_jax.data.tokenizers.train import (
  MODEL_TYPES,
  train_bpe,
  train_unigram,
  train_wordpiece,
)
from infoxlm_jax.errors import InputError, StorageError, exit_code


def read_sentences(paths: list[Path]) -> dict[str, list[str]]:
  """Sentences of each language, in the files' order, without empty ones."""
  sentences: dict[str, list[str]] = {}
  with tqdm.tqdm(
    desc="read", unit=" sentences", unit_scale=True, disable=None
  ) as bar:
    for path in paths:
      for language, text in _read(path):
        if text := text.strip():
          sentences.setdefault(language, []).append(text)
          bar.update()
  return dict(sorted(sentences.items()))


def _read(path: Path) -> Iterator[tuple[str, str]]:
  stem = path.name.split(".")[0]
  if ".tsv" in path.suffixes:
    _, first = next(read_lines(path))
    leading = ("id",) if first.startswith("id\t") else ()
    for header, cells in read_table(path, leading):
      yield from zip(header[len(leading) :], cells[len(leading) :], strict=True)
  elif LANGUAGE.fullmatch(stem):
    for _, line in read_lines(path):
      yield stem, line
  else:
    raise InputError(
      f"{path}: no .tsv, and its name does not begin with a language code "
      "('fr.txt')."
    )


def balance(
  sentences: dict[str, list[str]], alpha: float, seed: int, limit: int
) -> dict[str, list[str]]:
  """A share ~ n^alpha of each language's sentences, chosen by the seed."""
  counts = np.array([len(s) for s in sentences.values()], np.float64)
  shares = counts**alpha
  takes = shares * (counts / shares).min()
  takes *= min(1.0, limit / takes.sum())
  out = {}
  for number, (language, take) in enumerate(zip(sentences, takes, strict=True)):
    pool = sentences[language]
    chosen = permute(np.arange(round(take)), len(pool), mix(seed, number))
    out[language] = [pool[i] for i in np.sort(chosen)]
  return out


def train(
  sentences: dict[str, list[str]],
  model_type: str,
  vocab_size: int,
  character_coverage: float,
  normalizer: str,
) -> dict[str, bytes]:
  """The tokenizer's only file, by the name that `load_tokenizer` knows."""
  texts = [text for pool in sentences.values() for text in pool]
  shown = sys.stderr.isatty()
  if model_type == "wordpiece":
    return {JSON: train_wordpiece(texts, vocab_size, character_coverage, shown)}
  if model_type == "bpe":
    return {JSON: train_bpe(texts, vocab_size, shown)}
  model = train_unigram(texts, vocab_size, character_coverage, normalizer)
  return {SENTENCEPIECE: model}


def report(tokenizer: Tokenizer, sentences: dict[str, list[str]]) -> str:
  """A table with a line a language, on at most 2,000 sentences of each."""
  lines = [
    f"{'language':<10}{'sentences':>10}{'characters':>12}{'tokens':>10}"
    f"{'pieces/char':>13}{'tokens/sent':>13}{'unknown %':>11}"
    f"{'pieces used':>13}"
  ]
  for language, pool in sentences.items():
    sample = pool[:: max(1, len(pool) // 2000)][:2000]
    encoded = tokenizer.encode_batch(sample)
    tokens = sum(map(len, encoded))
    chars = sum(map(len, sample))
    unknown = sum(int((ids == tokenizer.unk_id).sum()) for ids in encoded)
    lines.append(
      f"{language:<10}{len(pool):>10,}{chars:>12,}{tokens:>10,}"
      f"{tokens / chars:>13.3f}{tokens / len(sample):>13.1f}"
      f"{100 * unknown / tokens:>11.3f}"
      f"{len(np.unique(np.concatenate(encoded))):>13,}"
    )
  return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
  """Runs the tool; returns its exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--input", nargs="+", type=Path, required=True, help="files to read")
  add("--output", type=Path, required=True, help="file to write, a new one")
  add("--model_type", choices=MODEL_TYPES, default="unigram")
  add("--vocab_size", type=int, default=8000, help="pieces (default 8000)")
  add("--alpha", type=float, default=0.7, help="of n^alpha (default 0.7)")
  add("--seed", type=int, default=0, help="chooses the sentences")
  add("--max_sentences", type=int, default=2_000_000, help="to train on")
  add(
    "--character_coverage",
    type=float,
    default=0.9998,
    help="share of the characters to have pieces (default 0.9998; not of bpe)",
  )
  add("--normalizer", default="nfkc", help="of unigram (default nfkc)")
  args = parser.parse_args(argv)
  return exit_code(lambda: print(run(args)))


def run(args: argparse.Namespace) -> str:
  """Trains, writes, and returns the report."""
  if args.output.exists():
    raise InputError(f"{args.output} exists: move it away first.")
  if (args.output.suffix == ".json") != (args.model_type != "unigram"):
    raise InputError(
      f"--output {args.output}: {args.model_type} is written as a "
      f"{'.model' if args.model_type == 'unigram' else '.json'} file; give "
      "such a name."
    )
  sentences = read_sentences(args.input)
  if not sentences:
    raise InputError("the input files hold no sentence.")
  chosen = balance(sentences, args.alpha, args.seed, args.max_sentences)
  files = train(
    chosen,
    args.model_type,
    args.vocab_size,
    args.character_coverage,
    args.normalizer,
  )
  tokenizer = tokenizer_from_files(files, str(args.output))
  table = report(tokenizer, sentences)
  _write(args.output, *files.values())
  return (
    f"{table}\n{args.output}: {tokenizer.vocab_size} ids, {tokenizer.sha256}"
  )


def _write(path: Path, content: bytes) -> None:
  beside = path.with_name(f".{path.name}.partial-{os.getpid()}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside.write_bytes(content)
    os.rename(beside, path)
  except OSError as error:
    beside.unlink(missing_ok=True)
    raise StorageError(f"writing {path} failed: {error.strerror}.") from error


if __name__ == "__main__":
  sys.exit(main())
