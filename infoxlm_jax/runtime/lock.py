"""One process at a time trains in a run's folder."""

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import IO

import jax

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import distributed

LOCK = "run.lock"
# Held until the process ends; the system frees the locks of one that is killed.
_held: dict[str, IO[str]] = {}


def hold(folder: str | Path) -> None:
  """Holds the folder of a run until this process ends.

  Of a run of several processes the first one holds it. The lock is the
  system's (fcntl), which also works on NFS; the file says who has it.

  Raises:
    InputError: another process has it, in all processes of this run.
  """
  with distributed.together("locking MODEL_DIR"):
    if jax.process_index() == 0:
      hold_alone(Path(folder))


def hold_alone(folder: Path) -> None:
  """As `hold`, for process 0 where the others learn of its errors anyway."""
  path = folder / LOCK
  if str(path.resolve()) in _held:
    return
  try:
    file = open(path, "a+")  # noqa: SIM115
  except OSError as error:
    raise InputError(
      f"MODEL_DIR={str(folder)!r} cannot be written: {error}. Choose another."
    ) from None
  try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.seek(0)
    holder = file.read(1000).strip() or "another process"
    file.close()
    raise InputError(
      f"MODEL_DIR={str(folder)!r} is in use: {holder} trains in it. Wait until"
      " it is done, stop it, or choose another MODEL_DIR."
    ) from None
  except OSError:
    # A file system without locks: a run there is on its own.
    file.close()
    return
  file.seek(0)
  file.truncate()
  started = time.strftime("%Y-%m-%d %H:%M:%S")
  host = json.dumps(socket.gethostname())
  file.write(f"process {os.getpid()} on {host}, since {started}\n")
  file.flush()
  _held[str(path.resolve())] = file
