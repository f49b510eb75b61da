"""Reports metrics of updates: to the terminal, to files, and as an alarm."""

import collections
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from infoxlm_jax.runtime.metrics import MetricWriter
from infoxlm_jax.runtime.progress import Progress
from infoxlm_jax.training.bad_updates import UpdateWatch

# Updates that the rate on the terminal is the mean of.
_RATE_UPDATES = 10


class TrainingLog:
  """Writes the metrics of updates, and shows each to the watch.

  The host reads update n - 1 while the devices work on update n; `flush`
  reads the last one.

  Args:
    writer: of metrics.jsonl.
    progress: the bar on the terminal.
    every: updates between lines of metrics.jsonl; a line holds the mean of
      losses and rates since the one before.
    watch: raises BadUpdates.
    tokens: seen before this start of the run.
  """

  def __init__(
    self,
    writer: MetricWriter,
    progress: Progress,
    *,
    every: int,
    watch: UpdateWatch,
    tokens: int,
  ):
    self._writer, self._progress = writer, progress
    self._every, self._watch = every, watch
    self.tokens = tokens
    self.latest: dict[str, float] = {}
    self._number = 0  # of the last update that was reported
    self._pending: tuple[int, Any, Mapping[str, Any]] | None = None
    self._waited = self._away = 0.0
    self._restart()
    # (seconds of updates since this start, tokens), after each update.
    self._marks: collections.deque[tuple[float, int]]
    self._marks = collections.deque(maxlen=_RATE_UPDATES + 1)
    self._begin, self._paused = time.monotonic(), 0.0

  def _restart(self) -> None:
    self._rows: list[dict[str, float]] = []
    self._since, self._waited, self._away = time.monotonic(), 0.0, 0.0

  @contextmanager
  def waiting(self) -> Iterator[None]:
    """Encloses the wait for a batch; its share of the time is a metric."""
    start = time.monotonic()
    yield
    self._waited += time.monotonic() - start

  @contextmanager
  def paused(self) -> Iterator[None]:
    """Encloses evaluation and saving, whose time is not an update's."""
    start = time.monotonic()
    yield
    self._away += time.monotonic() - start
    self._paused += time.monotonic() - start

  def add(
    self, number: int, metrics: Any, data: Mapping[str, Mapping[str, int]]
  ) -> None:
    """Adds the metrics of an update that may still be running."""
    self.flush()
    self._pending = (number, metrics, data)

  def flush(self) -> None:
    """Waits for the last update that was added, and reports it."""
    if self._pending is None:
      return
    number, metrics, data = self._pending
    self._pending = None
    row = {k: float(v) for k, v in jax.device_get(metrics).items()}
    finite = bool(row.pop("finite"))
    self.tokens += int(row["tokens"])
    seconds = time.monotonic() - self._begin - self._paused
    self._marks.append((seconds, self.tokens))
    for name, counts in data.items():
      row[f"{name}/fill"] = counts["tokens"] / max(counts["slots"], 1)
      row[f"{name}/cut_tokens"] = counts["cut_tokens"]
    row["skipped"] = float(not finite)
    self._rows.append(row)
    self._number = number
    if number % self._every == 0 or not finite:
      self._write(number)
    self._progress.update(number, self._brief(row))
    self._watch.add(
      number, finite=finite, loss=row["loss"], grad_norm=row["grad_norm"]
    )

  def finish(self) -> None:
    """Flushes, and writes a line of the updates that none was written of."""
    self.flush()
    if self._rows:
      self._write(self._number)

  def _write(self, number: int) -> None:
    seconds = max(time.monotonic() - self._since - self._away, 1e-9)
    mean = {
      name: float(np.mean([row[name] for row in self._rows]))
      for name in self._rows[-1]
    }
    mean["tokens_per_second"] = mean.pop("tokens") * len(self._rows) / seconds
    mean["skipped"] *= len(self._rows)  # a count since the line before
    mean["seconds_per_update"] = seconds / len(self._rows)
    mean["data_wait_share"] = self._waited / seconds
    self.latest = mean
    line = {f"train/{k}": v for k, v in mean.items()}
    self._writer.write(number, line | {"train/tokens": self.tokens})
    self._restart()

  def _brief(self, row: Mapping[str, float]) -> dict[str, float]:
    shown = {"loss": row["loss"]}
    for name, value in row.items():
      objective, _, measure = name.partition("/")
      if measure == "loss":
        shown[objective] = value
    for name in row:
      if name.endswith("/spread"):  # only a contrast has it
        objective = name.partition("/")[0]
        shown[f"{objective} accuracy"] = row[f"{objective}/accuracy"]
    # The first update, which compiles, is the first mark and in no rate.
    (then, before), (now, after) = self._marks[0], self._marks[-1]
    if now > then:
      shown["tokens/s"] = (after - before) / (now - then)
    return shown
