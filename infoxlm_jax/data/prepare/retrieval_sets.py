"""Writes retrieval/*.jsonl: sentences that training does not see.

A line is {"id": "Acts.1.1", "en": "...", "fr": "..."}.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from infoxlm_jax.data.corpora.base import Corpus
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import Tokenizer

# The language that evaluation/retrieval.py compares all others with.
_PIVOT = "en"
_READ = 1024  # records at a time


def write_multiway(
  corpora: Sequence[Corpus], files: Mapping[str, str], folder: Path
) -> list[str]:
  """Writes the rows of the multiway corpora.

  If there are several corpora, each id begins with its corpus's name.

  Args:
    corpora: those of other kinds are ignored.
    files: {name of the file, without .jsonl: split of the corpora}.
    folder: to write into.

  Returns:
    Names of the files written.
  """
  corpora = [corpus for corpus in corpora if corpus.kind == "multiway"]
  written = []
  for name, split in files.items():
    having = [corpus for corpus in corpora if split in corpus.splits()]
    if having:
      _write(folder / f"{name}.jsonl", _multiway(having, split))
      written.append(name)
  return written


def write_pairs(dev: Path, tokenizer: Tokenizer, folder: Path) -> None:
  """Writes dev.jsonl from the dev store's pairs with English, if it has any.

  A sentence in two pairs would have two right answers, so only its first pair
  is written.
  """
  if not dev.exists():
    return
  store = Store(dev)
  if any(_PIVOT in pair and len(set(pair)) == 2 for pair in store.pair_counts):
    _write(folder / "dev.jsonl", _pairs(store, tokenizer))


def _multiway(
  corpora: Sequence[Corpus], split: str
) -> Iterator[dict[str, Any]]:
  for corpus in corpora:
    for example in corpus.examples(split):
      row = {name: text for name, text in example.items() if text}
      if len(corpora) > 1:
        row["id"] = f"{corpus.name}.{row['id']}"
      yield row


def _pairs(store: Store, tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
  seen: set[tuple[str, str]] = set()
  for pair, count in store.pair_counts.items():
    if _PIVOT not in pair or len(set(pair)) < 2:
      continue
    for start in range(0, count, _READ):
      numbers = range(start, min(start + _READ, count))
      for number, sides in zip(
        numbers, store.read_pairs(pair, numbers), strict=True
      ):
        texts = [tokenizer.decode(side.tolist()).strip() for side in sides]
        known = set(zip(pair, texts, strict=True))
        if all(texts) and not known & seen:
          seen |= known
          row = dict(zip(pair, texts, strict=True))
          yield {"id": f"{'-'.join(pair)}.{number}"} | row


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
  path.parent.mkdir(exist_ok=True)
  with path.open("w", encoding="utf-8", newline="\n") as file:
    for row in rows:
      file.write(json.dumps(row, ensure_ascii=False) + "\n")
