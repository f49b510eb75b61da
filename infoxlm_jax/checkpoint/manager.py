"""Saves and restores the checkpoints of a run.

orbax writes one folder for each step and renames it when it is complete. It
does not notice a flipped bit in the arrays, so the checksum of every array is
stored with them and compared after a restore.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
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
from infoxlm_jax.checkpoint.orbax_manager import (
  cause,
  give_up,
  open_manager,
  remove_unfinished,
)
from infoxlm_jax.checkpoint.retention import Retention
from infoxlm_jax.checkpoint.set_aside import set_aside
from infoxlm_jax.checkpoint.small_files import RestoreFiles, SaveFiles
from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime import distributed


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
    self._opened = 0
    try:
      self._manager = self._open()
    except OSError as error:
      raise InputError(
        f"{folder}: cannot be used for checkpoints: {error}"
      ) from None

  def _open(self) -> ocp.CheckpointManager:
    self.folder.mkdir(parents=True, exist_ok=True)
    manager = open_manager(self.folder, self._retention, self._opened)
    self._opened += 1
    return manager

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

    A save that fails, or one before it that failed in the background, is tried
    once more, with this state, and waited for; in all processes if one fails.

    Args:
      state: a TrainState of arrays.
      files: small files by name, stored with their hashes.
      metric: see Retention. With None, NaN or infinity it is never a best one.
      wait: return only when the checkpoint is on disk.

    Raises:
      StorageError: the save failed twice; in all processes.
    """
    step = int(state.step)
    files = dict(files) | {CHECKSUMS: checksum_file.make(state, files)}
    for is_retry in (False, True):
      try:
        if is_retry:
          self._reopen()
        else:
          self._finish()
        self._save(step, state, files, metric)
        if wait or is_retry:
          self._finish()
        return
      except Exception as error:  # orbax wraps storage failures in its own
        several = jax.process_count() > 1
        if several and isinstance(error, jax.errors.JaxRuntimeError):
          raise  # a process is lost
        problem = f"{self.folder}: checkpoint {step} could not be written"
        # In several processes all know of a StorageError. Any other error may
        # be of this one alone, while the others wait for it in orbax.
        is_known = not several or isinstance(error, StorageError)
        if is_retry or not is_known:
          raise StorageError(f"{problem}: {error}") from error
        logging.warning("%s (%s); trying once more", problem, error)

  def _save(
    self,
    step: int,
    state: Any,
    files: Mapping[str, bytes],
    metric: float | None,
  ) -> None:
    """Begins a save; see orbax_manager.open_manager."""
    state_args = ocp.args.StandardSave(state)
    args = ocp.args.Composite(state=state_args, files=SaveFiles(files))
    metrics = self._retention.stored(metric)
    if not self._manager.save(step, args=args, metrics=metrics, force=True):
      raise RuntimeError("orbax declined it")

  def _finish(self) -> None:
    """Waits for the save in the background; fails if one process' part did."""
    with distributed.together("saving a checkpoint"):
      try:
        self._manager.wait_until_finished()
        self._manager.check_for_errors()
      except Exception as error:
        raise StorageError(str(cause(error))) from error

  def _reopen(self) -> None:
    """Opens a manager that knows nothing of the save that failed."""
    with distributed.together("giving up a save"):
      give_up(self._manager)
    with distributed.together("opening the checkpoints once more"):
      try:
        if jax.process_index() == 0:
          remove_unfinished(self.folder)
        self._manager = self._open()
      except Exception as error:
        raise StorageError(str(error)) from error

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
        set_aside(self.folder / str(step))
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
    """Waits until all saves are on disk, in all processes.

    Raises:
      StorageError: a save in the background failed; in all processes.
    """
    try:
      self._finish()
    except StorageError as error:
      raise StorageError(f"{self._failed()}: {error}") from error

  def close(self) -> None:
    """Waits as `wait` does, then closes orbax' manager.

    Raises:
      StorageError: see `wait`; or closing failed.
    """
    try:
      self.wait()
    finally:
      try:
        self._manager.close()
      except Exception as error:
        raise StorageError(f"{self._failed()}: {error}") from error

  def _failed(self) -> str:
    return f"{self.folder}: a checkpoint could not be written"

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    if error is None:
      self.close()
      return
    # The other processes may not have failed, so nothing is exchanged.
    for end in (self._manager.wait_until_finished, self._manager.close):
      try:
        end()
      except Exception as failure:  # must not hide the first error
        logging.warning("%s: %s", self._failed(), cause(failure))
