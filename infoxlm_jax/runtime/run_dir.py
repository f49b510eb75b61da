"""The folder of a run: its identity, its data's hash, its environment."""

import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime import distributed, files, read_files
from infoxlm_jax.runtime.files import write_atomically
from infoxlm_jax.runtime.lock import LOCK, hold_alone
from infoxlm_jax.runtime.metrics import METRICS_FILE
from infoxlm_jax.runtime.redact import redacted
from infoxlm_jax.runtime.run_layout import find_step

IDENTITY = "identity.json"
DATA = "data.json"
ROWS = "rows.json"
# Each checkpoint of a run has a copy of these, from which they can be restored.
COPIED = (IDENTITY, DATA)
_PACKAGES = (
  "infoxlm-jax jax jaxlib flax optax orbax-checkpoint grain numpy sentencepiece"
)


def claim(
  folder: str | Path,
  identity: Mapping[str, Any],
  comparable: Callable[[Any], Any] = lambda setting: setting,
  copies: Mapping[str, bytes] | None = None,
) -> None:
  """Marks the folder as this run's, or checks that it already is.

  Args:
    folder: MODEL_DIR.
    identity: settings that must not change when a run is continued.
    comparable: leaves out of a setting what may change.
    copies: of the files COPIED, by name, as a checkpoint holds them. A file
      that differs from its copy is set aside and restored.

  Raises:
    InputError: the folder cannot be written, belongs to a run with another
      identity (the message lists the differences), or has other files in it;
      nothing is written then. Or it is not the same folder for all processes,
      which shows only after process 0 has written to it.
  """
  if "://" in str(folder):
    raise InputError(
      f"MODEL_DIR={str(folder)!r} is an address; a run needs a folder. Mount"
      " the bucket, or choose a folder of this machine."
    )
  with distributed.together("claiming MODEL_DIR"):
    if jax.process_index() == 0:
      _restore(Path(folder), copies or {})
      _claim(Path(folder), identity, comparable)
  distributed.check_shared(Path(folder), "MODEL_DIR")
  with distributed.together("checking MODEL_DIR"):
    if jax.process_index() > 0:
      _claim(Path(folder), identity, comparable)


def _restore(folder: Path, copies: Mapping[str, bytes]) -> None:
  """Makes the files of a run equal to the copies in its checkpoint."""
  for name in COPIED:
    path = folder / name
    if name not in copies or (path.is_file() and _is(path, copies[name])):
      continue
    problem = "is missing"
    if os.path.lexists(path):
      problem = f"is damaged, and is kept as {files.set_aside(path).name}"
    logging.warning("%s %s; restored from the checkpoint", path, problem)
    write_atomically(path, copies[name])


def _is(path: Path, content: bytes) -> bool:
  try:
    return read_files.read_bytes(path) == content
  except InputError:
    return False


def _claim(
  folder: Path,
  identity: Mapping[str, Any],
  comparable: Callable[[Any], Any],
) -> None:
  wanted = json.loads(json.dumps(dict(identity), default=str))
  mark = folder / IDENTITY
  if mark.exists():
    first = read_files.read_object(mark)
    differing = [
      f"{key} was {_short(first.get(key))} and is now {_short(wanted.get(key))}"
      for key in wanted | first
      if comparable(first.get(key)) != comparable(wanted.get(key))
    ]
    if differing and has_begun(folder):
      raise InputError(
        f"MODEL_DIR={str(folder)!r} holds another run: {'; '.join(differing)}."
        " Choose another MODEL_DIR, or the settings it was started with."
      )
    if not differing:
      return
    # There is no update yet: an earlier start stopped at bad input, and its
    # identity may be replaced.
  elif entries := _entries(folder):
    some = ", ".join(entries[:3])
    raise InputError(
      f"MODEL_DIR={str(folder)!r} is not empty and holds no run ({some}, ...)."
      " Choose a folder that is new or empty."
    )
  if jax.process_index() == 0:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      hold_alone(folder)  # a start that is still preparing keeps its identity
      write_atomically(mark, json.dumps(wanted, indent=2) + "\n")
    except (OSError, StorageError) as error:
      raise InputError(
        f"MODEL_DIR={str(folder)!r} cannot be written: {error}. Choose another."
      ) from None


def has_begun(folder: Path) -> bool:
  """Whether a run has logged an update or saved a checkpoint in the folder."""
  return (folder / METRICS_FILE).exists() or find_step(folder) is not None


def claim_data(folder: str | Path, manifest_sha256: str) -> None:
  """Writes the hash of a run's data, or checks that the data are unchanged.

  A run cannot continue exactly if other records are at the same path.

  Raises:
    InputError: the run began with other data.
  """
  path = Path(folder) / DATA
  if path.exists() and has_begun(Path(folder)):
    first = read_files.read_object(path, {"manifest_sha256": str})[
      "manifest_sha256"
    ]
    if first != manifest_sha256:
      raise InputError(
        f"MODEL_DIR={str(folder)!r}: the run began with the data of manifest"
        f" {first[:12]}, what DATA holds now is {manifest_sha256[:12]}: they"
        " were prepared again. Give the data of then; or begin a new run on"
        " these, with INIT_FROM set to this one."
      )
    return
  content = json.dumps({"manifest_sha256": manifest_sha256}) + "\n"
  write_atomically(path, content)


def write_environment(folder: str | Path) -> None:
  """Writes environment.json: versions, devices, command.

  Of the environment variables, which may hold secrets, only those few are
  written that change the computation; of the command, values that may be
  secret are left out.
  """
  versions: dict[str, str | None] = {}
  for name in _PACKAGES.split():
    try:
      versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      versions[name] = None
  shown = ("XLA_FLAGS", "JAX_PLATFORMS", "JAX_ENABLE_X64")
  environment = {
    "command": [Path(sys.argv[0]).name, *redacted(sys.argv[1:])],
    "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    "python": platform.python_version(),
    "platform": platform.platform(),
    "cpus": os.cpu_count(),
    "packages": versions,
    "devices": [str(device) for device in jax.devices()],
    "processes": jax.process_count(),
    "variables": {k: os.environ[k] for k in shown if k in os.environ},
  }
  write_atomically(
    Path(folder) / "environment.json", json.dumps(environment, indent=2) + "\n"
  )


def write_rows(
  folder: str | Path, streams: Mapping[str, Any], fits: Mapping[str, Any]
) -> None:
  """Writes rows.json: each stream's rows, and whether they were chosen.

  Args:
    folder: the run's folder.
    streams: by name; all have a number of rows.
    fits: the expected fill and share of cut items, for the streams whose rows
      were chosen from the data.
  """
  rows = {
    name: {
      "batch": stream.batch,
      "rows": stream.rows,
      "row_length": stream.row_length,
      "chosen": name in fits,
    }
    | (fits[name]._asdict() if name in fits else {})
    for name, stream in streams.items()
  }
  write_atomically(Path(folder) / ROWS, json.dumps(rows, indent=2) + "\n")


def _entries(folder: Path) -> list[str]:
  """Names in a folder, without partial files that a killed start left."""
  try:
    names = sorted(path.name for path in folder.iterdir())
  except FileNotFoundError:
    return []
  except OSError as error:
    raise InputError(
      f"MODEL_DIR={str(folder)!r} cannot be used: {error}. Choose another."
    ) from None
  own = (f".{IDENTITY}.", LOCK)
  return [name for name in names if not name.startswith(own)]


def _short(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) < 200 else text[:197] + "..."
