"""Saves and restores the checkpoints of a run.

orbax writes one folder for each step and renames it when it is complete. It
does not notice a flipped bit in the arrays, so the checksum of every array is
stored with them and compared after a restore.
"""

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath  # type: ignore[import-untyped]
from jax.experimental import multihost_utils

from infoxlm_jax.checkpoint import checksum_file, late_callbacks
from infoxlm_jax.checkpoint.checksum_file import CHECKSUMS, Damaged
from infoxlm_jax.checkpoint.checksums import describe
from infoxlm_jax.checkpoint.layout import (
  Layout,
  check_same_arrays,
  in_stored_shapes,
)
from infoxlm_jax.checkpoint.metadata import verified
from infoxlm_jax.checkpoint.retention import Retention
from infoxlm_jax.checkpoint.small_files import (
  FilesHandler,
  RestoreFiles,
  SaveFiles,
)
from infoxlm_jax.errors import InputError, StorageError


class Checkpoints:
  """The checkpoints of one run: <folder>/<step>/{state,files}.

  Args:
    folder: made if missing.
    retention: which of them to keep.

  Raises:
    InputError: the folder cannot be used.
  """

  def __init__(self, folder: str | Path, retention: Retention | None = None):
    self.folder = Path(folder)
    late_callbacks.silence()
    self._retention = retention or Retention()
    try:
      # orbax makes it in a thread and only logs an error there.
      self.folder.mkdir(parents=True, exist_ok=True)
      self._manager = ocp.CheckpointManager(
        epath.Path(os.path.abspath(self.folder)),
        options=ocp.CheckpointManagerOptions(
          preservation_policy=self._retention.policy(),
          # Without it metrics are not stored, and a restart forgets the best.
          best_fn=lambda metrics: next(iter(metrics.values())),
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

    A save that fails, or one before it that failed in the background, is
    tried once more, with this state; not where there are several processes,
    of which one may fail alone.

    Args:
      state: a TrainState of arrays.
      files: small files by name, stored with their hashes.
      metric: see Retention. With None, NaN or infinity the checkpoint is never
        one of the best.
      wait: return only when the checkpoint is on disk.

    Raises:
      StorageError: the save failed, twice where it was tried again.
    """
    step = int(state.step)
    files = dict(files) | {CHECKSUMS: checksum_file.make(state, files)}
    for is_retry in (False, True):
      try:
        if is_retry:
          self._manager.reload()  # else orbax counts it as saved
        self._save(step, state, files, metric, wait)
        return
      except Exception as error:  # orbax wraps storage failures in its own
        problem = f"{self.folder}: checkpoint {step} could not be written"
        if is_retry or jax.process_count() > 1:
          raise StorageError(f"{problem}: {error}") from error
        logging.warning("%s (%s); trying once more", problem, error)

  def _save(
    self,
    step: int,
    state: Any,
    files: Mapping[str, bytes],
    metric: float | None,
    wait: bool,
  ) -> None:
    saved = self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state), files=SaveFiles(files)
      ),
      metrics=self._retention.stored(metric),
      force=True,
    )
    if wait:
      self._manager.wait_until_finished()
    self._manager.check_for_errors()
    if not saved:
      raise RuntimeError("orbax declined it")

  def restore(
    self,
    abstract: Any,
    resizable: Collection[str] = (),
    before: int | None = None,
  ) -> tuple[Any, dict[str, bytes]] | None:
    """Restores the newest intact checkpoint.

    Newer ones that are damaged are renamed to damaged-<step>: the run repeats
    their updates and saves those steps again.

    Args:
      abstract: the state's shapes, dtypes and shardings.
      resizable: paths of arrays that are restored in their stored shape
        where only the leading dimensions differ (see state.resized).
      before: only of steps below this one; later ones are set aside.

    Returns:
      The state, and the small files by name; None if there is no checkpoint.

    Raises:
      InputError: the arrays belong to another model, or every checkpoint is
        damaged.
      StorageError: a damaged checkpoint cannot be renamed.
    """
    steps, messages = self.steps(), []
    wanted = [s for s in steps if before is None or s < before]
    for step in reversed(wanted):
      try:
        restored = self._restore_step(step, abstract, resizable)
      except Damaged as damage:
        logging.warning("%s; trying the one before it", damage)
        messages.append(str(damage))
      else:
        self._set_aside([other for other in steps if other > step])
        return restored
    if wanted:
      raise InputError(
        f"{self.folder}: none of the checkpoints {wanted} is intact:"
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
    sums = checksum_file.read(files, where)
    layout = Layout(sums, abstract)
    del files[CHECKSUMS]
    abstract = in_stored_shapes(abstract, layout.arrays, resizable)
    try:
      check_same_arrays(abstract, layout.arrays, where)
    except InputError as error:
      if sums.is_checked:
        raise
      # A list without a checksum of its own may have a flipped bit there.
      raise Damaged(str(error)) from error
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
    """Waits as `wait` does, then closes orbax' manager.

    Raises:
      StorageError: see `wait`; or closing failed, where orbax may raise once
        more what a save ended with.
    """
    try:
      self.wait()
    finally:
      try:
        self._manager.close()
      except Exception as error:
        raise StorageError(
          f"{self.folder}: a checkpoint could not be written: {error}"
        ) from error

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    try:
      self.close()
    except StorageError as failure:
      if error is None:
        raise
      logging.warning("%s", failure)  # must not hide the first error
