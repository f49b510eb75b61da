"""Several processes as one run: starting them, and waiting for each other."""

import jax

from infoxlm_jax.errors import InputError

_WAIT_SECONDS = 60


def start(setting: str) -> None:
  """Joins the other processes of the run; before any other use of jax.

  Args:
    setting: "" for one process; "auto" where a TPU pod, Slurm or the like
      says who the others are; or "HOST:PORT,COUNT,NUMBER", the address of
      process 0, how many there are, and which one this is.

  Raises:
    InputError: another form, or not all processes came within a minute.
  """
  if not setting:
    return
  options: dict[str, object] = {}
  if setting != "auto":
    parts = setting.split(",")
    if len(parts) != 3 or not all(part.isdigit() for part in parts[1:]):
      raise InputError(
        f"--distributed={setting}: give auto, or HOST:PORT,COUNT,NUMBER such"
        " as 10.0.0.1:8476,2,0"
      )
    options = {
      "coordinator_address": parts[0],
      "num_processes": int(parts[1]),
      "process_id": int(parts[2]),
    }
  try:
    jax.distributed.initialize(
      initialization_timeout=_WAIT_SECONDS,
      **options,  # type: ignore[arg-type]
    )
  except (RuntimeError, ValueError) as error:
    raise InputError(
      f"--distributed={setting}: not all processes came together within"
      f" {_WAIT_SECONDS} s ({error}). Start the same command on every host."
    ) from None


def meet(where: str) -> None:
  """Waits until every process of the run is here."""
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(where)
