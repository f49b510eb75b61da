"""Finds and opens files of weights by their names."""

import os
from pathlib import Path
from typing import Any

from infoxlm_jax.checkpoint.importers import fairseq, torch_pickle
from infoxlm_jax.checkpoint.importers.lazy_tensor import Tensor
from infoxlm_jax.checkpoint.importers.parameter_map import may_be_tied
from infoxlm_jax.checkpoint.importers.safetensors_files import open_safetensors
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import read_files
from infoxlm_jax.runtime.model_folder import transformer_folder

_INDEX = ".index.json"
# What a folder may hold, the best first.
_NAMES = (
  "model.safetensors",
  "model.safetensors" + _INDEX,
  "pytorch_model.bin",
  "pytorch_model.bin" + _INDEX,
  "model.pt",
)


def find(path: Path) -> Path:
  """The file of weights that a path means.

  Raises:
    InputError: nothing is there, or a folder without a file of a known name,
      also where its modules.json points to.
  """
  # Of names that no file can have os.path says False, where Path raises.
  if not os.path.exists(path):
    raise InputError(
      f"{path}: no such file or folder. Give a Hugging Face folder, a file"
      " (.safetensors, torch's .bin or .pt), or a checkpoint of this project;"
      " nothing is downloaded."
    )
  if os.path.isfile(path):
    return path
  folder = transformer_folder(path)
  for name in _NAMES:
    if (folder / name).is_file():
      return folder / name
  raise InputError(
    f"{path}: holds no weights: no {', '.join(_NAMES)}, and no checkpoint of"
    " this project (a run folder with checkpoints/, or a step with state/)"
  )


def open_tensors(
  file: Path, *, allow_pickle: bool
) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
  """Tensors by Hugging Face's names; no values are read yet.

  Args:
    file: as `find` gives it.
    allow_pickle: whether torch's pickled files may be read.

  Returns:
    The tensors, and what config.json would say where the file itself says it
    (fairseq), else None.

  Raises:
    InputError: a file that cannot be read, or must not be.
  """
  if file.name.endswith(_INDEX):
    return _open_shards(file, allow_pickle), None
  if file.suffix in torch_pickle.SUFFIXES:
    state = torch_pickle.read_torch(file, allow_pickle=allow_pickle)
    if fairseq.is_fairseq(state):
      tensors = torch_pickle.named_tensors(file, state["model"])
      return fairseq.translate(file, tensors, fairseq.options(state))
    return torch_pickle.named_tensors(file, state), None
  if file.suffix == ".safetensors":
    return open_safetensors(file), None
  raise InputError(
    f"{file}: unknown kind of file. Weights are .safetensors (also many with"
    " .safetensors.index.json), or torch's .bin and .pt"
  )


def _open_shards(index: Path, allow_pickle: bool) -> dict[str, Tensor]:
  places = read_files.read_object(index).get("weight_map")
  if not isinstance(places, dict) or not places:
    raise InputError(f"{index}: has no weight_map of tensors to files")
  opened: dict[str, Tensor] = {}
  shards = {read_files.check_inside(name, index) for name in places.values()}
  for shard in sorted(shards):
    if "/" in shard or shard.endswith(_INDEX):
      raise InputError(
        f"{index}: names the file {shard!r}; shards stand beside their index"
      )
    path = index.parent / shard
    if not path.is_file():
      raise InputError(f"{index}: names the file {shard}, which is missing")
    tensors, _ = open_tensors(path, allow_pickle=allow_pickle)
    for name, tensor in tensors.items():
      # What the index does not name is still there, and is reported.
      if places.get(name, shard) == shard:
        opened[name] = tensor
  for name, shard in places.items():
    if name not in opened and not may_be_tied(name, opened):
      raise InputError(
        f"{index}: says that {shard} holds the tensor {name}, which it does"
        " not: the shards are of different models, or one is truncated"
      )
  return opened
