"""checksums.json: the list of checksums of a checkpoint.

{"format": 2, "arrays": {path: shape, dtype, sum}, "files": {name: SHA-256},
"sha256": of the rest of this file}. Lists written before the last entry
existed have none, and are read without it.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from infoxlm_jax.checkpoint.checksums import describe
from infoxlm_jax.errors import InputError

CHECKSUMS = "checksums.json"
FORMAT = 2
# Format 1: one contrast, with its state at the top of the tree.
_READ_FORMATS = (1, 2)
_OWN = "sha256"
_ENTRIES = {"format", "arrays", "files"}


class Damaged(Exception):
  """A stored checkpoint differs from the one that was saved."""


@dataclasses.dataclass(frozen=True)
class ChecksumList:
  """What checksums.json holds.

  Attributes:
    format: of the checkpoint.
    arrays: {"shape": list of int, "dtype": name, "sum": two ints} by path.
    files: the SHA-256 of each small file, by name.
    is_checked: whether the list has a checksum of its own, which fits.
  """

  format: int
  arrays: dict[str, dict[str, Any]]
  files: dict[str, str]
  is_checked: bool


def make(state: Any, files: Mapping[str, bytes]) -> bytes:
  """checksums.json of a tree of arrays and of the small files beside it."""
  entries = {
    "format": FORMAT,
    "arrays": describe(state),
    "files": {k: hashlib.sha256(v).hexdigest() for k, v in files.items()},
  }
  return _text(entries | {_OWN: _digest(entries)})


def read(files: Mapping[str, bytes], where: Any) -> ChecksumList:
  """Reads checksums.json, and checks it against its own checksum.

  Args:
    files: the small files of a checkpoint, by name.
    where: the checkpoint, for messages.

  Raises:
    Damaged: the list is missing, or not what was saved.
    InputError: the list is whole and of a format of a later version.
  """
  try:
    entries = json.loads(files[CHECKSUMS])
  except KeyError:
    raise Damaged(f"{where}: {CHECKSUMS} is missing") from None
  except (ValueError, RecursionError) as error:
    raise Damaged(f"{where}: {CHECKSUMS} cannot be read: {error}") from None
  if not isinstance(entries, dict):
    raise Damaged(f"{where}: {CHECKSUMS} is not what was saved")
  own = entries.pop(_OWN, None)
  if own is not None and own != _digest(entries):
    raise Damaged(
      f"{where}: {CHECKSUMS} is not what was saved (its own checksum differs)"
    )
  version = entries.get("format")
  if version not in _READ_FORMATS or isinstance(version, bool):
    message = (
      f"{where}: {CHECKSUMS}: checkpoint format {version!r}, this version reads"
      f" {' and '.join(map(str, _READ_FORMATS))}"
    )
    # A list of a later version has a checksum, too; without, it is damage.
    raise (Damaged if own is None else InputError)(message)
  if set(entries) != _ENTRIES or not _is_well_formed(entries):
    raise Damaged(f"{where}: {CHECKSUMS} is not what was saved")
  return ChecksumList(
    version, entries["arrays"], entries["files"], own is not None
  )


def _text(entries: Mapping[str, Any]) -> bytes:
  return json.dumps(entries, indent=1).encode()


def _digest(entries: Mapping[str, Any]) -> str:
  return hashlib.sha256(_text(entries)).hexdigest()


def _is_well_formed(entries: Mapping[str, Any]) -> bool:
  """Whether arrays and files have the types that readers rely on."""

  def is_array(entry: Any) -> bool:
    if not isinstance(entry, dict) or set(entry) != {"shape", "dtype", "sum"}:
      return False
    shape, sums = entry["shape"], entry["sum"]
    return (
      _are_counts(shape) and _are_counts(sums) and len(sums) == 2
    ) and _is_dtype(entry["dtype"])

  arrays, files = entries["arrays"], entries["files"]
  return (
    isinstance(arrays, dict)
    and isinstance(files, dict)
    and all(map(is_array, arrays.values()))
    and all(isinstance(digest, str) for digest in files.values())
  )


def _are_counts(value: Any) -> bool:
  return isinstance(value, list) and all(
    type(number) is int and number >= 0 for number in value
  )


def _is_dtype(name: Any) -> bool:
  try:
    return isinstance(name, str) and str(np.dtype(name)) == name
  except TypeError:
    return False
