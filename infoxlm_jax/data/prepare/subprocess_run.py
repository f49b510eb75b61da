"""Runs a function in a fresh process, whose imports this one does not load."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime.signals import EXIT_TERMINATED, Stopped

# Exit status of the other process after Ctrl-C, a shell's own.
_INTERRUPTED = 130


def run_in_subprocess(
  function: Callable[..., Any], options: Mapping[str, Any], what: str
) -> Any:
  """Calls function(**options) in a fresh process that sees no accelerator.

  Function, options and result must pickle. The process ends when this one
  does.

  Args:
    function: at the top level of a module.
    options: its arguments.
    what: the process's work in the past tense, for messages, such as
      "prepared corpus/".

  Returns:
    The function's result.

  Raises:
    InputError: the process died without an exception.
    Stopped: SIGTERM or SIGHUP ended it, as a scheduler sends them to all
      processes of a job.
    Exception: those of the function, as it raised them.
  """
  environment = {
    **os.environ,
    "CUDA_VISIBLE_DEVICES": "",
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "3",
  }
  # This process's sys.path comes first: unpickling the rest may need it.
  code = (
    "import pickle, sys; file = open(sys.argv[1], 'rb');"
    "sys.path[:] = pickle.load(file);"
    "from infoxlm_jax.data.prepare.subprocess_run import _child; _child(file)"
  )
  with tempfile.TemporaryDirectory() as folder:
    exchange = Path(folder) / "exchange"
    exchange.write_bytes(
      pickle.dumps(sys.path) + pickle.dumps((function, dict(options)))
    )
    child = subprocess.Popen(
      [sys.executable, "-c", code, str(exchange)],
      env=environment,
      stdin=subprocess.PIPE,  # closes when this process ends
    )
    try:
      status = child.wait()
    except BaseException:
      child.send_signal(signal.SIGTERM)
      child.wait()
      raise
    finally:
      assert child.stdin is not None
      child.stdin.close()
    if status in (_INTERRUPTED, -signal.SIGINT):
      raise KeyboardInterrupt
    if status in (-signal.SIGTERM, -signal.SIGHUP):  # a scheduler's, to all
      raise Stopped(EXIT_TERMINATED)
    if status:
      raise InputError(
        f"the process that {what} ended with status {status} and left no "
        "error of its own (killed, or out of memory?). Start again to continue."
      )
    result = pickle.loads(exchange.read_bytes())
  if isinstance(result, BaseException):
    raise result
  return result


def _child(file: Any) -> None:
  """Runs in the fresh process: reads the function and options from `file`."""
  threading.Thread(target=_end_with_parent, daemon=True).start()
  function, options = pickle.load(file)
  try:
    result = function(**options)
  except KeyboardInterrupt:
    # The terminal interrupts both processes; the other one reports it.
    sys.exit(_INTERRUPTED)
  except Exception as error:
    if not isinstance(error, InputError | StorageError):
      error.add_note(traceback.format_exc())
    result = error
  Path(file.name).write_bytes(pickle.dumps(result))


def _end_with_parent() -> None:
  # The raw descriptor: a buffered read would hold a lock at exit.
  os.read(0, 1)
  os.kill(os.getpid(), signal.SIGTERM)
