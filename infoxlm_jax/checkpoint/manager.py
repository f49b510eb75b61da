"""Saves and restores the checkpoints of a run.

orbax writes one folder for each step and renames it when it is complete. It
does not notice a flipped bit in the arrays, so the checksum of every array is
stored with them and compared after a restore.
"""

import dataclasses
import logging
import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath  # type: ignore[import-untyped]
from jax.experimental import multihost_utils

from infoxlm_jax.checkpoint.checksums import describe
from infoxlm_jax.checkpoint.layout import Layout, in_stored_shapes
from infoxlm_jax.checkpoint.metadata import (
  CHECKSUMS,
  Damaged,
  checksums,
  read_folder,
  verified,
)
from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.model.partitioning import path_of

_METRIC = "best"
_policy = ocp.checkpoint_managers


class FilesHandler(ocp.CheckpointHandler):
  """Small files that belong to a checkpoint, written with it or not at all."""

  def save(self, directory: epath.Path, args: "SaveFiles") -> None:
    if jax.process_index() == 0:
      for name, content in args.files.items():
        (directory / name).write_bytes(content)

  def restore(
    self, directory: epath.Path, args: Any = None
  ) -> dict[str, bytes]:
    del args
    return read_folder(Path(directory))


@ocp.args.register_with_handler(FilesHandler, for_save=True)
@dataclasses.dataclass
class SaveFiles(ocp.args.CheckpointArgs):
  """The argument of FilesHandler.save: contents by name."""

  files: Mapping[str, bytes]


@ocp.args.register_with_handler(FilesHandler, for_restore=True)
@dataclasses.dataclass
class RestoreFiles(ocp.args.CheckpointArgs):
  """The argument of FilesHandler.restore, which returns all files."""


class Checkpoints:
  """The checkpoints of one run: <folder>/<step>/{state,files}.

  Args:
    folder: made if missing.
    keep_latest: number of newest checkpoints to keep.
    keep_best: number of best checkpoints (by the metric given to `save`) to
      keep in addition. With one rule for both, the newest would be deleted
      when it is worse. Of two with the same metric the later is better.

  Raises:
    InputError: the folder cannot be used, or keep_latest is below 1.
  """

  def __init__(
    self, folder: str | Path, keep_latest: int = 3, keep_best: int = 1
  ):
    self.folder = Path(folder)
    if keep_latest < 1 or keep_best < 0:
      raise InputError(
        f"keep_latest = {keep_latest}, keep_best = {keep_best}: keep at least"
        " the newest checkpoint"
      )
    policies = [_policy.LatestN(keep_latest)]
    if keep_best:
      policies.append(
        _policy.BestN(
          get_metric_fn=_metric_of,
          n=keep_best,
          keep_checkpoints_without_metrics=False,
        )
      )
    try:
      # orbax makes it in a thread and only logs an error there.
      self.folder.mkdir(parents=True, exist_ok=True)
      self._manager = ocp.CheckpointManager(
        epath.Path(os.path.abspath(self.folder)),
        options=ocp.CheckpointManagerOptions(
          preservation_policy=_policy.AnyPreservationPolicy(policies),
          # Without it metrics are not stored, and a restart forgets the best.
          best_fn=_metric_of,
          cleanup_tmp_directories=True,
        ),
        item_handlers={
          "state": ocp.StandardCheckpointHandler(),
          "files": FilesHandler(),
        },
      )
    except OSError as error:
      raise InputError(
        f"{folder}: cannot be used for checkpoints: {error}"
      ) from None

  def steps(self) -> list[int]:
    """Steps of the checkpoints in the folder, the oldest first."""
    return sorted(self._manager.all_steps())

  def save(
    self,
    state: Any,
    files: Mapping[str, bytes],
    *,
    metric: float | None = None,
    wait: bool = False,
  ) -> None:
    """Saves state at step state.step, in the background unless `wait`.

    Args:
      state: a TrainState of arrays.
      files: small files by name, stored with their hashes.
      metric: higher is better. With None, NaN or infinity the checkpoint is
        never one of the best.
      wait: return only when the checkpoint is on disk.

    Raises:
      StorageError: this save, or an earlier one in the background, failed.
    """
    step = int(state.step)
    files = dict(files) | {CHECKSUMS: checksums(state, files)}
    finite = metric is not None and math.isfinite(metric)
    try:
      saved = self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state), files=SaveFiles(files)
        ),
        metrics={_METRIC: metric} if finite else None,
        force=True,
      )
      if wait:
        self._manager.wait_until_finished()
      self._manager.check_for_errors()
      if not saved:
        raise RuntimeError("orbax declined it")
    except Exception as error:  # orbax wraps storage failures in its own
      raise StorageError(
        f"{self.folder}: checkpoint {step} could not be written: {error}"
      ) from error

  def restore(
    self, abstract: Any, resizable: Collection[str] = ()
  ) -> tuple[Any, dict[str, bytes]] | None:
    """Restores the newest intact checkpoint.

    Newer ones that are damaged are renamed to damaged-<step>: the run repeats
    their updates and saves those steps again.

    Args:
      abstract: the state's shapes, dtypes and shardings.
      resizable: paths of arrays that are restored in their stored shape
        where only the leading dimensions differ (see state.resized).

    Returns:
      The state, and the small files by name; None if there is no checkpoint.

    Raises:
      InputError: the arrays belong to another model, or every checkpoint is
        damaged.
      StorageError: a damaged checkpoint cannot be renamed.
    """
    steps, messages = self.steps(), []
    for step in reversed(steps):
      try:
        restored = self._restore_step(step, abstract, resizable)
      except Damaged as damage:
        logging.warning("%s; trying the one before it", damage)
        messages.append(str(damage))
      else:
        self._set_aside([other for other in steps if other > step])
        return restored
    if steps:
      raise InputError(
        f"{self.folder}: none of the checkpoints {steps} is intact:"
        f" {'; '.join(messages)}"
      )
    return None

  def _set_aside(self, steps: Sequence[int]) -> None:
    if not steps:
      return
    if jax.process_index() == 0:
      for step in steps:
        number, target = 1, self.folder / f"damaged-{step}"
        while target.exists():
          number += 1
          target = self.folder / f"damaged-{step}-{number}"
        try:
          (self.folder / str(step)).rename(target)
        except OSError as error:
          raise StorageError(
            f"{self.folder / str(step)}: is damaged and cannot be renamed:"
            f" {error}"
          ) from error
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices("damaged checkpoints set aside")
    self._manager.reload()

  def read_files(self, step: int) -> dict[str, bytes]:
    """The small files of one checkpoint by name, verified.

    Raises:
      Damaged: a file is missing, or differs from the saved one.
    """
    where = f"{self.folder / str(step)}"
    try:
      files = self._manager.restore(
        step, args=ocp.args.Composite(files=RestoreFiles())
      )["files"]
    except Exception as error:
      raise Damaged(f"{where}: its files cannot be read: {error}") from error
    return verified(files, where)

  def _restore_step(
    self, step: int, abstract: Any, resizable: Collection[str]
  ) -> tuple[Any, dict[str, bytes]]:
    where = f"{self.folder / str(step)}"
    files = self.read_files(step)
    layout = Layout(files, abstract)
    del files[CHECKSUMS]
    abstract = in_stored_shapes(abstract, layout.arrays, resizable)
    wanted = {
      path_of(path): [list(leaf.shape), str(leaf.dtype)]
      for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
    }
    for name in wanted | layout.arrays:
      entry = layout.arrays.get(name)
      have = entry and [entry["shape"], entry["dtype"]]
      if wanted.get(name) != have:
        raise InputError(
          f"{where}: {name} is {_in_words(have)} in the checkpoint and"
          f" {_in_words(wanted.get(name))} in this run's configuration; it"
          " belongs to another model or optimiser"
        )
    try:
      state = self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardRestore(layout.to_stored(abstract))
        ),
      )["state"]
    except Exception as error:
      raise Damaged(f"{where}: cannot be read: {error}") from error
    state = layout.from_stored(state, abstract)
    bad = [
      name
      for name, entry in describe(state).items()
      if entry["sum"] != layout.arrays[name]["sum"]
    ]
    if bad:
      raise Damaged(
        f"{where}: array {', '.join(bad[:3])} is not what was saved (its"
        " checksum differs)"
      )
    return state, files

  def wait(self) -> None:
    """Waits until all saves are on disk.

    Raises:
      StorageError: a save in the background failed.
    """
    try:
      self._manager.wait_until_finished()
    except Exception as error:
      raise StorageError(
        f"{self.folder}: a checkpoint could not be written: {error}"
      ) from error

  def close(self) -> None:
    """Waits as `wait` does, then closes orbax' manager."""
    try:
      self.wait()
    finally:
      self._manager.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    try:
      self.close()
    except StorageError as failure:
      if error is None:
        raise
      logging.warning("%s", failure)  # must not hide the first error


def _metric_of(metrics: Mapping[str, float]) -> float:
  return metrics[_METRIC]


def _in_words(shape_and_dtype: Sequence[Any] | None) -> str:
  if shape_and_dtype is None:
    return "absent"
  shape, dtype = shape_and_dtype
  return f"{dtype}{shape}"
