"""Atomic writes: a file or folder appears complete or not at all.

It is written as `.NAME.PID.part` in the same folder and renamed when complete.
A process that is killed leaves only that partial file or folder.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from infoxlm_jax.errors import InputError, StorageError


def write_atomically(
  path: str | os.PathLike[str], content: str | bytes
) -> None:
  """Writes a file; readers see the old content or the new, never a mixture.

  Creates missing parent folders. Text is written as UTF-8.

  Raises:
    StorageError: the file could not be written; an old one is unchanged.
  """
  path = Path(path)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise _not_written(path, error) from error
  with atomic_file(path) as file:
    file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
  """Opens a file for writing; it replaces `path` when the block ends.

  Raises:
    StorageError: the file could not be written. After this or any other error
      in the block the new file is removed and an old one is unchanged.
  """
  path = Path(path)
  part = _part(path)
  try:
    with open(part, "wb") as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(part, path)
  except OSError as error:
    raise _not_written(path, error) from error
  finally:
    with contextlib.suppress(OSError):
      part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
  """Makes a folder to write into; it is renamed to `path` at the end.

  Raises:
    InputError: `path` exists, or its parent folder cannot be written.
    StorageError: writing failed. After this or any other error in the block
      the new folder is removed.
  """
  path = Path(path)
  check_new(path)
  part = _part(path)
  try:
    part.mkdir(parents=True)
  except OSError as error:
    raise InputError(f"{path}: cannot be written: {error.strerror}") from None
  try:
    yield part
    check_new(path)
    part.rename(path)
  except OSError as error:
    raise _not_written(path, error) from error
  finally:
    shutil.rmtree(part, ignore_errors=True)


def set_aside(path: str | os.PathLike[str]) -> Path:
  """Renames a damaged file to NAME.damaged-N, the first such name that is free.

  Returns:
    Its new path.

  Raises:
    StorageError: it cannot be renamed.
  """
  path, number = Path(path), 1
  while os.path.lexists(target := f"{path}.damaged-{number}"):
    number += 1
  try:
    return path.rename(target)
  except OSError as error:
    raise StorageError(
      f"{path}: is damaged and cannot be renamed: {error}."
    ) from error


def check_new(path: str | os.PathLike[str]) -> None:
  """Checks that the path does not exist, not even as a broken link.

  Raises:
    InputError: it exists.
  """
  if os.path.lexists(path):
    raise InputError(f"{path} exists: move it away, or choose another name")


def _part(path: Path) -> Path:
  return path.with_name(f".{path.name}.{os.getpid()}.part")


def _not_written(path: Path, error: OSError) -> StorageError:
  return StorageError(f"{path}: could not be written: {error}.")
