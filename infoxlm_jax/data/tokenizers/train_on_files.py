"""A tokenizer from files of text: sentences, balanced by language.

Files are TSV whose header names languages (a first column `id` is left out),
or plain text whose name begins with its language (`fr.txt`, `fr.txt.gz`).
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tqdm

from infoxlm_jax.data.corpora.open_files import read_lines
from infoxlm_jax.data.corpora.tsv import read_table
from infoxlm_jax.data.languages import is_language
from infoxlm_jax.data.sampler import mix, permute
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.data.tokenizers.file_names import JSON, SENTENCEPIECE
from infoxlm_jax.data.tokenizers.train import (
  train_bpe,
  train_unigram,
  train_wordpiece,
)
from infoxlm_jax.errors import InputError


def read_sentences(paths: Sequence[Path]) -> dict[str, list[str]]:
  """Sentences of each language, in the files' order, without empty ones.

  Raises:
    InputError: a file that cannot be read, or that names no language.
  """
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
  elif is_language(stem):
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
  """A share ~ n^alpha of each language's sentences, chosen by the seed.

  Args:
    sentences: of each language, n >= 1.
    alpha: 1 keeps the languages' shares, 0 makes them equal.
    seed: of the choice.
    limit: of all languages together.

  Raises:
    InputError: n^alpha is no positive, finite float64.
  """
  counts = np.array([len(s) for s in sentences.values()], np.float64)
  with np.errstate(over="ignore"):
    shares = counts**alpha
  if not (np.isfinite(shares) & (shares > 0)).all():
    raise InputError(
      f"alpha = {alpha}: cannot balance languages of {counts.min():.0f} to"
      f" {counts.max():.0f} sentences by it; give a number from 0 to 1"
    )
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
  """The tokenizer's only file, by the name that `load_tokenizer` knows.

  Args:
    sentences: of each language.
    model_type: "unigram", "wordpiece" or "bpe".
    vocab_size: pieces of a unigram model; ids of the others.
    character_coverage: share of the characters to have pieces for; not of
      bpe, which cuts bytes.
    normalizer: SentencePiece's name of it; of unigram only.

  Raises:
    InputError: the vocabulary is too small or too large for the sentences.
  """
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
