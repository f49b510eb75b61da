"""Processes of soak.py.

They are forked from one that has imported everything already, so a start costs
no imports. They are as real as others: they have their own memory, files and
signals.
"""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

LOG = "log.txt"  # in the current folder of a process: its output
_HUNG = 180  # seconds after which a process counts as one that hangs
# Modules that the first process imports; none starts a thread or a device.
_PRELOAD = (
  "soak_runs",
  "infoxlm_jax.main",
  "infoxlm_jax.training.pretrain",
  "infoxlm_jax.data.prepare.pipeline",
  "infoxlm_jax.data.corpora.sources",
  "infoxlm_jax.evaluation.report.final_report",
  "tensorboardX",
)


@dataclasses.dataclass(frozen=True)
class End:
  """How a process ended.

  Attributes:
    code: its exit code; below 0 the signal that ended it.
    output: of both streams.
    seconds: that it took.
  """

  code: int
  output: str
  seconds: float

  @property
  def traceback(self) -> bool:
    """Whether it printed a traceback."""
    return "Traceback" in self.output


def environment(cache: Path) -> dict[str, str]:
  """Variables of every process: one CPU device, compiled programs kept.

  Args:
    cache: a folder for the compiled programs.
  """
  return {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "",
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    "INFOXLM_COMPILATION_CACHE": str(cache),
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "MPLBACKEND": "Agg",
  }


@functools.cache
def context() -> Any:
  """The multiprocessing context whose processes have imported everything."""
  forked = multiprocessing.get_context("forkserver")
  forked.set_forkserver_preload(list(_PRELOAD))
  return forked


@contextlib.contextmanager
def started(
  work: Callable[..., int],
  arguments: Sequence[Any],
  folder: Path,
  file_bytes: int | None = None,
) -> Iterator[Any]:
  """A process; killed at the end if it still runs.

  Args:
    work: returns the exit code.
    arguments: of `work`.
    folder: the current folder of the process; log.txt there gets both streams
      of its output.
    file_bytes: the most bytes of a file that it can write; None: no limit.
  """
  (folder / LOG).unlink(missing_ok=True)
  process = context().Process(
    target=_child, args=(work, arguments, str(folder), file_bytes)
  )
  process.start()
  try:
    yield process
  finally:
    if process.is_alive():
      process.kill()
    process.join()


def run(
  work: Callable[..., int],
  arguments: Sequence[Any],
  folder: Path,
  file_bytes: int | None = None,
) -> End:
  """Runs a process to its end; see `started`."""
  start = time.monotonic()
  with started(work, arguments, folder, file_bytes) as process:
    return ended(process, folder, start)


def ended(process: Any, folder: Path, start: float) -> End:
  """Waits for the end of a process that began at time.monotonic() `start`.

  Raises:
    TimeoutError: it hung.
  """
  process.join(_HUNG)
  if process.is_alive():
    raise TimeoutError(f"no end after {_HUNG} s: {said(folder)[-500:]}")
  return End(process.exitcode, said(folder), time.monotonic() - start)


def said(folder: Path) -> str:
  """The output so far of the process in a work folder."""
  try:
    return (folder / LOG).read_text("utf-8", "replace")
  except FileNotFoundError:
    return ""


def _child(
  work: Callable[..., int],
  arguments: Sequence[Any],
  folder: str,
  file_bytes: int | None,
) -> None:
  os.chdir(folder)
  output = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
  os.dup2(output, 1)
  os.dup2(output, 2)
  signal.signal(signal.SIGINT, signal.default_int_handler)
  if file_bytes is not None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
  sys.exit(work(*arguments))
