"""The folder that prepare works in: one process at a time, one request.

OUTPUT.partial/lock            held by the process that works here
OUTPUT.partial/request.json    what is prepared
OUTPUT.partial/work/           chunks, duplicates, records
OUTPUT.partial/output/         what becomes OUTPUT at the end
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infoxlm_jax.data.prepare.array_files import write_json
from infoxlm_jax.errors import InputError

REQUEST = "request.json"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
  """Holds the folder, made if it is not there, for this process alone.

  Raises:
    InputError: another process holds it, or it cannot be made.
  """
  path = folder / "lock"
  while True:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      file = path.open("a+")
    except OSError as error:
      raise InputError(
        f"cannot write into {folder}: {error.strerror}. Choose an output "
        "folder beside which can be written."
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
  """Makes the folder this request's, or checks that it is.

  Raises:
    InputError: it holds the work of another request, or something else.
  """
  path = folder / REQUEST
  if path.exists():
    try:
      found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
      found = {}
    if changed := differences(found, request):
      raise InputError(
        f"{folder} holds the unfinished work of another request: "
        f"{'; '.join(changed[:5])}. Nothing was changed. Start with the same "
        "settings and input to go on with it, remove that folder to begin "
        "anew, or choose another output folder."
      )
    return
  strangers = sorted({p.name for p in folder.iterdir()} - {"lock"})
  # A start that was killed before it wrote its request may leave a part.
  strangers = [n for n in strangers if not n.startswith(f".{REQUEST}.")]
  if strangers:
    raise InputError(
      f"{folder} holds something that is not prepare's ({strangers[0]}): move "
      "it away, or choose another output folder."
    )
  write_json(path, request)


def differences(found: Any, wanted: Any, where: str = "") -> list[str]:
  """What differs between two JSON values, a line each: 'seed was 1, is 0'."""
  if isinstance(found, Mapping) and isinstance(wanted, Mapping):
    out = []
    for key in [*found, *(k for k in wanted if k not in found)]:
      place = f"{where}.{key}" if where else str(key)
      out += differences(found.get(key), wanted.get(key), place)
    return out
  if isinstance(found, list) and isinstance(wanted, list):
    if len(found) == len(wanted):
      pairs = enumerate(zip(found, wanted, strict=True))
      return [
        line
        for i, (a, b) in pairs
        for line in differences(a, b, f"{where}[{i}]")
      ]
  if found == wanted:
    return []
  return [f"{where} was {_short(found)}, now it is {_short(wanted)}"]


def remove(folder: Path) -> None:
  """Removes the folder; what cannot be removed is left."""
  shutil.rmtree(folder, ignore_errors=True)


def _short(value: Any) -> str:
  text = json.dumps(value, ensure_ascii=False)
  return text if len(text) <= 120 else text[:117] + "..."
