"""Writes metrics for TensorBoard."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FLUSH_SECONDS = 30.0


class EventFile:
  """A TensorBoard event file, written in the caller's thread.

  tensorboardX's SummaryWriter writes in a background thread; when the disk is
  full, that thread dies silently and later calls block for ever. tensorboardX's
  EventsWriter raises the error in the caller instead.

  Args:
    folder: for the files of all starts; made if missing.
    resume_step: the step that the run continues from; None: it begins.

  Raises:
    OSError: the file cannot be written, here or in the methods.
  """

  def __init__(self, folder: Path, resume_step: int | None):
    from tensorboardX import event_file_writer, summary
    from tensorboardX.proto import event_pb2

    self._summary = summary
    self._events = event_pb2
    folder.mkdir(parents=True, exist_ok=True)
    # The file's name has the time in seconds and the host. The process id is
    # added so that a quick restart does not overwrite the earlier file.
    self._writer = event_file_writer.EventsWriter(
      str(folder / "events"), f".{os.getpid()}"
    )
    self._flushed = time.monotonic()
    # TensorBoard ignores earlier files' events from this step on.
    first = 0 if resume_step is None else resume_step + 1
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    version = "brain.Event:2"
    self._write(event_pb2.Event(step=first, file_version=version))
    self._write(event_pb2.Event(step=first, session_log=start))
    self._writer.flush()

  def _write(self, event: Any) -> None:
    event.wall_time = time.time()
    self._writer.write_event(event)

  def write(self, step: int, numbers: Mapping[str, float]) -> None:
    for name, number in numbers.items():
      summary = self._summary.scalar(name, number)
      self._write(self._events.Event(step=int(step), summary=summary))
    if time.monotonic() - self._flushed > _FLUSH_SECONDS:
      self._writer.flush()
      self._flushed = time.monotonic()

  def close(self) -> None:
    self._writer.close()
