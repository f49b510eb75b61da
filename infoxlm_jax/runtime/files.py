"""Files that appear whole or not at all."""

import contextlib
import os
from pathlib import Path

from infoxlm_jax.errors import StorageError


def write_atomically(path: str | os.PathLike[str], text: str) -> None:
  """Writes a text file so that readers see the old or the new, never half.

  Raises:
    StorageError: the file could not be written.
  """
  path = Path(path)
  part = path.with_name(f".{path.name}.{os.getpid()}.part")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "w", encoding="utf-8") as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(part, path)
  except OSError as error:
    with contextlib.suppress(OSError):
      part.unlink(missing_ok=True)
    raise StorageError(f"{path}: could not be written: {error}.") from error
