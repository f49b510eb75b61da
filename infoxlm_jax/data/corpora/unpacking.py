"""Opens input files and decompresses them, by what is in them.

A file's first bytes decide, so that gzip under another name is read, too; a
name ending in .gz, .bz2, .xz or .zst says that a file must be such a one.

It also counts the input bytes that this process has read, which an ETA needs:
one number for the whole process, as time.process_time() is one. Nothing else
depends on it.
"""

import bz2
import functools
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import zstandard

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import limits, read_files

# What the decompressors raise for damaged files.
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)

_BUFFER = 1 << 17
# Compressed bytes that are unpacked at a time: few, so that the unpacked ones
# are at most some 16 MiB. gzip, xz and zstd pack 1,032, 7,000 and 32,000 equal
# bytes into one; bzip2 packs millions, but says when it has more to give.
_PIECES = {".gz": 8 << 10, ".xz": 2 << 10, ".zst": 512, ".bz2": 8 << 10}
_MOST = 16 << 20
_PACKED = {
  ".gz": rb"\x1f\x8b\x08",
  ".xz": rb"\xfd7zXZ\x00",
  ".zst": rb"\x28\xb5\x2f\xfd",
  ".bz2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
}
# Files that hold text but are not read, and what to do with them.
_ARCHIVE = "Unpack it, and give the files that are in it"
_TABLE = "Write its columns of text as JSON lines or tab-separated text"
_OTHERS = (
  (
    rb"PK(\x03\x04|\x05\x06)",
    "a zip archive (or an office document)",
    _ARCHIVE,
  ),
  (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _ARCHIVE),
  (rb"Rar!\x1a\x07", "a rar archive", _ARCHIVE),
  (rb"[\s\S]{257}ustar", "a tar archive", _ARCHIVE),
  (rb"PAR1", "a Parquet table", _TABLE),
  (rb"ARROW1", "an Arrow table", _TABLE),
  (rb"Obj\x01", "an Avro table", _TABLE),
  (rb"SQLite format 3\x00", "an SQLite database", _TABLE),
  (rb"\x89HDF", "an HDF5 file", _TABLE),
  (rb"\xd0\xcf\x11\xe0", "an office document", _TABLE),
  (rb"%PDF-", "a PDF document", "Convert it to text"),
)
_TARS = (".tbz2", ".tgz", ".txz")
_START = 512  # bytes that tell what a file is

_consumed = 0.0  # bytes


def note_consumed(count: float) -> None:
  """Notes that so many bytes of input were read, packed ones as they lie."""
  global _consumed
  _consumed += count


def bytes_consumed() -> float:
  """Bytes of input that were read since the process began."""
  return _consumed


def unpacked(path: str | os.PathLike[str], counted: bool = True) -> IO[bytes]:
  """A file's bytes, decompressed; errors as the codecs raise them.

  Args:
    path: the file.
    counted: whether what is read counts as consumed.

  Raises:
    InputError: no regular file, an archive, or another file without text.
  """
  raw = (_Counted if counted else io.FileIO)(
    os.fspath(path), opener=read_files.descriptor
  )
  file = io.BufferedReader(raw, _BUFFER)
  try:
    start = file.peek(_START)[:_START]
    packing = next(
      (ending for ending, magic in _PACKED.items() if re.match(magic, start)),
      Path(path).suffix,
    )
    if packing not in _PACKED:
      _check(start, path)
      return file
    inside = io.BufferedReader(
      _Unpacked(file, _decompressor(packing), _PIECES[packing]), _BUFFER
    )
    if ".tar" in Path(path).suffixes or Path(path).suffix in _TARS:
      _check(inside.peek(_START)[:_START], path)
    return inside
  except BaseException:
    file.close()
    raise


def _check(start: bytes, path: str | os.PathLike[str]) -> None:
  """Raises InputError for the beginning of a file that is not text."""
  for magic, what, advice in _OTHERS:
    if re.match(magic, start):
      raise InputError(f"{path} is {what}, not text. {advice}.")


def _decompressor(packing: str) -> Callable[[], Any]:
  """What makes a decompressor of one frame."""
  window = limits.WINDOW.value
  if packing == ".gz":
    return functools.partial(zlib.decompressobj, 16 + zlib.MAX_WBITS)
  if packing == ".xz":
    return functools.partial(lzma.LZMADecompressor, memlimit=window)
  if packing == ".bz2":
    return _Bzip2
  # More than 2 GiB, what `zstd --long=31` uses, the format cannot need.
  return zstandard.ZstdDecompressor(
    max_window_size=min(window, 1 << 31)
  ).decompressobj


class _Bzip2:
  """bz2's decompressor, which gives at most _MOST bytes at a time."""

  def __init__(self) -> None:
    self._inner = bz2.BZ2Decompressor()

  def decompress(self, piece: bytes) -> bytes:
    try:
      return self._inner.decompress(piece, _MOST)
    except OSError as error:
      raise EOFError(str(error)) from None

  @property
  def eof(self) -> bool:
    return self._inner.eof

  @property
  def unused_data(self) -> bytes:
    return self._inner.unused_data

  @property
  def has_more(self) -> bool:
    """Whether it can give more bytes before it gets any."""
    return not self._inner.eof and not self._inner.needs_input


class _Counted(io.FileIO):
  """A file whose bytes count as consumed when they are read."""

  def readinto(self, buffer: Any) -> int:
    size = super().readinto(buffer)
    note_consumed(size)
    return size


class _Unpacked(io.RawIOBase):
  """The decompressed content of a file's frames, one after the other.

  The libraries' own readers hide some damage: zstandard's a missing end, and
  lzma's anything after the first frame that is no frame.
  """

  def __init__(self, file: IO[bytes], start: Callable[[], Any], piece: int):
    """Takes a compressed file, and what makes a decompressor.

    Args:
      file: compressed.
      start: makes a decompressor of one frame.
      piece: bytes to unpack at a time.
    """
    self._file = file
    self._start = start
    self._piece = piece
    self._frame: Any = None  # None between frames
    self._ready = memoryview(b"")

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: Any) -> int:
    while not self._ready:
      more = getattr(self._frame, "has_more", False)
      piece = b"" if more else self._file.read(self._piece)
      if not piece and not more:
        if self._frame is not None:
          raise EOFError("it ends too early")
        return 0
      try:
        self._ready = memoryview(self._unpack(piece))
      except (lzma.LZMAError, zstandard.ZstdError) as error:
        if "memory" not in str(error).lower():
          raise
        raise limits.WINDOW.exceeded(self._file.name) from None
    size = min(len(buffer), len(self._ready))
    buffer[:size] = self._ready[:size]
    self._ready = self._ready[size:]
    return size

  def close(self) -> None:
    self._file.close()
    super().close()

  def _unpack(self, piece: bytes) -> bytes:
    parts = []
    while True:
      if self._frame is None:
        piece = piece.lstrip(b"\0")  # gzip and xz may pad with them
        if not piece:
          break
        self._frame = self._start()
      parts.append(self._frame.decompress(piece))
      if not self._frame.eof:
        break
      piece = self._frame.unused_data
      self._frame = None
    return b"".join(parts)
