"""seqio tasks on the shipped verses: ten languages, one verse a row.

Splits: train (10,791 verses), validation (Galatians to Philippians, 408) and
test (Acts, 1,006). The editions are named in NOTICE.

    verses_text      text, language: every verse of every language
    verses_pairs     text_a, language_a, text_b, language_b: English is a
    verses_multiway  id and one feature a language; empty: no translation
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import seqio
import tensorflow as tf

from infoxlm_jax.data.corpora.tsv import read_table

LANGUAGES = ("en", "ar", "de", "es", "fa", "fr", "it", "ja", "ru", "tl")

_DATA = Path(__file__).resolve().parent / "data"
FILES = {
  "train": _DATA / "verses.train.tsv.gz",
  "validation": _DATA / "verses.dev.tsv.gz",
  "test": _DATA / "verses.test.tsv.gz",
}

_Columns = dict[str, list[str]]


def rows(path: Path) -> Iterator[dict[str, str]]:
  """The rows of a verses file, {column: cell}."""
  for header, cells in read_table(path, leading=("id",)):
    yield dict(zip(header, cells, strict=True))


def texts(path: Path) -> _Columns:
  """All verses of one language after the other: blocks hold neighbours."""
  table = list(rows(path))
  found = [(lang, r[lang]) for lang in LANGUAGES for r in table if r[lang]]
  return {
    "text": [text for _, text in found],
    "language": [lang for lang, _ in found],
  }


def pairs(path: Path) -> _Columns:
  """Pairs of English and each other language, if a row has both."""
  found = [
    (row["en"], lang, row[lang])
    for row in rows(path)
    for lang in LANGUAGES[1:]
    if row["en"] and row[lang]
  ]
  return {
    "text_a": [en for en, _, _ in found],
    "language_a": ["en"] * len(found),
    "text_b": [other for _, _, other in found],
    "language_b": [lang for _, lang, _ in found],
  }


def multiway(path: Path) -> _Columns:
  """All columns as they are."""
  table = list(rows(path))
  return {name: [r[name] for r in table] for name in ("id", *LANGUAGES)}


def _dataset(
  split: str,
  shuffle_files: bool = False,
  seed: int | None = None,
  *,
  columns: Callable[[Path], _Columns],
) -> tf.data.Dataset:
  # A split is one file, so there is no order of files to shuffle. It is read in
  # Python, so that an error in the file is raised unchanged.
  del shuffle_files, seed
  return tf.data.Dataset.from_tensor_slices(columns(FILES[split]))


def _add(
  name: str, columns: Callable[[Path], _Columns], features: Sequence[str]
) -> None:
  # Plain strings: prepare tokenises them, with the run's tokenizer.
  string = seqio.Feature(
    seqio.PassThroughVocabulary(size=1),
    add_eos=False,
    dtype=tf.string,
    rank=0,
  )
  seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(
      functools.partial(_dataset, columns=columns), splits=tuple(FILES)
    ),
    output_features=dict.fromkeys(features, string),
  )


_add("verses_text", texts, ("text", "language"))
_add("verses_pairs", pairs, ("text_a", "language_a", "text_b", "language_b"))
_add("verses_multiway", multiway, ("id", *LANGUAGES))
