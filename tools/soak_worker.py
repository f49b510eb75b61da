"""Processes of soak.py that do many pieces of work, one after another."""

import os
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import soak_process
from soak_outcomes import TRACEBACK, Outcome

_SECONDS = 300  # that a piece of work may take
_own = threading.local()  # (process, connection) of the calling thread


def call(work: Callable[[Path], list[Outcome]], place: Path) -> list[Outcome]:
  """Does a piece of work in this thread's process, which is kept for the next.

  Raises:
    TimeoutError: it hung; the process was killed.
  """
  if getattr(_own, "pair", None) is None:
    ours, theirs = soak_process.context().Pipe()
    process = soak_process.context().Process(target=_serve, args=(theirs,))
    process.start()
    theirs.close()
    _own.pair = (process, ours)
  process, connection = _own.pair
  try:
    connection.send((work, place))
    if not connection.poll(_SECONDS):
      raise TimeoutError(f"no end after {_SECONDS} s: {work}")
    answer = connection.recv()
  except (EOFError, OSError) as error:
    _stop()
    if isinstance(error, TimeoutError):
      raise
    text = f"the process ended with {process.exitcode}: {work}"
    return [Outcome("process", TRACEBACK, place.name, text)]
  if isinstance(answer, str):
    raise RuntimeError(answer)
  return answer


def _stop() -> None:
  process, connection = _own.pair
  connection.close()
  process.kill()
  process.join()
  _own.pair = None


def _serve(connection: Any) -> None:
  silent = os.open(os.devnull, os.O_WRONLY)
  os.dup2(silent, 1)
  os.dup2(silent, 2)
  while True:
    try:
      work, place = connection.recv()
    except EOFError:
      return
    try:
      answer = work(place)
    except Exception:  # of the tool itself
      answer = traceback.format_exc()
    connection.send(answer)
