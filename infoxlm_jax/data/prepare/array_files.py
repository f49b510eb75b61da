"""Files of named arrays that are read in part: safetensors, mapped to memory.

They appear whole, so that a file that is there is complete.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime import read_files
from infoxlm_jax.runtime.files import write_atomically
from infoxlm_jax.runtime.json_crc import with_crc

_DTYPES = {"I32": "<i4", "I64": "<i8", "U64": "<u8"}
_META = "meta"


def write_json(path: Path, value: Any) -> None:
  """Writes JSON, whole or not at all."""
  text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
  write_atomically(path, text)


def write_checked_json(path: Path, fields: Mapping[str, Any]) -> None:
  """Writes a JSON object with its checksum, whole or not at all."""
  write_json(path, with_crc(fields))


def write_arrays(
  path: Path, meta: Mapping[str, Any], **arrays: np.ndarray
) -> None:
  """Writes int32, int64 and uint64 arrays, and `meta` as JSON."""
  content = safetensors.numpy.save(
    {k: np.ascontiguousarray(a) for k, a in arrays.items()},
    {_META: json.dumps(meta)},
  )
  write_atomically(path, content)


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """(meta, arrays); an array is read from disk where it is looked at.

  Raises:
    StorageError: the file is damaged.
  """
  try:
    raw = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    header = read_files.parse_json(raw[8:start].tobytes(), path)
    meta = read_files.parse_json(header.pop("__metadata__")[_META], path)
    arrays = {}
    for name, entry in header.items():
      first, last = entry["data_offsets"]
      data = np.asarray(raw[start + first : start + last])
      arrays[name] = data.view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
  except (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    InputError,
  ) as error:
    raise StorageError(
      f"{path} is damaged ({error}): remove the folder "
      f"{path.parent} and start again, which makes it anew."
    ) from error
  return meta, arrays
