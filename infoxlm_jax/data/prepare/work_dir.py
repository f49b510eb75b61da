"""The folder that prepare works in, for one process and one request.

OUTPUT.partial/lock            held by the process that works here
OUTPUT.partial/request.json    the request (request.py)
OUTPUT.partial/work/           files of the phases (plan.py)
OUTPUT.partial/output/         becomes OUTPUT at the end
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infoxlm_jax.data.prepare.array_files import write_json
from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime import read_files

REQUEST = "request.json"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
  """Locks the folder, which is made if missing, for this process alone.

  Raises:
    InputError: another process has locked it, or it cannot be made.
  """
  path = folder / "lock"
  while True:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      file = path.open("a+")
    except OSError as error:
      raise InputError(
        f"cannot write into {folder}: {error.strerror}. Choose an output "
        "folder whose parent can be written."
      ) from error
    with file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except OSError as error:
        file.seek(0)
        raise InputError(
          f"another process (pid {file.read().strip() or 'unknown'}) is "
          f"preparing into {folder}. Wait for it, stop it, or choose another "
          "output folder."
        ) from error
      if not _same_file(path, file.fileno()):
        continue  # the other process finished and removed the folder
      file.truncate(0)
      file.write(f"{os.getpid()}\n")
      file.flush()
      yield
      return


def _same_file(path: Path, descriptor: int) -> bool:
  try:
    return os.path.samestat(path.stat(), os.fstat(descriptor))
  except OSError:
    return False


def claim(folder: Path, request: Mapping[str, Any]) -> None:
  """Writes the request into an empty folder, or checks the one that is there.

  Raises:
    InputError: the folder holds the work of another request, or other files.
  """
  path = folder / REQUEST
  if path.exists():
    try:
      earlier = read_files.read_json(path)
    except InputError:
      earlier = {}
    if changed := differences(earlier, request):
      raise InputError(
        f"{folder} holds the unfinished work of another request: "
        f"{'; '.join(changed[:5])}. Nothing was changed. Start with the same "
        "settings and input to continue it, remove that folder to begin "
        "again, or choose another output folder."
      )
    return
  strangers = sorted({p.name for p in folder.iterdir()} - {"lock"})
  # A process that was killed while it wrote its request leaves a part of it.
  strangers = [n for n in strangers if not n.startswith(f".{REQUEST}.")]
  if strangers:
    raise InputError(
      f"{folder} holds something that is not prepare's ({strangers[0]}): move "
      "it away, or choose another output folder."
    )
  write_json(path, request)


def differences(earlier: Any, now: Any, where: str = "") -> list[str]:
  """The differences between two JSON values: 'seed was 1, now it is 0'."""
  if isinstance(earlier, Mapping) and isinstance(now, Mapping):
    out = []
    for key in [*earlier, *(k for k in now if k not in earlier)]:
      place = f"{where}.{key}" if where else str(key)
      out += differences(earlier.get(key), now.get(key), place)
    return out
  if isinstance(earlier, list) and isinstance(now, list):
    if len(earlier) == len(now):
      pairs = enumerate(zip(earlier, now, strict=True))
      return [
        line
        for i, (a, b) in pairs
        for line in differences(a, b, f"{where}[{i}]")
      ]
  if earlier == now:
    return []
  return [f"{where} was {_short(earlier)}, now it is {_short(now)}"]


@contextlib.contextmanager
def storage_errors(partial: Path) -> Iterator[None]:
  """Turns errors of the disk into StorageErrors that say what to do."""
  try:
    yield
  except (OSError, StorageError) as error:
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
      raise
    try:
      free = f"{shutil.disk_usage(partial).free / 1e9:.1f} GB are free there. "
    except OSError:
      free = ""
    raise StorageError(
      f"preparing in {partial} failed: {error}. {free}Finished work is kept: "
      "start again to continue."
    ) from error


def remove(folder: Path) -> None:
  """Removes the folder; files that cannot be removed are left."""
  shutil.rmtree(folder, ignore_errors=True)


def _short(value: Any) -> str:
  text = json.dumps(value, ensure_ascii=False)
  return text if len(text) <= 120 else text[:117] + "..."
