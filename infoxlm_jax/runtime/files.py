"""Files and folders that appear whole or not at all.

Each is written under a name beside its own, `.NAME.PID.part`, and renamed when
all of it is there. A process that is killed leaves that part and nothing else.
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
  """Writes a file so that readers see the old or the new, never half.

  Folders above it are made. Text is written as UTF-8.

  Raises:
    StorageError: the file could not be written; the old one is as it was.
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
  """A file to write into; it replaces `path` when all of it is on disk.

  Raises:
    StorageError: the file could not be written. After that, or any other
      error within, nothing is left of it and the old file is as it was.
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
  """A folder to write into; it gets the name `path` at the end.

  Raises:
    InputError: `path` exists, or no folder can be made beside it.
    StorageError: writing failed. After that, or any other error within,
      nothing is left of it.
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


def check_new(path: str | os.PathLike[str]) -> None:
  """Checks that nothing has this name, not even a broken link.

  Raises:
    InputError: something has.
  """
  if os.path.lexists(path):
    raise InputError(f"{path} exists: move it away, or choose another name")


def _part(path: Path) -> Path:
  return path.with_name(f".{path.name}.{os.getpid()}.part")


def _not_written(path: Path, error: OSError) -> StorageError:
  return StorageError(f"{path}: could not be written: {error}.")
