"""A few dozen real verses, prepared once for all tests that read records."""

import dataclasses
import functools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from infoxlm_jax.data.corpora.tsv import read_table
from infoxlm_jax.data.groups import build_groups
from infoxlm_jax.data.prepare.filters import Cleaning
from infoxlm_jax.data.prepare.pipeline import prepare

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


@dataclasses.dataclass(frozen=True)
class Verses:
  """A corpus of the rows above."""

  kind: str
  name: str = ""

  def __post_init__(self) -> None:
    object.__setattr__(self, "name", self.name or self.kind)

  def splits(self) -> Sequence[str]:
    return tuple(_ROWS)

  def fingerprint(self, split: str) -> dict[str, Any]:
    return {"rows": [_ROWS[split].start, _ROWS[split].stop]}

  def examples(self, split: str) -> Iterator[dict[str, str]]:
    for row in table()[_ROWS[split]]:
      if self.kind == "multiway":
        yield {name: row[name] for name in ("id", *LANGUAGES)}
      for language in LANGUAGES:
        if self.kind == "text":
          yield {"text": row[language], "language": language}
        elif self.kind == "pairs" and language != "en":
          yield {
            "text_a": row["en"],
            "language_a": "en",
            "text_b": row[language],
            "language_b": language,
          }


@dataclasses.dataclass(frozen=True)
class ListCorpus:
  """A corpus of literal examples, which has one split."""

  kind: str
  rows: tuple[dict[str, Any], ...]
  name: str = "list"

  def splits(self) -> Sequence[str]:
    return ("train",)

  def fingerprint(self, split: str) -> dict[str, Any]:
    return {"rows": len(self.rows)}

  def examples(self, split: str) -> Iterator[dict[str, Any]]:
    return iter(self.rows)


def build(
  stream: Any, store: Any, seed: int, position: int, group: int, groups: int
) -> tuple[dict[str, Any], dict[str, int]]:
  """Arrays and counts of one group of a stream's batch."""
  return build_groups(stream, store, seed, position, [group], groups)[0]


def contents(folder: Path) -> dict[str, bytes]:
  """All files of a folder and what is in them."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


OPTIONS: dict[str, Any] = {
  "tokenizer": TOKENIZER,
  "row_length": ROW_LENGTH,
  "corpora": (Verses("text"), Verses("pairs"), Verses("multiway")),
  "seed": 5,
  "max_side": MAX_SIDE,
  "cleaning": Cleaning(on_long="truncate"),
  "workers": 1,
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
