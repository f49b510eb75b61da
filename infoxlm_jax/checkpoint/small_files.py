"""orbax' handler of the small files of a checkpoint."""

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath  # type: ignore[import-untyped]

from infoxlm_jax.checkpoint.metadata import read_folder


class FilesHandler(ocp.AsyncCheckpointHandler):
  """Small files that belong to a checkpoint, written with it or not at all."""

  async def async_save(
    self, directory: epath.Path, args: "SaveFiles"
  ) -> list[ocp.future.Future]:
    """Writes them in a thread, as orbax writes the arrays.

    Only process 0 writes. Should that fail, it must not leave the others alone
    in the part of a save in which all wait for each other.
    """
    writes = asyncio.to_thread(self.save, directory, args)
    return [ocp.future.CommitFutureAwaitingContractedSignals(writes)]

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
