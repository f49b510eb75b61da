"""Writes and reads a run's metrics: metrics.jsonl and TensorBoard files.

A metric has a name with slashes ("train/xlco/accuracy") and one number per
step. Figures and report are made from metrics.jsonl. It has one JSON object
per line, {"step": 20, "time": 31.5, "train/loss": 4.2, "crc": 2868177305}; time
is in seconds since the run began, summed over restarts, and crc is the checksum
of the line (json_crc.py). Lines of older versions have none.
"""

import json
import logging
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime.event_file import EventFile
from infoxlm_jax.runtime.files import set_aside, write_atomically
from infoxlm_jax.runtime.json_crc import CRC, with_crc, without_crc

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
_RESERVED = ("step", "time", "non_finite", CRC)
_WHOLE = re.compile(rb'"crc": \d+}')  # the end of a line

Row = dict[str, Any]


def read_metrics(
  folder: str | os.PathLike[str], skip_damaged: bool = False
) -> list[Row]:
  """Reads metrics.jsonl of a run folder, and compares its lines' checksums.

  A number that was not finite is None in its row, and the row's "non_finite"
  holds it as text. A part of a last line, which a process leaves if it dies
  while writing, is skipped.

  Args:
    folder: the run's.
    skip_damaged: return the other lines where some are damaged, as the next
      start of the run goes on with them.

  Returns:
    One dict per line, in the order of the file; [] if there is no file.

  Raises:
    InputError: a line is damaged.
    StorageError: the file could not be read.
  """
  rows, damaged = _read_lines(folder)
  if damaged and not skip_damaged:
    number, problem = next(iter(damaged.items()))
    raise InputError(
      f"{Path(folder) / METRICS_FILE}, line {number}: not a line of metrics"
      f" ({problem}). The next start of the run sets this file aside and goes"
      " on with its whole lines."
    )
  return rows


def _read_lines(
  folder: str | os.PathLike[str],
) -> tuple[list[Row], dict[int, str]]:
  """The whole lines of metrics.jsonl, and the problems of others by number.

  Raises:
    StorageError: the file could not be read.
  """
  path = Path(folder) / METRICS_FILE
  try:
    *lines, last = path.read_bytes().split(b"\n")
  except FileNotFoundError:
    return [], {}
  except OSError as error:
    raise StorageError(f"{path}: could not be read: {error}.") from error
  if last:
    lines.append(last)
  # A start of this version gives a checksum to all lines of the file. Then a
  # line without one has lost it.
  needs_crc = any(_WHOLE.search(line) for line in lines)
  rows, damaged = [], {}
  for number, line in enumerate(lines, start=1):
    try:
      rows.append(_row(line, needs_crc))
    except (ValueError, RecursionError, InputError) as error:
      damaged[number] = str(error)
  # A process that dies while it writes leaves a part of the last line.
  if last and not _WHOLE.search(last):
    damaged.pop(len(lines), None)
  return rows, damaged


def _row(line: bytes, needs_crc: bool) -> Row:
  """A line of metrics.jsonl without its checksum.

  Raises:
    ValueError, RecursionError, InputError: it is not the line that was written.
  """
  row = json.loads(line)
  if not isinstance(row, dict) or type(row.get("step")) is not int:
    raise ValueError("no object with a whole number as step")
  for name, value in row.items():
    if name == "non_finite" or value is None:
      continue
    if not isinstance(value, int | float) or not math.isfinite(value):
      raise ValueError(f"{name[:80]!r} is no number")
  if needs_crc and CRC not in row:
    raise ValueError("it has no checksum, and other lines have one")
  return without_crc(row, "it")


def _line(row: Row) -> str:
  return json.dumps(with_crc(row), allow_nan=False) + "\n"


def series(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns (steps int64 [n], values float64 [n]) of one metric.

  Steps are in ascending order. Rows without the metric, or with a number that
  was not finite, are skipped. If a step has the metric twice, the later line
  counts.
  """
  points = {r["step"]: r[name] for r in rows if r.get(name) is not None}
  steps = sorted(points)
  values = [float(points[step]) for step in steps]
  return np.array(steps, np.int64), np.array(values, np.float64)


def _number(value: Any) -> int | float:
  """A Python number from a Python, numpy or jax scalar."""
  array = np.asarray(value)
  if array.size != 1:
    raise ValueError(f"a metric is one number, got shape {array.shape}")
  item = array.reshape(()).item()
  if isinstance(item, bool | int):
    return int(item)
  return float(item)


class MetricWriter:
  """Writes metrics.jsonl and tensorboard/ in a run's folder.

  Args:
    folder: the run's folder; created if it is missing.
    enabled: False for processes other than 0; then nothing is written.
    resume_step: the step of the checkpoint that the run continues from. Lines
      of later steps are removed, and time continues from the last line kept.
      If an earlier line is damaged, metrics.jsonl is kept under another name,
      and a new one gets the whole lines. Lines without a checksum get one.
      None: the run starts from the beginning, and an existing metrics.jsonl is
      moved to metrics.previous.jsonl.
    resume_lines: how many lines the file had when that checkpoint was saved,
      see `lines`; fewer are told in the log. 0: unknown.

  Attributes:
    lines: how many metrics.jsonl has.

  Raises:
    StorageError: the files cannot be written, here or in `write`.
  """

  def __init__(
    self,
    folder: str | os.PathLike[str],
    enabled: bool = True,
    resume_step: int | None = None,
    resume_lines: int = 0,
  ):
    self.enabled = enabled
    self.lines = 0
    self._start = time.monotonic()
    if not enabled:
      return
    self._path = Path(folder) / METRICS_FILE
    try:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      if resume_step is None:
        self._set_aside()
      else:
        self._start -= self._cut(resume_step, resume_lines)
      self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
      self._board = EventFile(
        self._path.parent / TENSORBOARD_FOLDER, resume_step
      )
    except OSError as error:
      raise self._failure(error) from error

  def elapsed(self) -> float:
    """Seconds since the run began, summed over restarts."""
    return time.monotonic() - self._start

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    """Adds one line. Values are numbers, or arrays that hold one number.

    Raises:
      ValueError: a reserved name, or an array of several numbers.
      StorageError: the line could not be written.
    """
    if not self.enabled:
      return
    row: Row = {"step": int(step), "time": round(self.elapsed(), 3)}
    numbers = {}
    not_finite = {}
    for name, value in values.items():
      if name in _RESERVED:
        raise ValueError(f"{name!r} is reserved: give the metric another name")
      number = numbers[name] = _number(value)
      if math.isfinite(number):
        row[name] = number
      else:  # JSON has no NaN: write null, and the value under "non_finite".
        row[name] = None
        not_finite[name] = str(number)
    if not_finite:
      row["non_finite"] = not_finite
    try:
      self._file.write(_line(row))
      self._file.flush()
      self.lines += 1
      self._board.write(step, numbers)
    except OSError as error:
      raise self._failure(error) from error

  def close(self) -> None:
    """Flushes everything to disk. A second call does nothing."""
    if not self.enabled or self._file.closed:
      return
    try:
      os.fsync(self._file.fileno())
      self._file.close()
      self._board.close()
    except OSError as error:
      raise self._failure(error) from error

  def __enter__(self) -> "MetricWriter":
    return self

  def __exit__(self, *unused: object) -> None:
    self.close()

  def _failure(self, error: OSError) -> StorageError:
    return StorageError(f"{self._path.parent}: metrics not written: {error}.")

  def _set_aside(self) -> None:
    if self._path.exists():
      os.replace(self._path, self._path.with_name("metrics.previous.jsonl"))

  def _cut(self, step: int, expected: int) -> float:
    """Removes lines later than `step`; returns the last kept line's time."""
    if not self._path.exists():
      logging.warning(
        "%s is missing: the metrics up to update %d are lost, the run goes on",
        self._path,
        step,
      )
      return 0.0
    rows, damaged = _read_lines(self._path.parent)
    rows = [row for row in rows if row["step"] <= step]
    self.lines = len(rows)
    if self.lines + len(damaged) < expected:
      logging.warning(
        "%s: %d of the %d lines up to update %d are lost, the run goes on",
        self._path,
        expected - self.lines - len(damaged),
        expected,
        step,
      )
    text = "".join(map(_line, rows))
    if damaged:
      logging.warning(
        "%s: line %s damaged; the file is kept as %s, and the run goes on with"
        " its other lines",
        self._path,
        ", ".join(map(str, damaged)),
        set_aside(self._path).name,
      )
      write_atomically(self._path, text)
    elif text.encode() != self._path.read_bytes():
      write_atomically(self._path, text)
    return max((float(row.get("time", 0.0)) for row in rows), default=0.0)
