"""A stored tensor: what it is, and how to read it a few megabytes at a time.

Readers of file formats give a dict of these by name, so that nothing is read
before its shape is known to fit, and nothing is in memory twice.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from infoxlm_jax.errors import InputError

PIECE_BYTES = 4 << 20  # read at once, and the only memory that reading needs
_ALIGNMENT = 64  # what jax on a CPU takes over without a copy

# Elements [start, stop) of the flattened tensor, in order, in pieces of any
# length. A piece may be overwritten when the next one is asked for.
Pieces = Callable[[int, int], Iterator[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor of a file.

  Attributes:
    name: in the file; renamed copies keep it for messages.
    file: the file that holds it.
    shape: as stored.
    dtype: as stored, such as "float32", "bfloat16".
    pieces: reads it.
  """

  name: str
  file: Path
  shape: tuple[int, ...]
  dtype: str
  pieces: Pieces

  @property
  def size(self) -> int:
    return int(np.prod(self.shape, dtype=np.int64))

  def rows(self, start: int, stop: int) -> "Tensor":
    """The tensor [stop - start, ...] of some rows."""
    width = self.size // max(self.shape[0], 1)

    def pieces(first: int, last: int) -> Iterator[np.ndarray]:
      yield from self.pieces(start * width + first, start * width + last)

    shape = (stop - start, *self.shape[1:])
    return dataclasses.replace(self, shape=shape, pieces=pieces)

  def read(self) -> np.ndarray:
    """The values in float32, in memory that jax can take over."""
    out = empty(self.shape)
    self.read_into(out)
    return out

  def read_into(self, out: np.ndarray) -> None:
    """Writes the values into a C-contiguous float32 array of this shape.

    Raises:
      InputError: no floating-point tensor, NaN or infinity in it (how many),
        or a file that is shorter than it says.
    """
    if not is_floating(self.dtype):
      raise InputError(
        f"{self.file}: tensor {self.name} holds {self.dtype}; weights are"
        " float32, float16, bfloat16 or float64"
      )
    assert out.shape == self.shape and out.flags.c_contiguous
    flat, at, bad = out.reshape(-1), 0, 0
    with np.errstate(over="ignore"):  # float64 beyond float32: counted as inf
      for piece in self.pieces(0, self.size):
        part = flat[at : at + len(piece)]
        part[:] = piece
        bad += len(part) - int(np.count_nonzero(np.isfinite(part)))
        at += len(piece)
    if at != self.size:
      raise InputError(
        f"{self.file}: tensor {self.name} ends after {at:,} of {self.size:,}"
        " values: the file is truncated. Copy or download it again."
      )
    if bad:
      raise InputError(
        f"{self.file}: tensor {self.name} holds NaN or infinity in {bad:,} of"
        f" {self.size:,} values: these weights are of no use. Take an earlier"
        " checkpoint, or download the file again."
      )

  def same_as(self, other: "Tensor") -> bool:
    """Whether both hold the same values; reads both."""
    if self.shape != other.shape:
      return False
    step = PIECE_BYTES // 4
    for start in range(0, self.size, step):
      stop = min(start + step, self.size)
      mine, theirs = (
        np.concatenate([np.array(p, np.float32) for p in t.pieces(start, stop)])
        for t in (self, other)
      )
      if not np.array_equal(mine, theirs):
        return False
    return True


Tensors = Mapping[str, Tensor]


def is_floating(dtype: str) -> bool:
  """Whether weights may be stored so."""
  return dtype in ("float32", "float16", "bfloat16", "float64")


def empty(shape: tuple[int, ...]) -> np.ndarray:
  """An uninitialised float32 array that jax on a CPU need not copy."""
  size = int(np.prod(shape, dtype=np.int64)) * 4
  raw = np.empty(size + _ALIGNMENT, np.uint8)
  start = -raw.ctypes.data % _ALIGNMENT
  return raw[start : start + size].view(np.float32).reshape(shape)


def looks_like(path: Path) -> str:
  """A sentence on what a file is instead, from its first bytes, or nothing."""
  try:
    with open(path, "rb") as file:
      head = file.read(64)
  except OSError:
    return ""
  if head.startswith(b"version https://git-lfs"):
    return (
      " It is a pointer of git-lfs, not the weights: run `git lfs pull` in the"
      " repository that it came from."
    )
  if head.startswith(b"PK"):
    return " It is a zip file, as torch's files are."
  if head.startswith(b"\x80"):
    return " It is a pickle, as old torch files are."
  if head.lstrip()[:1] == b"<":
    return " It is a web page: the download failed."
  if not head:
    return " It is empty."
  return " It may be truncated: copy or download it again."
