"""Writes a .safetensors file tensor by tensor.

The safetensors package takes a dict of all tensors, contiguous: a second copy
of the model in memory. The format is short: the header's length (8 bytes,
little endian), a JSON header padded with spaces, the tensors one after the
other.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np

from infoxlm_jax.checkpoint.exporters.hf_tensors import Tensor
from infoxlm_jax.errors import InputError

DTYPES = {
  "float32": ("F32", np.dtype("<f4")),
  "float16": ("F16", np.dtype("<f2")),
  "bfloat16": ("BF16", np.dtype(ml_dtypes.bfloat16)),
}


def write(path: Path, tensors: Sequence[Tensor], dtype: str) -> int:
  """Writes the file; returns the bytes of its tensors.

  Args:
    path: a new file.
    tensors: float32; each is made just before it is written.
    dtype: float32 (bit by bit as they are), bfloat16 or float16.

  Raises:
    InputError: a value is not finite, or too large for the dtype.
    OSError: writing failed.
  """
  kind, stored = DTYPES[dtype]
  header: dict[str, object] = {"__metadata__": {"format": "pt"}}
  end = 0
  for tensor in tensors:
    size = int(np.prod(tensor.shape, dtype=np.int64)) * stored.itemsize
    header[tensor.name] = {
      "dtype": kind,
      "shape": list(tensor.shape),
      "data_offsets": [end, end + size],
    }
    end += size
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)
  with open(path, "xb") as file:
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for tensor in tensors:
      file.write(_bytes(tensor, stored).data)
  return end


def _bytes(tensor: Tensor, stored: np.dtype) -> np.ndarray:
  value = tensor.read()
  assert value.shape == tensor.shape, tensor.name
  with np.errstate(over="ignore"):
    value = np.ascontiguousarray(value, stored)
  if not np.isfinite(value).all():
    raise InputError(
      f"tensor {tensor.name} holds values that {stored.name} cannot: NaN,"
      " infinity, or numbers too large. Export in float32, or take an earlier"
      " checkpoint."
    )
  # bfloat16 has no buffer protocol of its own.
  return value.reshape(-1).view(np.uint8)
