"""starts.jsonl: each start of a run, with the settings that had changed.

Settings that make another run of it are refused (run_dir.claim). Others, such
as the learning rate, may change between two starts; each change is kept here.
One JSON object per line: {"time": "2026-01-31T12:00:00+0000", "changed":
{"PEAK_RATE": ["0.1", "0.2"]}, "settings": {"PEAK_RATE": "0.2", ...}}.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from infoxlm_jax.errors import StorageError
from infoxlm_jax.version import __version__

STARTS = "starts.jsonl"
_TAIL = 1 << 20  # bytes from the end in which the last line is looked for


def record(folder: str | Path, settings: Mapping[str, str]) -> list[str]:
  """Adds this start to starts.jsonl.

  Args:
    folder: the run's.
    settings: all of them by name, as text. The versions of this package and
      of jax are added.

  Returns:
    A sentence for each setting that differs from the start before.

  Raises:
    StorageError: the file cannot be read or written.
  """
  path = Path(folder) / STARTS
  now = {"infoxlm_jax": __version__, "jax": jax.__version__, **settings}
  try:
    with open(path, "ab+") as file:
      size = file.seek(0, os.SEEK_END)
      file.seek(max(size - _TAIL, 0))
      tail = file.read()
      last = _last_start(tail)
      before = now if last is None else last["settings"]
      changed = {
        name: [before.get(name), now.get(name)]
        for name in sorted(before | now)
        if before.get(name) != now.get(name)
      }
      start = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "changed": changed,
        "settings": now,
      }
      # A process that was killed while it wrote leaves part of a line.
      broken = b"" if not tail or tail.endswith(b"\n") else b"\n"
      file.write(broken + json.dumps(start).encode() + b"\n")
      file.flush()
      os.fsync(file.fileno())
  except OSError as error:
    raise StorageError(f"{path}: could not be written: {error}.") from error
  if last is None:
    damaged = f"{path}: no whole line; changed settings are not known."
    return [damaged] if tail else []
  return [
    f"{name} was {_text(old)} and is now {_text(new)}; the start before was at"
    f" {last['time']}."
    for name, (old, new) in changed.items()
  ]


def _last_start(tail: bytes) -> dict[str, Any] | None:
  """The last whole line; damaged ones are passed over."""
  for line in reversed(tail.split(b"\n")):
    try:
      start = json.loads(line)
    except (ValueError, RecursionError):
      continue
    if isinstance(start, dict) and isinstance(start.get("settings"), dict):
      return start | {"time": start.get("time", "a time that is not known")}
  return None


def _text(value: str | None) -> str:
  return "not set" if value is None else value
