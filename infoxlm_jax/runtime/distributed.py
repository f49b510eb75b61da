"""Several processes as one run: starting, waiting, failing, stopping."""

import contextlib
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime import cluster, rendezvous
from infoxlm_jax.runtime.signals import EXIT_HANG, Stopped
from infoxlm_jax.version import __version__

_WAIT_SECONDS = 60
# Without a sign of life for so long, a process counts as dead, and jax ends
# the others (they abort: 134 in a shell).
_HEARTBEAT_SECONDS = 100
# Who fails waits so long for the others to fail alike.
_LEAVE_SECONDS = 10
# File systems of networks show new files late.
_SHARED_SECONDS = 30


def start(setting: str, facts: Mapping[str, str] | None = None) -> None:
  """Joins the other processes of the run; before any other use of jax.

  Args:
    setting: "" for one process; "auto" where Slurm or a TPU pod says who the
      others are; or "HOST:PORT,COUNT,NUMBER", the address of process 0, how
      many there are, and which one this is.
    facts: what must be the same in all processes, by name. The versions of
      jax and of this package are added.

  Raises:
    InputError: another form, no cluster, or not all processes came within a
      minute: in all that came, and says which did not.
  """
  if not setting:
    return
  place = cluster.find() if setting == "auto" else cluster.parse(setting)
  if place.count == 1:
    return
  versions = {"infoxlm_jax": __version__, "jax": jax.__version__}
  rendezvous.hold(place, versions | dict(facts or {}), _WAIT_SECONDS)
  # jax would take SIGTERM for a notice and swallow it.
  jax.config.update("jax_enable_preemption_service", False)
  host = f"[{place.host}]" if ":" in place.host else place.host
  jax.distributed.initialize(
    coordinator_address=f"{host}:{place.port}",
    num_processes=place.count,
    process_id=place.number,
    local_device_ids=place.local_devices,
    cluster_detection_method="deactivate",
    initialization_timeout=_WAIT_SECONDS,
    heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
  )


def leave(code: int) -> int:
  """Ends this process's part of a run of several; `code` with one process.

  After 0 the processes wait for each other. After anything else this one
  waits a little for the others, which may have failed alike, and is gone then
  with that code, whatever they do: jax tells them. 1, an unforeseen failure,
  becomes 4 where the others did not fail too: a lost process shows as an
  error in those that it talked with, and a new start may mend it.
  """
  if code == 0 or not jax.distributed.is_initialized():
    return code
  flush = (sys.stdout.flush, sys.stderr.flush, logging.shutdown)

  def go(final: int) -> None:
    for each in flush:
      with contextlib.suppress(Exception):
        each()
    os._exit(final)

  alone = EXIT_HANG if code == 1 else code
  timer = threading.Timer(_LEAVE_SECONDS, go, (alone,))
  timer.daemon = True
  timer.start()
  try:
    jax.distributed.shutdown()
  except Exception:
    go(alone)
  go(code)
  return code


@contextlib.contextmanager
def together(doing: str) -> Iterator[None]:
  """What fails in one process, within it, fails in all; no one goes ahead.

  Args:
    doing: for the message of the others, such as "preparing the data".

  Raises:
    InputError, StorageError, Stopped: as raised within, in the process that
      it was raised in and in all others. Any other error becomes a
      RuntimeError there.
  """
  if jax.process_count() == 1:
    yield
    return
  error: Exception | None = None
  try:
    yield
  except Exception as caught:
    error = caught
  codes = multihost_utils.process_allgather(np.int32(_code_of(error)))
  if error is not None:
    raise error
  if np.any(codes):
    number, code = int(np.argmax(codes != 0)), int(codes[codes != 0][0])
    text = (
      f"process {number} of {len(codes)} failed at {doing}; what it printed"
      " says why"
    )
    if code == 2:
      raise InputError(text)
    if code == 3:
      raise StorageError(text)
    raise RuntimeError(text) if code == 1 else Stopped(code)


def check_shared(folder: Path, name: str) -> None:
  """Checks that all processes see the same folder.

  Args:
    folder: exists where process 0 is.
    name: of the parameter, for the message.

  Raises:
    InputError: in all processes, and says which do not see it.
  """
  if jax.process_count() == 1:
    return
  number = jax.process_index()
  drawn = np.uint32(secrets.randbits(32))
  token = folder / f".shared-{_gather(drawn)[0]:08x}"
  with together("writing into the run's folder"):
    if number == 0:
      _touch(token)
  end = time.monotonic() + _SHARED_SECONDS
  while not (seen := token.exists()) and time.monotonic() < end:
    time.sleep(0.2)
  blind = np.flatnonzero(_gather(np.int32(seen)) == 0)
  if number == 0:
    token.unlink(missing_ok=True)
  if blind.size:
    raise InputError(
      f"{name}={str(folder)!r} is not the same folder for all"
      f" {jax.process_count()} processes: {blind.tolist()} do not see what"
      " process 0 wrote there. Choose one on a file system that all hosts"
      " share, such as NFS."
    )


class Agreement:
  """Which of all processes' codes is the largest: the same answer in all.

  Called by all of them once an update. With several processes it answers
  what was given the call before: then nobody waits, for the devices exchange
  the codes between two updates, and by the next call they are done.
  """

  def __init__(self) -> None:
    self._before: jax.Array | None = None
    if jax.process_count() > 1:
      mesh = Mesh(np.array(jax.devices()), ("all",))
      self._given = NamedSharding(mesh, PartitionSpec("all"))
      self._largest = jax.jit(
        jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec())
      )

  def __call__(self, code: int | None) -> int | None:
    if jax.process_count() == 1:
      return code
    mine = np.full(jax.local_device_count(), code or 0, np.int32)
    given = jax.make_array_from_process_local_data(self._given, mine)
    before, self._before = self._before, self._largest(given)
    return None if before is None else int(before) or None


def _gather(value: np.generic) -> np.ndarray:
  """[processes] each process's number."""
  return multihost_utils.process_allgather(value)


def _code_of(error: Exception | None) -> int:
  if error is None:
    return 0
  if isinstance(error, Stopped):
    return error.code
  return {InputError: 2, StorageError: 3}.get(type(error), 1)


def _touch(path: Path) -> None:
  try:
    path.touch()
  except OSError as error:
    raise InputError(f"{path.parent}: cannot be written: {error}") from None
