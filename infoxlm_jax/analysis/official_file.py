"""Files of numbers that the authors' own trainer computed.

Such a file (.npz) holds `case`, the settings as JSON, and for updates i and
microbatches j the batches, sums of losses and parameters after the update,
under fairseq's names. Here they become our arrays; official.py compares.
"""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from infoxlm_jax.checkpoint.importers import assemble, fairseq, tensor_names
from infoxlm_jax.checkpoint.importers.hf_config import from_hugging_face
from infoxlm_jax.checkpoint.importers.lazy_tensor import Pieces, Tensor
from infoxlm_jax.checkpoint.importers.torch_pickle import check_zip
from infoxlm_jax.checkpoint.metadata import unflatten
from infoxlm_jax.errors import InputError
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.runtime import read_files

PAD = 1  # also the label of a token that is no target
STREAMS = ("mlm", "tlm", "xlco")
_CASE = (
  "batch updates freq layer queue momentum lr warmup total wd clip tau lam"
  " proj enable heads"
).split()

Arrays = Mapping[str, np.ndarray]
Tree = Any


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The settings and the arrays of a file.

  Raises:
    InputError: it is missing, no .npz, or does not hold what is needed.
  """
  arrays = _read_npz(path)
  if "case" not in arrays:
    raise InputError(f"{path}: holds no `case`, the settings of its trainer")
  where = f"{path}: `case`"
  case = read_files.parse_json(str(arrays["case"]), where)
  read_files.check_object(case, where, {})
  if missing := [name for name in _CASE if name not in case]:
    raise InputError(f"{path}: `case` says nothing of {', '.join(missing)}")
  read_files.check_object(case, where, {"updates": int, "freq": int})
  # There is an array for each, so that a larger number is wrong.
  if not 0 <= case["updates"] < len(arrays) or not 0 < case["freq"]:
    raise InputError(
      f"{where} says {case['updates']} updates of {case['freq']} batches, the"
      f" file holds {len(arrays)} arrays"
    )
  needed = [f"queue_{i}" for i in range(case["updates"] + 1)]
  needed += [f"{n}_ids_1_0" for n in ("mlm", "tlm", "src", "tgt")]
  needed += [f"proj_{n}_0" for n in ("fast", "slow") if case["proj"]]
  if absent := [name for name in needed if name not in arrays]:
    raise InputError(f"{path}: holds no array {absent[0]}")
  return case, arrays


def _read_npz(path: Path) -> dict[str, np.ndarray]:
  """The arrays of a file by name.

  An array is read only where its shape takes as many bytes as are stored, so
  that a shape of 2^70 or less than nothing makes no memory of that size.

  Raises:
    InputError: no regular file, no .npz, or damaged.
  """
  try:
    read_files.open_regular(path).close()
    check_zip(path)
    with zipfile.ZipFile(path) as archive:
      arrays = {}
      for member in archive.infolist():
        with archive.open(member) as file:
          name = member.filename.removesuffix(".npy")
          arrays[name] = _read_array(file, member.file_size)
      return arrays
  except InputError:
    raise
  except Exception as error:  # of a damaged file zipfile raises any kind
    raise InputError(f"{path}: cannot be read as .npz: {error}") from None


def _read_array(file: IO[bytes], size: int) -> np.ndarray:
  """An array of an .npy of `size` bytes; ValueError if it is none."""
  version = np.lib.format.read_magic(file)
  readers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  if version not in readers:
    raise ValueError(f"version {version} of .npy is none of {list(readers)}")
  shape, fortran, dtype = readers[version](file)
  stored = size - file.tell()
  if dtype.hasobject or min(shape, default=0) < 0:
    raise ValueError(f"an array of {dtype} {shape} is none of numbers")
  if math.prod(shape) * dtype.itemsize != stored:
    raise ValueError(f"an array of {dtype} {shape} has {stored} bytes")
  flat = np.frombuffer(file.read(stored), dtype)
  return flat.reshape(shape, order="F" if fortran else "C")


def parameters(
  path: Path, case: Mapping[str, Any], arrays: Arrays, which: str, update: int
) -> tuple[EncoderConfig, Tree] | None:
  """The model after an update, read as a fairseq checkpoint is.

  Args:
    path: of the file, for messages.
    case: its settings.
    arrays: its arrays.
    which: "fast" or "slow".
    update: 0 is the start.

  Returns:
    None where the file does not hold that update's.
  """
  start = f"{which}_{update}."
  stored = {
    name.removeprefix(start): _tensor(path, name, value)
    for name, value in arrays.items()
    if name.startswith(start)
  }
  if not stored:
    return None
  options = {"encoder_attention_heads": case["heads"]}
  tensors, stated = fairseq.translate(path, stored, options)
  config = from_hugging_face(stated, str(path))
  named, entries, _ = tensor_names.sort(tensors, config, str(path))
  flat = {}
  for entry in (entry for parts in entries.values() for entry in parts):
    assemble.check_shapes(entry, named, config, str(path))
    flat[entry.path] = assemble.read(entry, named, config, None)
  params = {"heads": {}} | unflatten(flat)
  if case["proj"]:
    projection = np.array(arrays[f"proj_{which}_{update}"], np.float32)
    params["heads"]["contrast"] = {"projection": projection}
  return config, params


def batches(case: Mapping[str, Any], arrays: Arrays) -> list[Tree]:
  """The batch of each update: an item a row, a row a group, in their order.

  All updates have rows of one length, so that one compiled step computes them.
  """
  freq = case["freq"]

  def ids(name: str, update: int, width: int) -> np.ndarray:
    parts = [arrays[f"{name}_{update}_{j}"] for j in range(freq)]
    padded = [
      np.pad(x, [(0, 0), (0, width - x.shape[1])], constant_values=PAD)
      for x in parts
    ]
    return np.concatenate(padded).astype(np.int32)[:, None]

  def masked(name: str, update: int) -> Tree:
    width = _width(arrays, f"{name}_ids_")
    labels = ids(f"{name}_labels", update, width)
    targets = np.where(labels == PAD, -1, labels)
    return rows(ids(f"{name}_ids", update, width)) | {"targets": targets}

  def one(update: int) -> Tree:
    query, key = (
      rows(ids(f"{n}_ids", update, _width(arrays, f"{n}_ids_")))
      for n in ("src", "tgt")
    )
    items = np.zeros(query["tokens"].shape[:2], np.int32)
    return {
      "mlm": masked("mlm", update),
      "tlm": masked("tlm", update),
      "xlco": {"query": query, "key": key, "items": items},
    }

  return [one(update) for update in range(1, case["updates"] + 1)]


def rows(ids: np.ndarray) -> Tree:
  """Tokens, segments and positions of one item a row [groups, 1, T]."""
  real = ids != PAD
  return {
    "tokens": ids,
    "segments": real.astype(np.int32),
    "positions": np.where(real, np.cumsum(real, -1) - 1, 0).astype(np.int32),
  }


def queue(arrays: Arrays, update: int) -> np.ndarray:
  """The keys after an update [K, D], oldest first."""
  return np.roll(
    arrays[f"queue_{update}"], -int(arrays[f"ptr_{update}"]), axis=0
  )


def _width(arrays: Arrays, start: str) -> int:
  return max(x.shape[1] for k, x in arrays.items() if k.startswith(start))


def _tensor(path: Path, name: str, value: np.ndarray) -> Tensor:
  flat = np.ascontiguousarray(value).reshape(-1)
  pieces: Pieces = lambda start, stop: iter((flat[start:stop],))  # noqa: E731
  return Tensor(name, path, value.shape, str(value.dtype), pieces)
