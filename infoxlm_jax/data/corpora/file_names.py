"""What the names of files tell: their form and their languages."""

import re
from pathlib import Path, PurePath

from infoxlm_jax.errors import InputError

# What a manifest or a table's header may name as a language.
LANGUAGE = re.compile(r"[a-z]{2,3}([-_][A-Za-z0-9]{2,8})*")
# What counts as a language in a file's name, where other words stand too: de,
# pt-BR, zh_Hans, ceb, and CC-100's bn_rom. "-" before a small letter divides
# the two languages of a pair.
_CODE = (
  r"[a-z]{2,3}(?:-(?:[A-Z][a-z]{3}|[A-Z]{2})"
  r"|_(?:[A-Z]?[a-z]{3}|[A-Z]{2}|[a-z]{2}))*"
)
_NAMED = re.compile(_CODE)
_PAIR = re.compile(f"({_CODE})-({_CODE})")
# Three letters, but no language, in the names of files.
_WORDS = frozenset(
  "all bpe dev doc eng new out raw set spm src tgt tok".split()
)

_PACKED = (".gz", ".xz", ".zst")
_ENDINGS = (".txt", ".text", ".jsonl", ".ndjson", ".json", ".tsv", ".tmx")


def is_packed(path: PurePath) -> bool:
  """Whether a file is compressed, by its ending."""
  return path.suffix in _PACKED


def plain_name(path: PurePath) -> str:
  """A file's name as it is unpacked: without .gz, .xz or .zst."""
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
  """The language that a file's name tells, or else its folder's name.

  Of the parts between dots, without endings such as .txt.gz, one must be a
  language code: `de.txt.gz`, `wiki.de.txt`, `de.train.jsonl`, `pt-BR.txt`. A
  three-letter part counts where no other does.

  Raises:
    InputError: no language there, or several.
  """
  parts = stem(path).split(".")
  for candidates in (parts, [path.absolute().parent.name]):
    found = [p for p in candidates if _NAMED.fullmatch(p) and p not in _WORDS]
    short = [p for p in found if not re.match(r"[a-z]{3}", p)]
    chosen = sorted(set(short or found))
    if len(chosen) == 1:
      return chosen[0]
    if chosen:
      raise InputError(
        f"{path}: which language? The name has {' and '.join(chosen)}; set"
        " language to the right one."
      )
  raise InputError(
    f"{path}: the name tells no language; rename it, for example to"
    f" {stem(path)}.de.txt, or set language."
  )


def pair_of(name: str) -> tuple[str, str] | None:
  """The two languages of a name such as `WikiMatrix.en-fr`, if it has them.

  The last of the parts between dots that is a pair.
  """
  for part in reversed(name.split(".")):
    if match := _PAIR.fullmatch(part):
      return match[1], match[2]
  return None


def check_language(language: str, where: str) -> str:
  """`language`, if it is a code that prepared data may have.

  Raises:
    InputError: naming `where`.
  """
  if not isinstance(language, str) or not LANGUAGE.fullmatch(language):
    raise InputError(
      f"{where}: {language!r} is no language code, such as en, pt-BR or"
      " zh_Hans."
    )
  return language
