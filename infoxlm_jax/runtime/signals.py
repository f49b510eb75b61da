"""Stops a run on Ctrl-C, on SIGTERM and SIGHUP, and when it hangs."""

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

EXIT_HANG = 4
EXIT_TERMINATED = 75  # "temporary failure": the launch scripts start it again
EXIT_INTERRUPTED = 130


class Stopped(Exception):
  """Raised after the job was asked to stop and has saved a checkpoint."""

  def __init__(self, code: int):
    super().__init__(f"stopped on request, exit code {code}")
    self.code = code


class Terminated(KeyboardInterrupt):
  """Raised by SIGTERM or SIGHUP where there is nothing to save.

  As that of Ctrl-C, no `except Exception` mistakes it for an error.
  """


@contextlib.contextmanager
def stop_at_once(
  exception: Callable[[], BaseException] = Terminated,
) -> Iterator[None]:
  """In the block, SIGTERM and SIGHUP raise an exception in the main thread.

  SIGHUP stays ignored where it is, as under nohup.

  Args:
    exception: makes it.
  """

  def on_signal(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise exception()

  before: dict[signal.Signals, object] = {}
  if threading.current_thread() is threading.main_thread():
    for number in (signal.SIGTERM, signal.SIGHUP):
      ignored = signal.getsignal(number) == signal.SIG_IGN
      if number != signal.SIGHUP or not ignored:
        before[number] = signal.signal(number, on_signal)
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)  # type: ignore[arg-type]


class StopRequest:
  """In the block, the first signal to stop sets `code`; a second exits.

  SIGINT, SIGTERM (of a scheduler) and SIGHUP (of a terminal that is closed).
  SIGHUP stays ignored where it is, as under nohup.
  """

  code: int | None = None

  def __enter__(self) -> "StopRequest":
    self._before: dict[int, object] = {}
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        ignored = signal.getsignal(number) == signal.SIG_IGN
        if number == signal.SIGHUP and ignored:
          continue
        self._before[number] = signal.signal(number, self._on_signal)
    return self

  def __exit__(self, *unused: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)  # type: ignore[arg-type]

  def _on_signal(self, number: int, frame: FrameType | None) -> None:
    del frame
    code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_TERMINATED
    if self.code is not None:
      os._exit(code)
    self.code = code
    print(
      f"\n{signal.Signals(number).name}: saving, then leaving; once more to"
      " leave at once",
      file=sys.stderr,
      flush=True,
    )


class Watchdog:
  """Ends the process with exit code 4 if `alive` is not called for `seconds`.

  Without it a pod that lost a host would wait for ever. It first prints every
  thread's stack, which shows where the process hangs. None: no watchdog.
  """

  def __init__(self, seconds: float | None):
    self._seconds = seconds
    self._last = time.monotonic()
    self._done = threading.Event()

  def __enter__(self) -> "Watchdog":
    if self._seconds:
      threading.Thread(target=self._watch, daemon=True).start()
    return self

  def __exit__(self, *unused: object) -> None:
    self._done.set()

  def alive(self) -> None:
    self._last = time.monotonic()

  def _watch(self) -> None:
    assert self._seconds is not None
    while not self._done.wait(min(self._seconds / 4, 10)):
      silent = time.monotonic() - self._last
      if silent > self._seconds:
        logging.error(
          "no step for %.0f s (hang_seconds=%g): stacks follow",
          silent,
          self._seconds,
        )
        faulthandler.dump_traceback(all_threads=True)
        os._exit(EXIT_HANG)
