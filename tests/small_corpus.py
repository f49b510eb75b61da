"""A few dozen real verses, prepared once for all tests that read records."""

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from infoxlm_jax.data.prepare import prepare
from infoxlm_jax.data.tables import read_table

DATA = Path(__file__).resolve().parents[1] / "tasks" / "data"
TOKENIZER = DATA / "verses.spm.model"
LANGUAGES = ("en", "de", "fr", "ja")
ROW_LENGTH = 72
MAX_SIDE = 40

_ROWS = {"train": slice(0, 60), "validation": slice(60, 80)}
_ROWS["test"] = slice(80, 100)


@functools.cache
def table() -> list[dict[str, str]]:
  """Rows of the verses; each seventh lacks its French."""
  path = DATA / "verses.dev.tsv.gz"
  rows = [dict(zip(h, c, strict=True)) for h, c in read_table(path, ["id"])]
  for row in rows[::7]:
    row["fr"] = ""
  return rows[:100]


def read(task: str, split: str) -> Iterator[dict[str, str]]:
  """Stands for the seqio tasks "text", "pairs" and "multiway"."""
  for row in table()[_ROWS[split]]:
    if task == "multiway":
      yield {name: row[name] for name in ("id", *LANGUAGES)}
    for language in LANGUAGES:
      if task == "text":
        yield {"text": row[language], "language": language}
      elif task == "pairs" and language != "en":
        yield {
          "text_a": row["en"],
          "language_a": "en",
          "text_b": row[language],
          "language_b": language,
        }


OPTIONS = {
  "tokenizer": TOKENIZER,
  "row_length": ROW_LENGTH,
  "task_modules": (),
  "text_task": "text",
  "pairs_task": "pairs",
  "multiway_task": "multiway",
  "seed": 5,
  "max_side": MAX_SIDE,
  "read": read,
}


@functools.cache
def prepared() -> Path:
  """The prepared folder; nobody writes into it."""
  folder = _folder()
  return prepare(Path(folder.name) / "data", **OPTIONS)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
  # Kept by the cache, removed when the process ends.
  return tempfile.TemporaryDirectory(prefix="infoxlm-test-")
