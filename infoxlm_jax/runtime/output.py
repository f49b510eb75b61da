"""Printing that never ends a job.

A job prints for people; that the reader of its output has left (`| head`), that
its terminal is closed (`2>&-`) or the disk of its log is full must not stop it.
"""

import errno
import os
import sys
from typing import Any


class _Printed:
  """A text stream that drops what cannot be written."""

  def __init__(self, stream: Any):
    self._stream = stream

  def write(self, text: str) -> int:
    """As a text stream's; what cannot be written is dropped."""
    try:
      self._stream.write(text)
    except (OSError, ValueError) as error:  # ValueError: it is closed
      self._drop(error)
    return len(text)

  def flush(self) -> None:
    """As a text stream's."""
    try:
      self._stream.flush()
    except (OSError, ValueError) as error:
      self._drop(error)

  def _drop(self, error: Exception) -> None:
    """Lets later output, too, go nowhere, unless the disk may get room."""
    if getattr(error, "errno", None) == errno.ENOSPC:
      return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
      os.dup2(nowhere, self._stream.fileno())
      self._stream.flush()
    except (OSError, ValueError):
      pass
    os.close(nowhere)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


def keep_going() -> None:
  """From here on nothing that is printed can end the process.

  Standard streams that are closed lead nowhere: or the next file that is opened
  would get their number, and what a library prints would be written into it.
  """
  while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
    pass
  os.close(number)
  for name, number in (("stdout", 1), ("stderr", 2)):
    stream = getattr(sys, name)
    if isinstance(stream, _Printed):
      continue
    if stream is None:  # it was closed when the interpreter began
      stream = open(number, "w", closefd=False)  # noqa: SIM115
      setattr(sys, f"__{name}__", stream)
    setattr(sys, name, _Printed(stream))
