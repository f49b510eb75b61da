"""Sentence retrieval on the held-out rows of prepared data."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.data.tokenizers.base import Tokenizer, framed
from infoxlm_jax.evaluation.embed import Embed, embed_languages
from infoxlm_jax.evaluation.retrieval import Retrieval, read_multiway, sweep

POOLINGS = ("mean", "first")
SPLITS = ("dev", "test")


@dataclasses.dataclass(frozen=True)
class Multiway:
  """Sentences that say the same in several languages, tokenized.

  Attributes:
    sentences: {language: int32 ids with <s> and </s>, one array a sentence}.
    rows: {language: which row of the file each sentence is}.
    cut: how many sentences were longer than `row_length`.
  """

  sentences: Mapping[str, Sequence[np.ndarray]]
  rows: Mapping[str, np.ndarray]
  cut: int


@dataclasses.dataclass(frozen=True)
class Scored:
  """Vectors of one model on one set, and its retrieval."""

  vectors: Mapping[str, np.ndarray]  # [layers + 1, poolings, N, D]
  rows: Mapping[str, np.ndarray]
  retrieval: Retrieval


def load(
  folder: Path, tokenizer: Tokenizer, row_length: int, prefix: str = ""
) -> dict[str, Multiway]:
  """Reads dev.jsonl and test.jsonl of a retrieval folder, where they exist.

  Args:
    folder: of prepared data.
    tokenizer: of the model.
    row_length: tokens of the longest sentence; others are cut.
    prefix: put before every sentence.

  Raises:
    InputError: a file is broken.
  """
  return {
    split: _tokenized(folder / f"{split}.jsonl", tokenizer, row_length, prefix)
    for split in SPLITS
    if (folder / f"{split}.jsonl").exists()
  }


def score(embed: Embed, params: Any, data: Multiway) -> Scored:
  """Vectors of all sentences and retrieval at every layer and pooling."""
  vectors = embed_languages(embed, params, data.sentences)
  return Scored(vectors, data.rows, sweep(vectors, data.rows, POOLINGS))


def _tokenized(
  path: Path, tokenizer: Tokenizer, row_length: int, prefix: str
) -> Multiway:
  _, by_language = read_multiway(path)
  sentences, rows, cut = {}, {}, 0
  for language, (numbers, texts) in by_language.items():
    ids = [
      framed(tokenizer, pieces[: row_length - 2])
      for pieces in tokenizer.encode_batch([prefix + t for t in texts])
    ]
    cut += sum(len(one) == row_length for one in ids)
    sentences[language] = ids
    rows[language] = np.asarray(numbers)
  return Multiway(sentences, rows, cut)
