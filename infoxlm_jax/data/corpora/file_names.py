"""Reads the format and the languages of a file from its name."""

import re
from pathlib import Path, PurePath

from infoxlm_jax.data.languages import WORDS, is_language, is_named, pair_in
from infoxlm_jax.errors import InputError

_PACKED = (".gz", ".bz2", ".xz", ".zst")
_ENDINGS = (".txt", ".text", ".jsonl", ".ndjson", ".json", ".tsv", ".tmx")


def is_packed(path: PurePath) -> bool:
  """Whether a file is compressed, by its ending."""
  return path.suffix in _PACKED


def plain_name(path: PurePath) -> str:
  """A file's name without .gz, .bz2, .xz or .zst."""
  packed = is_packed(path)
  return path.name.removesuffix(path.suffix) if packed else path.name


def stem(path: PurePath) -> str:
  """A file's name without endings such as .txt or .jsonl.gz.

  >>> stem(PurePath("corpora/wiki.de.txt.gz"))
  'wiki.de'
  """
  name = PurePath(plain_name(path))
  return name.stem if name.suffix in _ENDINGS else name.name


def language_of(path: Path) -> str:
  """The language in a file's name, or else in its folder's name.

  Exactly one of the parts between dots, without endings such as .txt.gz, must
  be a language code: `de.txt.gz`, `wiki.de.txt`, `de.train.jsonl`,
  `pt-BR.txt`. Parts of three letters count only where no other part is a code.

  Raises:
    InputError: there is no language, or there are several.
  """
  parts = stem(path).split(".")
  for candidates in (parts, [path.absolute().parent.name]):
    codes = [p for p in candidates if is_named(p) and p not in WORDS]
    short = [p for p in codes if not re.match(r"[a-z]{3}", p)]
    chosen = sorted(set(short or codes))
    if len(chosen) == 1:
      return chosen[0]
    if chosen:
      raise InputError(
        f"{path}: which language? The name has {' and '.join(chosen)}; set"
        " language to the right one."
      )
  raise InputError(
    f"{path}: the name has no language; rename it, for example to"
    f" {stem(path)}.de.txt, or set language (--gin.LANGUAGE=de)."
  )


def pair_of(name: str) -> tuple[str, str] | None:
  """The two languages of a name such as `WikiMatrix.en-fr`, or None.

  The last pair among the parts between dots.
  """
  for part in reversed(name.split(".")):
    if pair := pair_in(part):
      return pair
  return None


def check_language(language: str, where: str) -> str:
  """Returns `language` if it is a code that prepared data may have.

  Raises:
    InputError: it is not; the message begins with `where`.
  """
  if not isinstance(language, str) or not is_language(language):
    raise InputError(
      f"{where}: {language!r} is no language code, such as en, pt-BR or"
      " zh_Hans."
    )
  return language
