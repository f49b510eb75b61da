"""Trains a SentencePiece model with XLM-R's layout on text of many languages.

    python tools/train_tokenizer.py --input tasks/data/verses.train.tsv.gz \
      --vocab_size 8000 --output tasks/data/verses.spm.model

Inputs are TSV files whose header names languages (a first column `id` is left
out) or plain text files named after their language (`fr.txt`, `fr.txt.gz`).
A language with n sentences takes part with a number proportional to n^alpha,
the most that needs no sentence twice. Same input and options, same bytes out.
"""

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import sentencepiece

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infoxlm_jax.data.files import LANGUAGE, read_lines
from infoxlm_jax.data.order import mix, permute
from infoxlm_jax.data.tables import read_table
from infoxlm_jax.data.tokenizer import Tokenizer, load_tokenizer
from infoxlm_jax.errors import InputError


def read_sentences(paths: list[Path]) -> dict[str, list[str]]:
  """Sentences of each language, in the files' order, without empty ones."""
  sentences: dict[str, list[str]] = {}
  for path in paths:
    for language, text in _read(path):
      if text := text.strip():
        sentences.setdefault(language, []).append(text)
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
  vocab_size: int,
  character_coverage: float,
  normalizer: str,
) -> bytes:
  """The bytes of a unigram model."""
  model = io.BytesIO()
  texts = (text for pool in sentences.values() for text in pool)
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=texts,
      model_writer=model,
      model_type="unigram",
      vocab_size=vocab_size,
      character_coverage=character_coverage,
      normalization_rule_name=normalizer,
      max_sentence_length=1 << 20,
      # Part of the model's bytes and of the order of its sums: never the
      # machine's number of cores.
      num_threads=2,
      minloglevel=2,
    )
  except (RuntimeError, OSError) as error:
    raise InputError(f"SentencePiece could not train: {error}") from error
  return model.getvalue()


def report(tokenizer: Tokenizer, sentences: dict[str, list[str]]) -> str:
  """A table with a line a language, on at most 2,000 sentences of each."""
  lines = [
    f"{'language':<10}{'sentences':>10}{'characters':>12}{'tokens':>10}"
    f"{'pieces/char':>13}{'tokens/sent':>13}{'unknown %':>11}"
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
    )
  return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
  """Runs the tool; returns its exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--input", nargs="+", type=Path, required=True)
  parser.add_argument("--output", type=Path, required=True)
  parser.add_argument("--vocab_size", type=int, default=8000)
  parser.add_argument("--alpha", type=float, default=0.7)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--max_sentences", type=int, default=2_000_000)
  parser.add_argument("--character_coverage", type=float, default=0.9998)
  parser.add_argument("--normalizer", default="nfkc")
  args = parser.parse_args(argv)
  try:
    if args.output.exists():
      raise InputError(f"{args.output} exists: move it away first.")
    sentences = read_sentences(args.input)
    chosen = balance(sentences, args.alpha, args.seed, args.max_sentences)
    model = train(
      chosen, args.vocab_size, args.character_coverage, args.normalizer
    )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_bytes(model)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  tokenizer = load_tokenizer(args.output)
  print(report(tokenizer, sentences))
  print(f"{args.output}: {tokenizer.vocab_size} ids, {tokenizer.sha256}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
