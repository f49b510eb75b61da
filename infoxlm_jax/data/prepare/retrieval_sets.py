"""Writes retrieval/*.jsonl: sentences that training does not see.

A line is {"id": "Acts.1.1", "en": "...", "fr": "..."}.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from infoxlm_jax.data.corpora.base import Corpus
from infoxlm_jax.data.prepare.hold_out import PIVOT
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import Tokenizer

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
  written = []
  for name, split in files.items():
    if having := _having(corpora, split):
      _write(folder / f"{name}.jsonl", _multiway(having, split))
      written.append(name)
  return written


def multiway_rows(
  corpora: Sequence[Corpus], files: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
  """The rows that write_multiway writes, one file after the other."""
  for split in files.values():
    yield from _multiway(_having(corpora, split), split)


def write_pairs(folder: Path, name: str, tokenizer: Tokenizer) -> None:
  """Writes retrieval/NAME.jsonl from a store's pairs with English, if any.

  Pairs with the same English sentence become one row of several languages. A
  sentence in two rows would have two right answers, so of pairs that would
  give one only the first is written.

  Args:
    folder: prepared data.
    name: of the store, "dev" or "test".
    tokenizer: of the records.
  """
  if not (folder / name).exists():
    return
  store = Store(folder / name)
  if any(PIVOT in pair and len(set(pair)) == 2 for pair in store.pair_counts):
    rows = _pairs(store, tokenizer)
    _write(folder / "retrieval" / f"{name}.jsonl", rows)


def _having(corpora: Sequence[Corpus], split: str) -> list[Corpus]:
  """The multiway corpora that have a split."""
  return [
    corpus
    for corpus in corpora
    if corpus.kind == "multiway" and split in corpus.splits()
  ]


def _multiway(
  corpora: Sequence[Corpus], split: str
) -> Iterator[dict[str, Any]]:
  for corpus in corpora:
    for example in corpus.examples(split):
      row = {name: text for name, text in example.items() if text}
      if len(corpora) > 1:
        row["id"] = f"{corpus.name}.{row['id']}"
      yield row


def _pairs(store: Store, tokenizer: Tokenizer) -> list[dict[str, str]]:
  rows: dict[str, dict[str, str]] = {}  # by English sentence
  seen: set[tuple[str, str]] = set()  # (language, text) of other languages
  for pair, count in store.pair_counts.items():
    if PIVOT not in pair or len(set(pair)) < 2:
      continue
    (language,) = set(pair) - {PIVOT}
    for start in range(0, count, _READ):
      numbers = range(start, min(start + _READ, count))
      for number, sides in zip(
        numbers, store.read_pairs(pair, numbers), strict=True
      ):
        texts = [tokenizer.decode(side.tolist()).strip() for side in sides]
        by_language = dict(zip(pair, texts, strict=True))
        own = (language, by_language[language])
        row = rows.get(by_language[PIVOT], {})
        if not all(texts) or own in seen or language in row:
          continue
        seen.add(own)
        if row:
          row[language] = by_language[language]
        else:
          rows[by_language[PIVOT]] = {
            "id": f"{'-'.join(pair)}.{number}"
          } | by_language
  return list(rows.values())


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
  path.parent.mkdir(exist_ok=True)
  with path.open("w", encoding="utf-8", newline="\n") as file:
    for row in rows:
      file.write(json.dumps(row, ensure_ascii=False) + "\n")
