"""How far a job is: a bar on a terminal, plain lines in a log."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TextIO


def duration(seconds: float) -> str:
  """7.2 -> '7 s', 200 -> '3:20', 4000 -> '1:06:40'."""
  if not math.isfinite(seconds):
    return "?"
  whole = round(seconds)
  if whole < 60:
    return f"{whole} s"
  minutes, rest = divmod(whole, 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02d}:{rest:02d}"
  return f"{minutes}:{rest:02d}"


def format_shown(shown: Mapping[str, Any]) -> str:
  """{"mlm": 5.123, "accuracy": .5, "tokens/s": 22710} as one short text.

  Names that end in "accuracy" become per cent, names that end in "/s" are
  rates; all other values get four digits.
  """
  parts = []
  for name, value in shown.items():
    number = float(value)
    if name.endswith("accuracy"):
      parts.append(f"{name} {100 * number:.1f} %")
    elif name.endswith("/s"):
      short = f"{number / 1000:.1f}k" if number >= 1000 else f"{number:.1f}"
      parts.append(f"{short} {name}")
    else:
      parts.append(f"{name} {number:.4g}")
  return "  ".join(parts)


class Progress:
  """Tells a person how far a job is: a bar on a terminal, else plain lines.

  Args:
    total: steps of the whole job.
    initial: steps done before this process started.
    every: seconds between two plain lines.
    unit: what one step is called on the bar.
    enabled: False for processes other than 0.
    stream: where to write; standard error if None.
    clock: seconds that only rise, for tests.
  """

  def __init__(
    self,
    total: int,
    initial: int = 0,
    every: float = 10.0,
    unit: str = "step",
    enabled: bool = True,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    self._total = total
    self._every = every
    self._unit = unit
    self._enabled = enabled
    self._stream = stream or sys.stderr
    self._clock = clock
    self._said = -math.inf
    # The first update is not a start for the rate: compilation lies before.
    self._times: deque[tuple[float, int]] = deque(maxlen=200)
    self._bar = None
    if enabled and self._stream.isatty():
      from tqdm import tqdm

      self._bar = tqdm(
        total=total,
        initial=initial,
        unit=unit,
        file=self._stream,
        dynamic_ncols=True,
        smoothing=0.1,
      )

  def update(self, step: int, shown: Mapping[str, Any]) -> None:
    """Reports that `step` steps are done, with the values to show."""
    if not self._enabled:
      return
    if self._bar is not None:
      # First the values: tqdm draws at most ten times a second.
      self._bar.set_postfix_str(format_shown(shown), refresh=False)
      self._bar.update(step - self._bar.n)
      return
    now = self._clock()
    self._times.append((now, step))
    if step < self._total and now - self._said < self._every:
      return
    self._said = now
    share = 100 * step / max(self._total, 1)
    self._print(
      f"{self._unit} {step}/{self._total} ({share:.0f} %)  "
      f"ETA {duration(self._eta(now, step))}  {format_shown(shown)}"
    )

  def say(self, text: str) -> None:
    """Prints a message without breaking the bar."""
    if not self._enabled:
      return
    if self._bar is not None:
      self._bar.write(text, file=self._stream)
    else:
      self._print(text)

  def close(self) -> None:
    """Leaves the bar as it stands, on a line of its own."""
    if self._bar is not None:
      self._bar.close()

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *unused: object) -> None:
    self.close()

  def _eta(self, now: float, step: int) -> float:
    """Seconds left at the rate of the last updates; NaN while unknown."""
    if step >= self._total:
      return 0.0
    then, first = self._times[0]
    if step <= first or now <= then:
      return math.nan
    return (self._total - step) * (now - then) / (step - first)

  def _print(self, text: str) -> None:
    print(text, file=self._stream, flush=True)
