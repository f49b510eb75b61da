"""Where the files of a run and of its checkpoints are."""

import os
from pathlib import Path

from infoxlm_jax.errors import InputError

CHECKPOINTS = "checkpoints"  # of a run: a folder for each step
RESULTS = "results.json"  # of a run: what its evaluation measured
START = "start.json"  # of a run: what was measured before the first update
STATE, FILES = "state", "files"  # the two parts of a checkpoint's folder


def find_step(path: Path) -> Path | None:
  """Returns the folder of one checkpoint, or None if there is none.

  Args:
    path: a checkpoint's folder, or a folder of checkpoints or of a run, of
      which the newest checkpoint is taken.

  Raises:
    InputError: a folder cannot be listed.
  """
  # Of names that no file can have os.path says False, where Path raises.
  if os.path.isdir(path / STATE) and os.path.isdir(path / FILES):
    return path
  for folder in (path, path / CHECKPOINTS):
    if not os.path.isdir(folder):
      continue
    try:
      steps = [int(p.name) for p in folder.iterdir() if p.name.isdecimal()]
    except OSError as error:
      raise InputError(f"{folder}: cannot be looked into: {error}") from None
    for step in sorted(steps, reverse=True):
      if (newest := find_step(folder / str(step))) is not None:
        return newest
  return None
