"""The folder of a run: whose it is, and in what environment it ran."""

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime import distributed
from infoxlm_jax.runtime.files import write_atomically
from infoxlm_jax.runtime.metrics import METRICS_FILE

IDENTITY = "identity.json"
DATA = "data.json"
ROWS = "rows.json"
_PACKAGES = (
  "infoxlm-jax jax jaxlib flax optax orbax-checkpoint grain numpy sentencepiece"
)


def claim(folder: str | Path, identity: Mapping[str, Any]) -> None:
  """Makes the folder this run's, or checks that it already is.

  Args:
    folder: MODEL_DIR.
    identity: what must not change between two starts of one run.

  Raises:
    InputError: the folder cannot be written, is not the same one for all
      processes (that is found after the claim), belongs to a run with another
      identity (the message lists what differs), or holds something that is
      no run. Nothing is written then.
  """
  if "://" in str(folder):
    raise InputError(
      f"MODEL_DIR={str(folder)!r} is an address; a run needs a folder. Mount"
      " the bucket, or choose a folder of this machine."
    )
  with distributed.together("claiming MODEL_DIR"):
    if jax.process_index() == 0:
      _claim(Path(folder), identity)
  distributed.check_shared(Path(folder), "MODEL_DIR")
  with distributed.together("checking MODEL_DIR"):
    if jax.process_index() > 0:
      _claim(Path(folder), identity)


def _claim(folder: Path, identity: Mapping[str, Any]) -> None:
  wanted = json.loads(json.dumps(dict(identity), default=str))
  mark = folder / IDENTITY
  if mark.exists():
    try:
      found = json.loads(mark.read_text())
    except (OSError, ValueError) as error:
      raise InputError(
        f"{mark}: cannot be read ({error}); choose another MODEL_DIR"
      ) from None
    differing = [
      f"{key} was {_short(found.get(key))} and is now {_short(wanted.get(key))}"
      for key in wanted | found
      if found.get(key) != wanted.get(key)
    ]
    if differing and (folder / METRICS_FILE).exists():
      raise InputError(
        f"MODEL_DIR={str(folder)!r} holds another run: {'; '.join(differing)}."
        " Choose another MODEL_DIR, or the settings it was started with."
      )
    if not differing:
      return
    # No update was ever logged: the start before stopped at bad input, and
    # this one puts it right.
  elif found := _entries(folder):
    some = ", ".join(found[:3])
    raise InputError(
      f"MODEL_DIR={str(folder)!r} is not empty and holds no run ({some}, ...)."
      " Choose a folder that is new or empty."
    )
  if jax.process_index() == 0:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      write_atomically(mark, json.dumps(wanted, indent=2) + "\n")
    except (OSError, StorageError) as error:
      raise InputError(
        f"MODEL_DIR={str(folder)!r} cannot be written: {error}. Choose another."
      ) from None


def claim_data(folder: str | Path, manifest_sha256: str) -> None:
  """Keeps the hash of a run's data, or checks that they are still the same.

  With other records behind the same path a run could not go on where it was.

  Raises:
    InputError: the run has begun with others.
  """
  path = Path(folder) / DATA
  if path.exists() and (Path(folder) / METRICS_FILE).exists():
    found = json.loads(path.read_text())["manifest_sha256"]
    if found != manifest_sha256:
      raise InputError(
        f"MODEL_DIR={str(folder)!r}: the run began with the data of manifest"
        f" {found[:12]}, what DATA holds now is {manifest_sha256[:12]}: they"
        " were prepared again. Give the data of then; or begin a new run on"
        " these, with INIT_FROM set to this one."
      )
    return
  content = json.dumps({"manifest_sha256": manifest_sha256}) + "\n"
  write_atomically(path, content)


def write_environment(folder: str | Path) -> None:
  """Writes environment.json: versions, devices, command.

  No environment variables, which may hold secrets, except the few that change
  the computation.
  """
  versions: dict[str, str | None] = {}
  for name in _PACKAGES.split():
    try:
      versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      versions[name] = None
  shown = ("XLA_FLAGS", "JAX_PLATFORMS", "JAX_ENABLE_X64")
  environment = {
    "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
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
  """Writes rows.json: the rows of each stream, and how they came about.

  Args:
    folder: the run's.
    streams: with their rows.
    fits: fill and cut share expected of those whose rows were chosen.
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
  """What stands in a folder, without what a killed start may leave."""
  try:
    names = sorted(path.name for path in folder.iterdir())
  except FileNotFoundError:
    return []
  except OSError as error:
    raise InputError(
      f"MODEL_DIR={str(folder)!r} cannot be used: {error}. Choose another."
    ) from None
  return [name for name in names if not name.startswith(f".{IDENTITY}.")]


def _short(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) < 200 else text[:197] + "..."
