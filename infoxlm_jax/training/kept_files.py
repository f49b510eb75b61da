"""Copies of small files of a run, which its checkpoints hold with hashes."""

from pathlib import Path

from infoxlm_jax.checkpoint import metadata
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import read_files, run_dir
from infoxlm_jax.runtime.run_layout import CHECKPOINTS


def to_copy(folder: Path) -> dict[str, bytes]:
  """The files of a run of which its checkpoints get copies, by name."""
  return {
    name: read_files.read_bytes(folder / name)
    for name in run_dir.COPIED
    if (folder / name).is_file()
  }


def newest_copies(folder: Path) -> dict[str, bytes]:
  """The copies in the newest checkpoint of a run whose small files are whole.

  Args:
    folder: the run's; it is only read.

  Returns:
    Contents by name; {} without a checkpoint, or if an older version of this
    package saved it.
  """
  try:
    steps = [
      path for path in (folder / CHECKPOINTS).iterdir() if path.name.isdecimal()
    ]
  except OSError:
    return {}
  for step in sorted(steps, key=lambda path: int(path.name), reverse=True):
    try:
      files = metadata.read_step_files(step)
    except InputError:  # damaged; restoring the state says so
      continue
    return {name: files[name] for name in run_dir.COPIED if name in files}
  return {}
