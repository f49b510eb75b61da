"""Looks into stored checkpoints: which are there, intact, and how two differ.

Arrays are read one at a time, so the memory of the largest array is enough.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath  # type: ignore[import-untyped]

from infoxlm_jax.checkpoint import checksum_file
from infoxlm_jax.checkpoint.checksum_file import Damaged
from infoxlm_jax.checkpoint.checksums import describe
from infoxlm_jax.checkpoint.metadata import read_folder, verified
from infoxlm_jax.errors import InputError
from infoxlm_jax.model.partitioning import path_of
from infoxlm_jax.runtime.run_layout import (
  CHECKPOINTS,
  FILES,
  STATE,
  find_step,
)

_METRICS = Path("metrics", "metrics")  # orbax' file of a checkpoint's metric


class Difference(NamedTuple):
  """How an array differs between two checkpoints.

  Attributes:
    path: of the array.
    text: in words.
  """

  path: str
  text: str


def folders(path: Path) -> list[Path]:
  """The folders of all checkpoints of a run, the oldest first.

  Args:
    path: a run's folder, its folder of checkpoints, or one checkpoint.

  Raises:
    InputError: there is no checkpoint.
  """
  if (path / STATE).is_dir() or (path / FILES).is_dir():
    return [path]
  for folder in (path, path / CHECKPOINTS):
    steps = folder.iterdir() if folder.is_dir() else ()
    if numbered := [step for step in steps if step.name.isdecimal()]:
      return sorted(numbered, key=lambda step: int(step.name))
  raise InputError(
    f"{path}: there is no checkpoint. Give the folder of a run, or of one"
    " checkpoint."
  )


def size(step: Path) -> int:
  """Bytes of a checkpoint's files."""
  return sum(p.stat().st_size for p in step.rglob("*") if p.is_file())


def metrics(step: Path) -> dict[str, float]:
  """The metrics stored with a checkpoint; {} if there are none to read."""
  try:
    stored = json.loads((step / _METRICS).read_bytes())
    return {str(name): float(value) for name, value in stored.items()}
  except (OSError, ValueError, TypeError, AttributeError, RecursionError):
    return {}


def damage(step: Path) -> list[str]:
  """What is wrong with a checkpoint: its files and arrays; [] if intact.

  Raises:
    InputError: it has a format of a later version.
  """
  try:
    files = verified(read_folder(step / FILES), step)
    sums = checksum_file.read(files, step)
  except (OSError, Damaged) as error:
    return [str(error)]
  problems = []
  try:
    with _arrays(step) as (paths, read):
      missing = sorted(set(sums.arrays) ^ set(paths))
      problems += [
        f"{step}: array {path} is {'stored' if path in paths else 'listed'}"
        " only"
        for path in missing
      ]
      for path, entry in sums.arrays.items():
        if path not in missing:
          problems += _problems_of(step, path, entry, read)
  except InputError as error:
    problems.append(str(error))
  return problems


def _problems_of(
  step: Path, path: str, entry: dict[str, Any], read: Callable[[str], Any]
) -> list[str]:
  """What is wrong with one array, in no or one sentence."""
  try:
    array = read(path)
  except InputError as error:
    return [str(error)]
  if describe({"array": array})["array"] != entry:
    return [
      f"{step}: array {path} is not what was saved (its checksum differs)"
    ]
  return []


def differences(one: Path, other: Path) -> Iterator[Difference]:
  """The arrays in which two checkpoints differ.

  Args:
    one, other: a checkpoint's folder, or a run's (its newest checkpoint).

  Raises:
    InputError: there is no checkpoint, or an array cannot be read.
  """
  with (
    _arrays(_step(one)) as (mine, read),
    _arrays(_step(other)) as (
      theirs,
      read_other,
    ),
  ):
    for path in list(dict.fromkeys(mine + theirs)):
      if path not in theirs or path not in mine:
        place = one if path in mine else other
        yield Difference(path, f"only in {place}")
      elif text := _difference(read(path), read_other(path)):
        yield Difference(path, text)


def _step(path: Path) -> Path:
  step = find_step(path)
  if step is None:
    raise InputError(f"{path}: there is no checkpoint")
  return step


def _difference(a: np.ndarray, b: np.ndarray) -> str | None:
  """How two arrays differ, in words; None if they have the same bits."""
  if a.shape != b.shape or a.dtype != b.dtype:
    return f"{a.dtype}{list(a.shape)} and {b.dtype}{list(b.shape)}"
  if a.tobytes() == b.tobytes():
    return None
  wide, other = a.astype(np.float64), b.astype(np.float64)
  with np.errstate(invalid="ignore", divide="ignore"):
    apart = np.abs(wide - other)
    relative = apart / np.maximum(np.abs(wide), np.abs(other))
  if not np.isfinite(apart).any():
    return "the numbers that differ are not finite"
  return (
    f"max absolute difference {np.nanmax(apart):.3g}, max relative"
    f" {np.nanmax(relative, initial=0.0):.3g}"
  )


@contextmanager
def _arrays(
  step: Path,
) -> Iterator[tuple[list[str], Callable[[str], np.ndarray]]]:
  """Paths of the stored arrays, and a function that reads one of them.

  Raises:
    InputError: in the block and in the function: orbax cannot read it.
  """
  folder = epath.Path(os.path.abspath(step / STATE))
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    try:
      tree = reader.metadata(folder).item_metadata.tree
    except Exception as error:  # orbax and tensorstore raise many kinds
      raise InputError(f"{step}: state cannot be read: {error}") from error
    leaves = {
      path_of(path): leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }

    def read(wanted: str) -> np.ndarray:
      leaf = leaves[wanted]
      place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
      abstract = jax.ShapeDtypeStruct(
        leaf.shape, jnp.dtype(leaf.dtype), sharding=place
      )
      item = jax.tree_util.tree_map_with_path(
        lambda path, _: abstract if path_of(path) == wanted else _OTHER, tree
      )
      arguments = jax.tree.map(
        lambda x: (
          ocp.RestoreArgs()
          if x is _OTHER
          else ocp.ArrayRestoreArgs(
            sharding=place, global_shape=x.shape, dtype=x.dtype
          )
        ),
        item,
      )
      try:
        restored = reader.restore(
          folder,
          args=ocp.args.PyTreeRestore(item=item, restore_args=arguments),
        )
      except Exception as error:
        raise InputError(
          f"{step}: array {wanted} cannot be read: {error}"
        ) from error
      (array,) = (x for x in jax.tree.leaves(restored) if x is not _OTHER)
      return np.asarray(array)

    yield list(leaves), read


_OTHER = ocp.PLACEHOLDER  # of arrays that are not to be read
