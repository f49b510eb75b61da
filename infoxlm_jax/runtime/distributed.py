"""Runs of several processes: they start, wait, fail and stop together."""

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
# A process that sends no heartbeat for this long counts as dead; jax then
# aborts the others (exit code 134 in a shell).
_HEARTBEAT_SECONDS = 100
# A process that fails waits this long for the others to fail, too.
_LEAVE_SECONDS = 10
# Network file systems show new files late.
_SHARED_SECONDS = 30


def start(setting: str, facts: Mapping[str, str] | None = None) -> None:
  """Joins the other processes of the run. Call it before any use of jax.

  Args:
    setting: "" for one process; "auto" to ask Slurm or the TPU pod; or
      "HOST:PORT,COUNT,NUMBER": the address of process 0, the number of
      processes, and the number of this one.
    facts: values that must be equal in all processes, by name. The versions of
      jax and of this package are added.

  Raises:
    InputError: `setting` has another form, no cluster was detected, or some
      processes did not arrive within a minute. Every process that arrived
      raises it, and the message names the missing ones.
  """
  if not setting:
    return
  place = cluster.find() if setting == "auto" else cluster.parse(setting)
  if place.count == 1:
    return
  versions = {"infoxlm_jax": __version__, "jax": jax.__version__}
  rendezvous.hold(place, versions | dict(facts or {}), _WAIT_SECONDS)
  # jax would handle SIGTERM as a preemption notice, and ours would not see it.
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
  """Leaves a run of several processes; a run of one only returns `code`.

  With exit code 0 the caller returns, and jax lets the processes wait for each
  other. With any other code this process waits a few seconds for the others to
  fail as well, and then exits with that code; jax stops the others.

  Code 1, an unforeseen error, becomes 4 if the others did not fail: when a
  process is lost, the processes that communicate with it see such an error,
  and the run may succeed when it is started again.
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
  """If the block fails in one process, it fails in all of them.

  No process goes on until all have finished the block.

  Args:
    doing: the work of the block, such as "preparing the data", for the message
      in the processes that did not fail themselves.

  Raises:
    InputError, StorageError, Stopped: the error of the block, in the process
      that failed and in all others. Any other error is raised unchanged in the
      process that failed, and as a RuntimeError in the others.
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
    folder: a folder that process 0 sees.
    name: the parameter's name, for the message.

  Raises:
    InputError: some processes do not see it. All processes raise it, and the
      message names those that do not.
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
  """Agrees on a stop: the largest stop code that any process gave.

  Every process calls it once per update and gets the same result. With several
  processes the result is that of the codes given at the previous update: the
  devices exchange the codes between two updates, so no process waits for them.
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
  """Every process's value, [processes]."""
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
