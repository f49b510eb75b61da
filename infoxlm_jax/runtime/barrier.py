"""A barrier of all processes that breaks where one process leaves it out."""

import itertools
import threading
from typing import Any

import jax
from jax._src import distributed  # as orbax does: no public access to it

_numbers = itertools.count()


class Barrier:
  """As threading.Barrier, but for the processes of a run; it can break.

  All processes make the same barriers in the same order. At each call a
  process tells its name of the place, and waits for the others. Where the
  names differ, a process has failed and left out a place at which the others
  wait. Then the barrier is broken: this call and all later ones fail in every
  process, so that none waits for the time limit.

  It exchanges messages with jax's coordination service, not with the devices,
  so a thread may call it while the devices compute. Of several threads only
  one calls it at a time.
  """

  def __init__(self) -> None:
    self._client: Any = distributed.global_state.client
    self._name = f"infoxlm_jax/barrier/{next(_numbers)}"
    self._calls = 0
    self._broken = ""

  def __call__(self, *, key: str, timeout_ms: int) -> None:
    """Waits for all processes.

    Args:
      key: the name of the place.
      timeout_ms: the most milliseconds to wait.

    Raises:
      threading.BrokenBarrierError: the barrier is broken.
      jax.errors.JaxRuntimeError: the time is over, or a process is dead.
    """
    if self._broken:
      raise threading.BrokenBarrierError(self._broken)
    self._calls += 1
    place, me = f"{self._name}/{self._calls}", jax.process_index()
    try:
      self._client.key_value_set(f"{place}/{me}", key)
      self._client.wait_at_barrier(place, timeout_ms)
      told = self._client.key_value_dir_get(f"{place}/")
    except jax.errors.JaxRuntimeError as error:
      self._broken = str(error)
      raise
    if self._calls > 1:  # who is here has read what was told before
      self._client.key_value_delete(f"{self._name}/{self._calls - 1}/{me}")
    others = sorted(
      int(path.rpartition("/")[2]) for path, name in told if name != key
    )
    if others:
      who = ", ".join(map(str, others))
      self._broken = (
        f"process {who} of {jax.process_count()} failed; what it printed says"
        " why"
      )
      raise threading.BrokenBarrierError(self._broken)
