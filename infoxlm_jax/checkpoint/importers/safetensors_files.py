"""Tensors of .safetensors files, one file or many with an index."""

import json
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
  """Reads the header only.

  The library checks it (that the tensors fill the file without gaps or
  overlaps), then the data are read by their offsets: the library's own
  reading would keep the whole file in memory beside the result.

  Raises:
    InputError: the file cannot be read, or is not what it says.
  """
  try:
    with safe_open(path, framework="numpy"):
      pass
    with open(path, "rb") as file:
      length = int.from_bytes(file.read(8), "little")
      header = json.loads(file.read(length))
  except (OSError, SafetensorError, ValueError) as error:
    raise InputError(
      f"{path}: cannot be read as safetensors: {error}.{looks_like(path)}"
    ) from None
  header.pop("__metadata__", None)
  return {
    name: _tensor(path, name, entry, 8 + length)
    for name, entry in header.items()
  }


def _tensor(path: Path, name: str, entry: Any, base: int) -> Tensor:
  dtype = _DTYPES.get(entry["dtype"])
  start = base + entry["data_offsets"][0]
  return Tensor(
    name=name,
    file=path,
    shape=tuple(entry["shape"]),
    dtype=entry["dtype"] if dtype is None else np.dtype(dtype).name,
    # A dtype that is not in the table is refused before it is read.
    pieces=_pieces(path, start, np.dtype(dtype or np.uint8)),
  )


def _pieces(path: Path, base: int, dtype: np.dtype) -> Pieces:
  def pieces(start: int, stop: int) -> Iterator[np.ndarray]:
    buffer = np.empty(PIECE_BYTES // dtype.itemsize, dtype)
    with open(path, "rb", buffering=0) as file:
      file.seek(base + start * dtype.itemsize)
      while start < stop:
        piece = buffer[: stop - start]
        # A view of bytes: bfloat16 has no buffer protocol of its own.
        found = file.readinto(piece.view(np.uint8).data) or 0
        whole = found // dtype.itemsize
        if not whole:
          return
        # The kernel may give less than asked for, in the middle of a number.
        if rest := found % dtype.itemsize:
          file.seek(-rest, 1)
        yield piece[:whole]
        start += whole

  return pieces
