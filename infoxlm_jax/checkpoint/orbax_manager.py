"""Opens orbax' manager so that one process' failure stops a save in all."""

import contextlib
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath  # type: ignore[import-untyped]

from infoxlm_jax.checkpoint.retention import Retention
from infoxlm_jax.checkpoint.small_files import FilesHandler
from infoxlm_jax.runtime.barrier import Barrier

_UNFINISHED = ocp.path.atomicity.TMP_DIR_SUFFIX
_WRITER_SECONDS = 60


def open_manager(
  folder: Path, retention: Retention, number: int = 0
) -> ocp.CheckpointManager:
  """A manager of the checkpoints in a folder that exists.

  Opening it waits for no other process, so each may fail alone. A save has two
  parts. In the first, which is over when the manager's `save` returns, the
  processes wait for each other on the devices; nothing is written there. In
  the second, which runs in threads, all is written. There a process that fails
  breaks the barrier, and the save fails in all processes.

  Args:
    folder: of the checkpoints.
    retention: which of them to keep.
    number: how many managers this process has opened for this folder before.
      Folders of unfinished saves have it in their name, so that threads of a
      save that failed cannot write into those of the next.

  Raises:
    OSError: the folder cannot be read.
  """
  several = jax.process_count() > 1
  return ocp.CheckpointManager(
    epath.Path(os.path.abspath(folder)),
    options=ocp.CheckpointManagerOptions(
      preservation_policy=retention.policy(),
      # Without it metrics are not stored, and a restart forgets the best.
      best_fn=lambda metrics: next(iter(metrics.values())),
      cleanup_tmp_directories=not number,
      # With these two, opening would wait for the other processes.
      create=False,
      save_root_metadata=False,
      temporary_path_class=_unfinished(number) if number else None,
      async_options=ocp.AsyncOptions(
        barrier_sync_fn=Barrier() if several else None
      ),
    ),
    item_handlers={
      "state": ocp.StandardCheckpointHandler(),
      "files": FilesHandler(),
    },
  )


def remove_unfinished(folder: Path) -> None:
  """Removes what saves that failed have left, as far as that is possible."""
  for path in folder.glob(f"*{_UNFINISHED}*"):
    shutil.rmtree(path, ignore_errors=True)


def give_up(manager: ocp.CheckpointManager) -> None:
  """Closes a manager of which a save failed, in this or another process.

  Its threads may still write. They must be done in all processes before the
  folder of that save is removed: a write may wait for ever for what was there.
  """
  with contextlib.suppress(Exception):  # its error is known
    manager.close()
  for thread in threading.enumerate():
    if type(thread).__module__.startswith("orbax."):
      with contextlib.suppress(Exception):
        thread.join(_WRITER_SECONDS)


def cause(error: BaseException) -> BaseException:
  """The error that broke the barrier, where `error` is that of the barrier."""
  while isinstance(error, threading.BrokenBarrierError) and error.__context__:
    error = error.__context__
  return error


def _unfinished(number: int) -> type[ocp.path.atomicity_types.TemporaryPath]:
  """orbax' class of the folders of unfinished saves, with other names."""

  class Unfinished(ocp.path.atomicity.AtomicRenameTemporaryPath):
    @classmethod
    def from_final(cls, final_path: epath.Path, **options: Any) -> "Unfinished":
      name = f"{final_path.name}{_UNFINISHED}-{number}"
      return cls(final_path.parent / name, final_path, **options)

  return Unfinished
