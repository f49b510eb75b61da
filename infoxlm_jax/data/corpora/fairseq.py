r"""The released code's binary data: token ids in fairseq's mmap format.

    train.0.bin   ids of all rows, one after the other
    train.0.idx   b"MMIDIDX\0\0", version u64 = 1, type of the ids u8,
                  rows u64, sizes int32[rows], byte offsets int64[rows]
    dict.txt      "piece count" a line: the tokenizer's pieces

All little-endian. A row depends on the tool that wrote it:

    mlm   txt2bin.py         <s> a </s> b </s> ...
    tlm   para2bin.py        <s> a </s> b </s>, all pairs, then all swapped
    xlco  para2bin4xlco.py   <s> a </s> and <s> b </s>, in turn

The released tools write a second <s> in front of each sentence. The readers
remove special tokens (0, 1, 2) everywhere, so they read both forms.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from infoxlm_jax.data.corpora.open_files import (
  read_lines,
  reading,
)
from infoxlm_jax.data.corpora.unpacking import note_consumed
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import read_files

LAYOUTS = ("mlm", "tlm", "xlco")
MAGIC = b"MMIDIDX\x00\x00"

_HEADER = len(MAGIC) + 8 + 1 + 8
# fairseq's numbers of the types that ids may have.
_TYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_EOS = 2
# <s>, <pad>, </s>; <unk> (3) stays.
_SPECIAL = 3
# Rows, or ids, that are checked at a time.
_MANY = 1 << 20
# Pairs that are compared to learn whether a file's second half is swapped.
_PROBES = 64
# Pieces of dict.txt that are compared with the tokenizer's.
_COMPARED = 1000


class Rows:
  """The rows of a .idx and its .bin, int32 [length] each.

  Both files are mapped to memory, so only the rows asked for are read.
  """

  def __init__(self, index: Path):
    """Opens and checks both files.

    Raises:
      InputError: a file is missing or truncated, or they do not fit.
    """
    self.path = index
    data = index.with_suffix(".bin")
    with reading(index):
      with read_files.open_regular(index) as file:
        header = file.read(_HEADER)
      size = index.stat().st_size
    dtype, rows = self._header(header, size)
    self._sizes: np.ndarray = np.empty(0, "<i4")
    self._offsets: np.ndarray = np.empty(0, "<i8")
    if rows:
      with reading(index):
        self._sizes = np.memmap(index, "<i4", "r", _HEADER, (rows,))
        place = _HEADER + 4 * rows
        self._offsets = np.memmap(index, "<i8", "r", place, (rows,))
    with reading(data):
      read_files.open_regular(data).close()
      self._bytes = data.stat().st_size
      self._check(dtype.itemsize, data)
      if not self._bytes:
        raise InputError(f"{data} is empty: its rows hold no ids.")
      count = self._bytes // dtype.itemsize
      self.ids = np.memmap(data, dtype, "r", shape=(count,))
    self._itemsize = dtype.itemsize

  def __len__(self) -> int:
    return len(self._sizes)

  def __getitem__(self, row: int) -> np.ndarray:
    start = int(self._offsets[row]) // self._itemsize
    note_consumed(int(self._sizes[row]) * self._itemsize)
    return np.array(self.ids[start : start + int(self._sizes[row])], np.int32)

  def row_of(self, place: int) -> int:
    """The row that holds id number `place` of the .bin."""
    ends = np.asarray(self._offsets)
    return int(np.searchsorted(ends, place * self._itemsize, "right")) - 1

  def _header(self, header: bytes, size: int) -> tuple[np.dtype, int]:
    path = self.path
    if header[: len(MAGIC)] != MAGIC:
      raise InputError(
        f"{path} begins with {header[: len(MAGIC)]!r}, not with {MAGIC!r}: it"
        " is no index of fairseq's mmap format. Write the data with"
        " --dataset-impl mmap, as the released tools do."
      )
    if len(header) < _HEADER:
      raise InputError(f"{path} ends within its header: copy it again.")
    version = int.from_bytes(header[9:17], "little")
    code = header[17]
    rows = int.from_bytes(header[18:26], "little")
    if version != 1:
      raise InputError(
        f"{path} has version {version} of the format; only 1 can be read."
      )
    if code not in _TYPES:
      raise InputError(
        f"{path}: its ids have type {code}, which is none of the integer types"
        f" {', '.join(map(str, _TYPES))}: the file holds no token ids."
      )
    if size != _HEADER + 12 * rows:
      raise InputError(
        f"{path} has {size} bytes, {rows} rows need {_HEADER + 12 * rows}: it"
        " is truncated or damaged. Copy it again."
      )
    if not rows:
      raise InputError(f"{path} has no rows.")
    return np.dtype(_TYPES[code]), rows

  def _check(self, itemsize: int, data: Path) -> None:
    """Raises InputError unless the rows follow each other and fill the .bin."""
    end = 0
    for start in range(0, len(self), _MANY):
      sizes = self._sizes[start : start + _MANY].astype(np.int64) * itemsize
      offsets = self._offsets[start : start + _MANY]
      expected = end + np.cumsum(sizes) - sizes
      wrong = np.flatnonzero((offsets != expected) | (sizes < 0))
      if wrong.size:
        raise InputError(
          f"{self.path}, row {start + int(wrong[0]) + 1}: its place is not"
          " where the row before it ends: the index is damaged. Copy it again."
        )
      end = int(expected[-1] + sizes[-1])
    if end != self._bytes:
      raise InputError(
        f"{data} has {self._bytes} bytes, but {end} by its index: it is"
        " truncated, or of another index. Copy both again."
      )


def find_indexes(folder: str, prefix: str) -> list[Path]:
  """PREFIX.idx, PREFIX.0.idx, ... of a folder, by number.

  Raises:
    InputError: there is none.
  """
  place = Path(folder).expanduser()
  pattern = re.compile(rf"{re.escape(prefix)}\.?(\d*)\.idx")
  numbered = []
  with reading(place):
    for path in place.iterdir():
      if match := pattern.fullmatch(path.name):
        numbered.append((int(match[1] or -1), path.name, path))
  if not numbered:
    raise InputError(
      f"{folder} holds no {prefix}.0.idx: give the folder that the released"
      " txt2bin.py, para2bin.py or para2bin4xlco.py wrote (its --output)."
    )
  return [path for _, _, path in sorted(numbered)]


def read_sentences(rows: Rows) -> Iterator[np.ndarray]:
  """The sentences of MLM blocks, without special tokens."""
  for row in range(len(rows)):
    for ids in _segments(rows[row]):
      if ids.size:
        yield ids


def read_pairs(
  rows: Rows, layout: str, swapped: bool | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Both sides of each pair, without special tokens.

  Args:
    rows: of the layout "tlm" or "xlco".
    layout: "tlm" or "xlco".
    swapped: whether the second half of TLM rows repeats the first with its
      sides swapped; it is left out then. None: decided by comparing rows.

  Raises:
    InputError: a row that this layout cannot have.
  """
  if layout == "xlco":
    if len(rows) % 2:
      raise InputError(
        f"{rows.path} has {len(rows)} rows: XlCo data are pairs of rows."
      )
    for row in range(0, len(rows), 2):
      yield _one_side(rows, row), _one_side(rows, row + 1)
    return
  if swapped is None:
    swapped = _is_swapped(rows)
  for row in range(len(rows) // 2 if swapped else len(rows)):
    yield _both_sides(rows, row)


def check_tokenizer(
  indexes: list[Path], tokenizer: Tokenizer, dictionary: Path
) -> None:
  """Checks that the ids can be those of a tokenizer.

  Every id must be in its vocabulary. dict.txt, if it exists, must have as many
  pieces, and the same first thousand.

  Raises:
    InputError: the ids, or dict.txt, are of another tokenizer.
  """
  size = tokenizer.vocab_size
  if dictionary.exists():
    _check_dictionary(dictionary, tokenizer)
  for index in indexes:
    rows = Rows(index)
    for start in range(0, len(rows.ids), _MANY):
      ids = rows.ids[start : start + _MANY]
      wrong = np.flatnonzero((ids >= size) | (ids < 0))
      if wrong.size:
        place = start + int(wrong[0])
        raise InputError(
          f"{index.with_suffix('.bin')}, row {rows.row_of(place) + 1}: id"
          f" {int(rows.ids[place])} is not in the vocabulary of"
          f" {tokenizer.path} ({size} ids). Set TOKENIZER to the one that the"
          " data were made with."
        )


def _check_dictionary(path: Path, tokenizer: Tokenizer) -> None:
  pieces = [line.rpartition(" ")[0] for _, line in read_lines(path) if line]
  # fairseq counts <s> <pad> </s> <unk> before the file's pieces, <mask> after.
  first = 4
  own = tokenizer.vocab_size - first - 1
  advice = "Set TOKENIZER to the one that the data were made with."
  if len(pieces) != own:
    raise InputError(
      f"{path} has {len(pieces)} pieces, the tokenizer {tokenizer.path} has"
      f" {own}. {advice}"
    )
  count = min(own, _COMPARED)
  expected = tokenizer.pieces(range(first, first + count))
  for number, (piece, mine) in enumerate(zip(pieces, expected, strict=False)):
    if piece != mine:
      raise InputError(
        f"{path}, line {number + 1}: piece {piece!r}, the tokenizer"
        f" {tokenizer.path} has {mine!r} there. {advice}"
      )


def _segments(row: np.ndarray) -> list[np.ndarray]:
  """The ids between the </s> of a row, without special tokens."""
  ends = np.flatnonzero(row == _EOS) + 1
  if not ends.size or ends[-1] < len(row):  # a cut row ends without </s>
    ends = np.append(ends, len(row))
  parts = np.split(row, ends)[:-1]
  return [part[(part < 0) | (part >= _SPECIAL)] for part in parts]


def _both_sides(rows: Rows, row: int) -> tuple[np.ndarray, np.ndarray]:
  ids = rows[row]
  ends = np.count_nonzero(ids == _EOS)
  if ends != 2 or ids[-1] != _EOS:
    raise InputError(
      f"{rows.path}, row {row + 1}: {ends} sentences where a TLM row has two."
      " Rows of txt2bin.py are layout = 'mlm', of para2bin4xlco.py 'xlco'."
    )
  a, b = _segments(ids)
  return a, b


def _one_side(rows: Rows, row: int) -> np.ndarray:
  ids = rows[row]
  ends = np.count_nonzero(ids == _EOS)
  if ends != 1 or ids[-1] != _EOS:
    raise InputError(
      f"{rows.path}, row {row + 1}: {ends} sentences where an XlCo row has one."
      " Rows of txt2bin.py are layout = 'mlm', of para2bin.py 'tlm'."
    )
  return _segments(ids)[0]


def _is_swapped(rows: Rows) -> bool:
  half, odd = divmod(len(rows), 2)
  if odd:
    return False
  for row in np.unique(np.linspace(0, half - 1, _PROBES).astype(int)).tolist():
    a, b = _both_sides(rows, row)
    c, d = _both_sides(rows, half + row)
    if not (np.array_equal(a, d) and np.array_equal(b, c)):
      return False
  return True
