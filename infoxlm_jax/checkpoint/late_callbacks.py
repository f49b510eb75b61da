"""Keeps tensorstore's tracebacks of operations that nobody waits for silent.

orbax reads and writes all arrays at one time, and closes its event loop when
the first fails. Each of the others then finds a closed loop, and tensorstore
prints a traceback of some twenty lines for it, beside the one error that
counts and that orbax raises.
"""

import sys
from types import TracebackType
from typing import Any

_CLOSED = "Event loop is closed"
_FUNCTION = "call_soon_threadsafe"


def silence() -> None:
  """Leaves them out from now on; all other exceptions are shown as before."""
  before = sys.unraisablehook
  if getattr(before, "__module__", None) == __name__:
    return

  def show(unraisable: Any) -> None:
    error = unraisable.exc_value
    is_closed = isinstance(error, RuntimeError) and str(error) == _CLOSED
    if not (is_closed and _is_late(unraisable.exc_traceback)):
      before(unraisable)

  sys.unraisablehook = show


def _is_late(trace: TracebackType | None) -> bool:
  """Whether the first function is the one that tensorstore calls."""
  return trace is not None and trace.tb_frame.f_code.co_name == _FUNCTION
