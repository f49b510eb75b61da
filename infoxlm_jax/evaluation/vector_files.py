"""Vectors written piece by piece: .npy, or JSON lines.

A file appears under its name when it is whole.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from infoxlm_jax.errors import InputError, StorageError

Append = Callable[[np.ndarray], None]  # float32 [n, D]
STDOUT = "-"


@contextlib.contextmanager
def open_vectors(name: str, size: int) -> Iterator[Append]:
  """Gives a function that appends vectors to a new file.

  Args:
    name: ends in .npy (a float32 array [N, D]) or .jsonl (a JSON array a
      line); "-" is standard output, JSON lines.
    size: D.

  Raises:
    InputError: another ending, the file exists, or its folder cannot be
      written.
    StorageError: writing failed; nothing is left.
  """
  if name == STDOUT:
    yield lambda vectors: _append_json(sys.stdout, vectors)
    sys.stdout.flush()
    return
  path = check_new(name)
  part = path.with_name(f".{path.name}.{os.getpid()}.part")
  try:
    file: IO[Any] = open(part, "xb" if path.suffix == ".npy" else "x")
  except OSError as error:
    raise InputError(f"{path}: cannot be written: {error.strerror}") from None
  try:
    with file:
      if path.suffix == ".npy":
        with _npy(file, size) as append:
          yield append
      else:
        yield lambda vectors: _append_json(file, vectors)
    part.rename(path)
  except OSError as error:
    raise StorageError(f"{path}: could not be written: {error}") from error
  finally:
    part.unlink(missing_ok=True)


def check_new(name: str) -> Path:
  """The path of a file to be written.

  Raises:
    InputError: it exists, or has another ending than .npy and .jsonl.
  """
  path = Path(name)
  if path.suffix not in (".npy", ".jsonl"):
    raise InputError(
      f"{name}: vectors are written as .npy or .jsonl, or to standard output"
      f" ({STDOUT})"
    )
  if path.exists():
    raise InputError(f"{name} exists: move it away, or choose another name")
  return path


@contextlib.contextmanager
def _npy(file: IO[bytes], size: int) -> Iterator[Append]:
  count = 0

  def header() -> None:
    # numpy leaves room for the first axis to grow.
    np.lib.format.write_array_header_1_0(
      file,
      {"shape": (count, size), "fortran_order": False, "descr": "<f4"},
    )

  def append(vectors: np.ndarray) -> None:
    nonlocal count
    file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
    count += len(vectors)

  header()
  start = file.tell()
  yield append
  file.seek(0)
  header()
  assert file.tell() == start


def _append_json(file: IO[str], vectors: np.ndarray) -> None:
  for vector in vectors:
    # The shortest digits that are the same float32 again.
    file.write("[" + ", ".join(str(x) for x in vector) + "]\n")
