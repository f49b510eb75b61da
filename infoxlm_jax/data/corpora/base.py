"""The protocol of a corpus, and the code that corpora share.

The corpora themselves are in sources.py and seqio_reader.py.
"""

import dataclasses
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from infoxlm_jax.data.corpora import file_names, open_files
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import InputError

Example = Mapping[str, Any]

# The splits of a corpus of plain files.
FILE_SPLITS = ("train",)
_SHOWN = 8  # names of files in a line


class Corpus(Protocol):
  """A corpus, as `prepare` uses it.

  Attributes:
    name: stable; names the corpus in manifests, work folders and errors.
    kind: "text", "pairs" or "multiway".
  """

  @property
  def name(self) -> str: ...

  @property
  def kind(self) -> str: ...

  def splits(self) -> Sequence[str]:
    """Names of its splits; `("train",)` for files."""

  def examples(self, split: str) -> Iterator[Example]:
    """Yields the examples in order; InputError at the first bad one."""

  def fingerprint(self, split: str) -> dict[str, Any]:
    """JSON that changes when the examples may: options, files or version."""

  def size(self, split: str) -> int | None:
    """Bytes that reading it consumes (open_files.py); None if not known."""

  def check_tokenizer(self, tokenizer: Tokenizer) -> None:
    """Raises InputError where ready-made ids cannot be this tokenizer's."""


def say_unused(corpus: Any) -> list[str]:
  """What the patterns of a corpus match and it does not read, a line a reason.

  Args:
    corpus: a Corpus; those that are no files match nothing.
  """
  if not isinstance(corpus, Files):
    return []
  by_reason: dict[str, list[Path]] = {}
  for path, reason in corpus.unused().items():
    by_reason.setdefault(reason, []).append(path)
  lines = []
  for reason, paths in by_reason.items():
    names = ", ".join(map(str, paths[:_SHOWN]))
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    lines.append(f"not used, {reason}: {names}{more}")
  return lines


class Files:
  """The base of corpora of plain files."""

  # Whether examples hold ids instead of texts.
  ready_made: ClassVar[bool] = False

  def _paths(self) -> list[Path]:
    return open_files.find_files(getattr(self, "input"))  # noqa: B009

  def splits(self) -> Sequence[str]:
    return FILE_SPLITS

  def fingerprint(self, split: str) -> dict[str, Any]:
    check_split(self, split)
    fields = [field.name for field in dataclasses.fields(self)]  # type: ignore
    return {
      "corpus": type(self).__name__,
      "options": {name: _plain(getattr(self, name)) for name in fields},
      "files": open_files.describe(self._paths()),
    }

  def size(self, split: str) -> int | None:
    check_split(self, split)
    return open_files.total_size(self._paths())

  def unused(self) -> dict[Path, str]:
    """What the patterns match and is not read, and why."""
    folders = open_files.folders(getattr(self, "input", ()))
    return dict.fromkeys(folders, "a folder")

  def check_tokenizer(self, tokenizer: Tokenizer) -> None:
    del tokenizer  # any tokenizer reads texts


def give_name(corpus: Any) -> None:
  """Gives a corpus without a name one that is also a folder's name."""
  if corpus.name:
    return
  kind = re.sub("(?<=[a-z])(?=[A-Z])", "_", type(corpus).__name__).lower()
  if getattr(corpus, "input", "") is None:
    macro = {"text": "MONO", "pairs": "PAIRS"}.get(corpus.kind, "INPUT")
    what = {"text": "text", "pairs": "sentence pairs"}.get(corpus.kind, "input")
    raise InputError(
      f"{macro} is not set, so {type(corpus).__name__} has no files of"
      f" {what}: add --gin.{macro}='FILES' (INPUT in gin/prepare/), or"
      " --gin.DATA=FOLDER for data that are prepared already."
    )
  if hasattr(corpus, "folder"):
    text = f"{corpus.layout}-{corpus.folder}"
  elif isinstance(corpus.input, str | os.PathLike):
    text = str(corpus.input)
  else:
    text = ",".join(map(str, corpus.input))
  slug = re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.")
  if slug != text:
    # Two inputs may differ only in the characters that were left out.
    slug = f"{slug[-60:]}-{zlib.crc32(text.encode()):08x}"
  object.__setattr__(corpus, "name", f"{kind}-{slug}")


def pair_example(
  languages: tuple[str, str], text_a: str, text_b: str
) -> Example:
  """An example of kind "pairs"."""
  return {
    "text_a": text_a,
    "language_a": languages[0],
    "text_b": text_b,
    "language_b": languages[1],
  }


def check_split(corpus: Any, split: str) -> None:
  """Raises InputError unless the corpus has the split."""
  if split not in corpus.splits():
    raise InputError(
      f"{corpus.name} has no split {split!r}: files have only"
      f" {corpus.splits()[0]!r}."
    )


def check_pair(
  languages: Sequence[str] | None, name: str, more: bool = False
) -> None:
  """Checks the languages of a corpus of pairs.

  Args:
    languages: codes, or None.
    name: of the corpus, for messages.
    more: whether more than two are allowed.

  Raises:
    InputError: fewer than two codes, more than allowed, or one that is no
      code.
  """
  if languages is None:
    return
  count = 0 if isinstance(languages, str) else len(languages)
  if count < 2 or (count > 2 and not more):
    raise InputError(
      f"{name}: languages = {languages!r} must be two codes"
      f"{' or more' if more else ''}, such as ('en', 'fr')."
    )
  for language in languages:
    file_names.check_language(language, f"{name}: languages")


def _plain(value: Any) -> Any:
  """A value as it is after writing it as JSON and reading it again."""
  if value is None or isinstance(value, str | int | bool):
    return value
  return (
    [_plain(v) for v in value] if isinstance(value, Sequence) else str(value)
  )
