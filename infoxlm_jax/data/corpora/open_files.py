"""Finds input files, and reads their lines."""

import contextlib
import glob
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from infoxlm_jax.data.corpora.unpacking import DAMAGE, unpacked
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import read_files

_BUFFER = 1 << 17
Patterns = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def find_files(patterns: Patterns) -> list[Path]:
  """The files that patterns name, relative to the current folder.

  Args:
    patterns: names or globs (`**` for any folders), as a list, or as one
      string with commas between them. The files of a glob are sorted.

  Raises:
    InputError: a pattern that no file matches, or that names a folder.
  """
  paths: dict[Path, None] = {}  # a set that keeps its order
  for pattern in split_patterns(patterns):
    files = matches(pattern)
    if not files:
      raise InputError(_nothing(pattern))
    paths |= dict.fromkeys(files)
  return list(paths)


def split_patterns(patterns: Patterns) -> list[str]:
  """Splits a string of patterns at its commas, unless it is an existing path.

  Raises:
    InputError: there is no pattern.
  """
  if isinstance(patterns, str | os.PathLike):
    text = os.fspath(patterns)
    parts = [text] if os.path.exists(text) else text.split(",")
  else:
    parts = [os.fspath(pattern) for pattern in patterns]
  parts = [os.path.expanduser(part.strip()) for part in parts if part.strip()]
  if not parts:
    raise InputError(
      "no input files are named: give a path, a pattern such as"
      " 'corpora/*.txt.gz', or several between commas (INPUT)."
    )
  return parts


def matches(pattern: str) -> list[Path]:
  """The files of one pattern, sorted."""
  return [Path(name) for name in _names(pattern) if not os.path.isdir(name)]


def folders(patterns: Patterns) -> list[Path]:
  """The folders that patterns match, which are not read.

  Not those of "**", which means any folders.
  """
  return [
    Path(name)
    for pattern in (split_patterns(patterns) if patterns else ())
    if "**" not in pattern
    for name in _names(pattern)
    if os.path.isdir(name)
  ]


def _names(pattern: str) -> list[str]:
  if os.path.exists(pattern):
    return [pattern]
  return sorted(glob.glob(pattern, recursive=True))


def _nothing(pattern: str) -> str:
  if os.path.isdir(pattern):
    return (
      f"{pattern} is a folder: name its files, for example"
      f" '{os.path.join(pattern, '*.txt')}'."
    )
  where = "" if os.path.isabs(pattern) else f" (from the folder {os.getcwd()})"
  return (
    f"no file matches {pattern!r}{where}. Check the path; a pattern with *"
    " needs quotes in a shell."
  )


def describe(paths: Sequence[Path]) -> list[dict[str, Any]]:
  """Path, bytes and time of change of each file, which show a changed input."""
  described = []
  for path in paths:
    with reading(path):
      status = path.stat()
    described.append(
      {
        "path": str(path),
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
      }
    )
  return described


def total_size(paths: Sequence[Path]) -> int:
  """Bytes of all files, compressed ones as they are."""
  return sum(path.stat().st_size for path in paths)


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
  r"""Yields number (from 1) and text of each line; of a decompressed file.

  Lines end only at \n: U+2028, form feeds and lone \r stay in the text. The \r
  of \r\n and a byte order mark at the start of the file are removed.

  Raises:
    InputError: the file is missing, no regular file, empty or truncated, not
      UTF-8, or a line is longer than limits.LINE.
  """
  number = 0
  with reading(path, lambda: f"after line {number}"), unpacked(path) as file:
    for number, raw in enumerate(read_files.lines(file, path), 1):
      try:
        text = raw.decode("utf-8")
      except UnicodeDecodeError as error:
        raise InputError(
          f"{path}, line {number}: byte {raw[error.start]:#04x} at place"
          f" {error.start + 1} of the line is not UTF-8. Convert the file to"
          " UTF-8."
        ) from error
      text = text.removesuffix("\n").removesuffix("\r")
      yield number, text.removeprefix("\ufeff") if number == 1 else text
  if not number:
    raise InputError(f"{path} is empty: expected lines of text.")


def count_lines(path: str | os.PathLike[str]) -> int:
  """The number of lines that `read_lines` would yield, counted much faster."""
  lines, last = 0, b"\n"
  place = lambda: f"after line {lines}"  # noqa: E731
  with reading(path, place), unpacked(path, counted=False) as file:
    while piece := file.read(_BUFFER):
      lines += piece.count(b"\n")
      last = piece[-1:]
  return lines + (last != b"\n")


@contextlib.contextmanager
def reading(
  path: str | os.PathLike[str], place: Callable[[], str] = lambda: ""
) -> Iterator[None]:
  """Turns errors of reading a file into InputErrors that name it.

  Args:
    path: the file that is read inside the context.
    place: returns where in the file the reader is.
  """
  try:
    yield
  except DAMAGE as error:
    where = ", ".join(filter(None, [str(path), place()]))
    raise InputError(
      f"{where}: the compressed file is truncated or damaged ({error}). Copy"
      " or download it again."
    ) from error
  except OSError as error:
    raise InputError(f"cannot read {path}: {error.strerror}.") from error
