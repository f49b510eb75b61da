"""Worker processes that end when the process that started them ends."""

import concurrent.futures
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from infoxlm_jax.errors import InputError, StorageError

Task = tuple[Any, ...]
_OF_TERMINALS = (signal.SIGINT, signal.SIGHUP)
_SIGNAL_SECONDS = 0.2


def count_cores() -> int:
  """Cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


class Pool:
  """Runs functions on `workers` processes; with one, in this process.

  The processes are started at the first use with two tasks or more. They share
  no memory with this one: functions and arguments must pickle.
  """

  def __init__(self, workers: int | None):
    if workers is None:
      workers = count_cores()
    if workers < 1:
      raise InputError(f"workers = {workers} must be at least 1, or None.")
    self._workers = workers
    self._executor: concurrent.futures.ProcessPoolExecutor | None = None

  def __enter__(self) -> "Pool":
    return self

  def __exit__(self, *unused: object) -> None:
    if self._executor is not None:
      self._executor.shutdown(wait=True, cancel_futures=True)

  def run(
    self, function: Callable[..., Any], tasks: Iterable[Task]
  ) -> Iterator[Any]:
    """Yields results of function(*task) as they finish; few tasks wait.

    Raises:
      StorageError: a worker was killed.
      Exception: whatever a task raises.
    """
    stream = iter(tasks)
    ahead = list(itertools.islice(stream, 2))
    if self._workers == 1 or len(ahead) < 2:
      for task in itertools.chain(ahead, stream):
        yield function(*task)
      return
    waiting: set[concurrent.futures.Future[Any]] = set()
    try:
      executor = self._started()
      for task in itertools.chain(ahead, stream):
        waiting.add(executor.submit(function, *task))
        if len(waiting) > self._workers:
          waiting, done = _some(waiting)
          yield from done
      while waiting:
        waiting, done = _some(waiting)
        yield from done
    except BrokenProcessPool as error:
      # A scheduler's signal to all processes may have reached this one last.
      time.sleep(_SIGNAL_SECONDS)
      raise StorageError(
        "a worker process was killed, perhaps for lack of memory. Start "
        "again: finished work is kept. Fewer workers (WORKERS) need less."
      ) from error

  def _started(self) -> concurrent.futures.ProcessPoolExecutor:
    if self._executor is None:
      # A terminal's signals go to all of its processes; only this one handles
      # them. Processes that are started while they are ignored ignore them,
      # too, also those that multiprocessing starts for itself.
      main = threading.current_thread() is threading.main_thread()
      numbers = _OF_TERMINALS if main else ()
      kept = [(n, signal.signal(n, signal.SIG_IGN)) for n in numbers]
      try:
        self._executor = concurrent.futures.ProcessPoolExecutor(
          self._workers,
          multiprocessing.get_context("spawn"),
          initializer=_begin,
        )
        self._executor.submit(os.getpid)
      finally:
        for number, handler in kept:
          signal.signal(number, handler)
    return self._executor


def _some(
  waiting: set[concurrent.futures.Future[Any]],
) -> tuple[set[concurrent.futures.Future[Any]], list[Any]]:
  done, rest = concurrent.futures.wait(
    waiting, return_when=concurrent.futures.FIRST_COMPLETED
  )
  return rest, [future.result() for future in done]


def _begin() -> None:
  for number in _OF_TERMINALS:
    signal.signal(number, signal.SIG_IGN)
  threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
  parent = multiprocessing.parent_process()
  assert parent is not None
  multiprocessing.connection.wait([parent.sentinel])
  os._exit(1)
