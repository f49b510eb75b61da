"""Writes vectors piece by piece, as .npy or as JSON lines.

A file appears under its name when it is complete.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime import files

Append = Callable[[np.ndarray], object]  # float32 [n, D]
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
    yield lambda vectors: sys.stdout.write(_json_lines(vectors))
    sys.stdout.flush()
    return
  path = check_new(name)
  with contextlib.ExitStack() as stack:
    try:
      file = stack.enter_context(files.atomic_file(path))
    except StorageError as error:
      raise InputError(
        f"{path}: cannot be written: {error.__cause__}"
      ) from None
    if path.suffix == ".npy":
      yield stack.enter_context(_npy(file, size))
    else:
      yield lambda vectors: file.write(_json_lines(vectors).encode())


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
  files.check_new(path)
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


def _json_lines(vectors: np.ndarray) -> str:
  # The shortest digits that are the same float32 again.
  return "".join(f"[{', '.join(map(str, vector))}]\n" for vector in vectors)
