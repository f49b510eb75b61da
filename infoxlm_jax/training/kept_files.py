"""Small files of a run: their copies in its checkpoints, and their damage."""

from pathlib import Path

from infoxlm_jax.checkpoint import metadata
from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime import json_crc, read_files, run_dir
from infoxlm_jax.runtime.metrics import METRICS_FILE, read_metrics
from infoxlm_jax.runtime.run_layout import CHECKPOINTS, RESULTS, START


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
  _, files = _newest_files(folder)
  return {name: files[name] for name in run_dir.COPIED if name in files}


def damage(folder: Path) -> list[str]:
  """What is wrong with the small files of a run, a sentence each; [] if intact.

  Files without a checksum, of older versions, are only parsed.

  Args:
    folder: the run's; it is only read.
  """
  step, files = _newest_files(folder)
  problems = []
  for name in run_dir.COPIED:
    if name in files and not _is(folder / name, files[name]):
      problems.append(
        f"{folder / name} differs from its copy in checkpoint {step}"
      )
  try:
    for name in (RESULTS, START):
      if (folder / name).exists():
        json_crc.read_checked(folder / name)
  except InputError as error:
    problems.append(str(error))
  try:
    rows = read_metrics(folder)
  except (InputError, StorageError) as error:
    return [*problems, str(error)]
  if metadata.POSITION in files:
    lost = metadata.Position.read(files).metric_lines
    lost -= sum(row["step"] <= step for row in rows)
    if lost > 0:
      problems.append(
        f"{folder / METRICS_FILE}: {lost} lines up to update {step} are missing"
      )
  return problems


def _newest_files(folder: Path) -> tuple[int, dict[str, bytes]]:
  """Step and small files of the newest checkpoint where these are whole."""
  try:
    steps = [
      path for path in (folder / CHECKPOINTS).iterdir() if path.name.isdecimal()
    ]
  except OSError:
    return 0, {}
  for step in sorted(steps, key=lambda path: int(path.name), reverse=True):
    try:
      return int(step.name), metadata.read_step_files(step)
    except InputError:  # damaged; restoring the state says so
      continue
  return 0, {}


def _is(path: Path, content: bytes) -> bool:
  try:
    return read_files.read_bytes(path) == content
  except InputError:
    return False
