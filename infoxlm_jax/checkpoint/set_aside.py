"""Moves a damaged checkpoint out of the way."""

from pathlib import Path

from infoxlm_jax.errors import StorageError


def set_aside(step: Path) -> None:
  """Renames the folder of checkpoint n to damaged-n, or to damaged-n-2 etc.

  Raises:
    StorageError: it cannot be renamed.
  """
  number, target = 1, step.with_name(f"damaged-{step.name}")
  while target.exists():
    number += 1
    target = step.with_name(f"damaged-{step.name}-{number}")
  try:
    step.rename(target)
  except OSError as error:
    raise StorageError(
      f"{step}: is damaged and cannot be renamed: {error}"
    ) from error
