"""Zip files that may come from anywhere: .npz, and what torch writes."""

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from infoxlm_jax.checkpoint.importers.lazy_tensor import (
  PIECE_BYTES,
  Pieces,
  Tensor,
  looks_like,
)
from infoxlm_jax.errors import InputError

# Weights hardly compress (float32 noise: 1.1 times); deflate can reach 1,000.
_MAX_RATIO = 20
_SMALL = 16 << 20  # a file that unpacks to so little is harmless
# RuntimeError: encrypted, or a compression that Python does not know.
_BROKEN = (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)


def check_zip(path: Path) -> None:
  """Refuses a broken directory, two members of one name, and a zip bomb.

  Sizes are the declared ones; a member never yields more than it declares.

  Raises:
    InputError: see above.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      members = archive.infolist()
    stored = path.stat().st_size
  except (*_BROKEN, ValueError) as e:
    raise InputError(
      f"{path}: cannot be read as a zip file: {e}.{looks_like(path)}"
    ) from None
  declared = sum(member.file_size for member in members)
  if declared > max(_MAX_RATIO * stored, _SMALL):
    raise InputError(
      f"{path}: {stored:,} bytes would unpack to {declared:,}, more than"
      f" {_MAX_RATIO} times as much. Weights do not compress so well: this is a"
      " zip bomb or no file of weights."
    )
  names = Counter(member.filename for member in members)
  if twice := [name for name, count in names.items() if count > 1]:
    raise InputError(f"{path}: holds the member {twice[0]!r} more than once")


def open_npz(path: Path) -> dict[str, Tensor]:
  """Tensors of a .npz file by name; reads only the members' headers.

  Raises:
    InputError: no zip file, a zip bomb, a member that is no plain array.
  """
  check_zip(path)
  found = {}
  with zipfile.ZipFile(path) as archive:
    for member in archive.infolist():
      name = member.filename.removesuffix(".npy")
      try:
        with archive.open(member) as file:
          shape, fortran, dtype = _npy_header(file)
          header = file.tell()
      except (*_BROKEN, ValueError) as error:
        raise InputError(
          f"{path}: member {member.filename!r} is no plain array: {error}"
        ) from None
      size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
      if dtype.hasobject or fortran or size != member.file_size - header:
        what = "holds Python objects, which are never unpickled"
        if fortran:
          what = "is in Fortran order; save np.ascontiguousarray of it"
        elif not dtype.hasobject:
          what = (
            f"declares {size:,} bytes and has {member.file_size - header:,}"
          )
        raise InputError(f"{path}: member {member.filename!r} {what}")
      found[name] = Tensor(
        name=name,
        file=path,
        shape=shape,
        dtype=dtype.name,
        pieces=_pieces(path, member.filename, header, dtype),
      )
  return found


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
  version = np.lib.format.read_magic(file)
  read = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }.get(version)
  if read is None:
    raise ValueError(f"npy version {version}")
  shape, fortran, dtype = read(file)
  # One axis, or none, is both orders at once.
  return shape, fortran and len(shape) > 1, dtype


def _skip(file: IO[bytes], count: int) -> None:
  """Reads on: from Python 3.12, `seek` leaves the checksum unchecked."""
  while count and (read := len(file.read(min(count, PIECE_BYTES)))):
    count -= read


def _pieces(path: Path, member: str, header: int, dtype: np.dtype) -> Pieces:
  def pieces(start: int, stop: int) -> Iterator[np.ndarray]:
    try:
      with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        _skip(file, header + start * dtype.itemsize)
        while start < stop:
          wanted = min(PIECE_BYTES // dtype.itemsize, stop - start)
          data = file.read(wanted * dtype.itemsize)
          if len(data) < dtype.itemsize:
            return
          count = len(data) // dtype.itemsize
          yield np.frombuffer(data, dtype, count)
          start += count
    except _BROKEN as error:
      raise InputError(
        f"{path}: member {member!r} cannot be read: {error}. The file is"
        " damaged: copy or download it again."
      ) from None

  return pieces
