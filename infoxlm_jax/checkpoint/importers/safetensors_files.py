"""Tensors of .safetensors files, one file or many with an index."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from infoxlm_jax.checkpoint.importers.lazy_tensor import (
  PIECE_BYTES,
  Pieces,
  Tensor,
  looks_like,
)
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import limits, read_files

_DTYPES: dict[str, Any] = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": ml_dtypes.bfloat16,
  "I64": np.int64,
  "I32": np.int32,
  "U8": np.uint8,
  "BOOL": np.bool_,
}


def open_safetensors(path: Path) -> dict[str, Tensor]:
  """The tensors of a file by name; reads the header only.

  A tensor that several names share is stored under one of them; its metadata
  says {the name left out: the name kept} (safetensors.torch.save_model).

  Raises:
    InputError: the file cannot be read, is not what it says, or its header is
      above limits.HEADER.
  """
  _check_header(path)
  with _open(path) as file:
    tensors = {
      name: _tensor(path, name, file.get_slice(name)) for name in file.keys()
    }
    for alias, kept in (file.metadata() or {}).items():
      if kept in tensors:
        same = dataclasses.replace(tensors[kept], name=alias)
        tensors.setdefault(alias, same)
    return tensors


def _check_header(path: Path) -> None:
  """Checks the header's size, which is in the first eight bytes."""
  try:
    with read_files.open_regular(path) as file:
      size = int.from_bytes(file.read(8), "little")
      stored = path.stat().st_size
  except OSError as error:
    raise InputError(f"cannot read {path}: {error.strerror}.") from error
  # Where it is larger than the file, the file is of another kind.
  if size <= stored:
    limits.HEADER.check(size, path)


def _open(path: Path) -> Any:
  """The library's handle; it checks that the tensors fill the file."""
  try:
    return safe_open(path, framework="numpy")
  except (OSError, SafetensorError, ValueError) as error:
    raise InputError(
      f"{path}: cannot be read as safetensors: {error}.{looks_like(path)}"
    ) from None


def _tensor(path: Path, name: str, stored: Any) -> Tensor:
  shape, code = tuple(stored.get_shape()), stored.get_dtype()
  # A dtype that is not in the table is refused before it is read.
  dtype = np.dtype(_DTYPES.get(code, np.uint8))
  return Tensor(
    name=name,
    file=path,
    shape=shape,
    dtype=dtype.name if code in _DTYPES else code,
    pieces=_pieces(path, name, shape, dtype.itemsize),
  )


def _pieces(
  path: Path, name: str, shape: tuple[int, ...], itemsize: int
) -> Pieces:
  width = math.prod(shape[1:])

  def pieces(start: int, stop: int) -> Iterator[np.ndarray]:
    while start < stop:
      first = start // width
      rows = max(1, PIECE_BYTES // (width * itemsize))
      last = min(first + rows, -(-stop // width))
      # Opened for every piece: the library maps the file, and what was read
      # of it counts as the process's memory until it is closed.
      with _open(path) as file:
        stored = file.get_slice(name)
        piece = stored[first:last] if shape else stored[...]
      piece = piece.reshape(-1)[start - first * width : stop - first * width]
      yield piece
      start += len(piece)

  return pieces
