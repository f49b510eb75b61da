"""Reads and writes the parameters of a checkpoint without its other state.

`read_params` reads any checkpoint of this project. `write_params` writes one
with weights only: the same files without optimizer and objective state.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath  # type: ignore[import-untyped]

from infoxlm_jax.checkpoint import checksum_file
from infoxlm_jax.checkpoint.checksum_file import CHECKSUMS
from infoxlm_jax.checkpoint.checksums import describe
from infoxlm_jax.checkpoint.metadata import unflatten
from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime.files import atomic_folder
from infoxlm_jax.runtime.run_layout import FILES, STATE


def read_params(
  step: Path,
  files: Mapping[str, bytes],
  sharding_of: Callable[[str, tuple[int, ...]], jax.sharding.Sharding],
  wanted: Callable[[str], bool] = lambda path: True,
  part: str = "params",
) -> tuple[dict[str, Any], list[str]]:
  """Reads one part of a state, such as the parameters.

  Args:
    step: folder of one checkpoint, from a run or with weights only.
    files: from metadata.read_step_files.
    sharding_of: gives the sharding of an array, from its path in the
      parameters and its shape.
    wanted: whether to read the array of a path.
    part: path of a part of the state: "params", or a key encoder's, see
      metadata.key_encoder_part.

  Returns:
    The parameters as nested dicts ({} if no array was chosen), and the paths
    of the stored arrays that were not read.

  Raises:
    InputError: an array cannot be read, or differs from the saved one.
  """
  # Paths as they are on disk, in either format.
  stored, prefix = checksum_file.read(files, step).arrays, f"{part}/"
  chosen = {
    path: entry
    for path, entry in stored.items()
    if path.startswith(prefix) and wanted(path.removeprefix(prefix))
  }
  left = [path for path in stored if path not in chosen]
  if not chosen:
    return {}, left
  abstract = unflatten(
    {
      path: jax.ShapeDtypeStruct(
        tuple(entry["shape"]),
        jnp.dtype(entry["dtype"]),
        sharding=sharding_of(path.removeprefix(prefix), tuple(entry["shape"])),
      )
      for path, entry in chosen.items()
    }
  )
  try:
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
      tree = reader.restore(
        epath.Path(os.path.abspath(step / STATE)),
        args=ocp.args.PyTreeRestore(
          item=abstract,
          restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
          partial_restore=True,
        ),
      )
  except Exception as error:  # orbax and tensorstore raise many kinds
    raise InputError(
      f"{step}: cannot be read: {_first_line(error)}. Give another step's"
      " folder."
    ) from error
  for path, entry in describe(_on_host(tree)).items():
    if entry["sum"] != stored[path]["sum"]:
      raise InputError(
        f"{step}: array {path} is not what was saved (its checksum differs)."
        " Give another step's folder."
      )
  for name in part.split("/"):
    tree = tree[name]
  return tree, left


def write_params(
  folder: Path, params: Mapping[str, Any], files: Mapping[str, bytes]
) -> None:
  """Writes a checkpoint with weights only: a folder with state/ and files/.

  Args:
    folder: a new folder; it appears when all of it is written.
    params: nested dicts of numpy arrays.
    files: small files by name, stored with their hashes.

  Raises:
    InputError: the folder exists, or cannot be made.
    StorageError: writing failed; nothing is left.
  """
  state = {"params": dict(params)}
  files = dict(files) | {CHECKSUMS: checksum_file.make(state, files)}
  with atomic_folder(folder) as part:
    (part / FILES).mkdir()
    for name, content in files.items():
      (part / FILES / name).write_bytes(content)
    # Compression saves 8 % of float32 weights and needs a second copy of them.
    handler = ocp.PyTreeCheckpointHandler(use_compression=False)
    try:
      with ocp.Checkpointer(handler) as writer:
        writer.save(
          epath.Path(os.path.abspath(part / STATE)),
          args=ocp.args.PyTreeSave(jax.device_put(state)),
        )
    except Exception as error:  # orbax wraps storage failures in its own
      raise StorageError(
        f"{folder}: could not be written: {_first_line(error)}"
      ) from error


def _on_host(tree: Any) -> Any:
  """Numpy views of the arrays if one CPU device holds each; else the tree."""

  def plain(x: jax.Array) -> bool:
    devices: Any = x.sharding.device_set
    return len(devices) == 1 and all(d.platform == "cpu" for d in devices)

  if all(plain(x) for x in jax.tree.leaves(tree)):
    return jax.tree.map(np.asarray, tree)
  return tree


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0]
