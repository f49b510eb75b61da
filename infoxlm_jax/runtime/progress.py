"""Shows a job's progress: a bar on a terminal, plain lines in a log."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TextIO

_REDRAW = 0.1  # seconds between two updates of a bar
_SHORT = 1.0  # seconds of a phase whose end a log does not tell


def duration(seconds: float) -> str:
  """Formats seconds for people; "?" if they are not finite.

  >>> duration(7.2), duration(200), duration(4000)
  ('7 s', '3:20', '1:06:40')
  """
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
  """Formats named values as one short text.

  Values whose name ends in "accuracy" are shown in per cent; those whose name
  ends in "/s" are rates; all others get four digits.

  >>> format_shown({"mlm": 5.12345, "accuracy": 0.5, "tokens/s": 22710})
  'mlm 5.123  accuracy 50.0 %  22.7k tokens/s'
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
  """Shows a job's name, share done, time left, and values of the caller.

  >>> with Progress(2, stream=sys.stdout) as progress:
  ...   for step in (1, 2):
  ...     progress.update(step, {"loss": 1 / step})
  step 1/2 (50 %)  ETA ?  loss 1
  step 2/2 (100 %)  ETA 0 s  loss 0.5
  """

  def __init__(
    self,
    total: float | None,
    initial: float = 0,
    *,
    name: str = "step",
    phase: bool = False,
    every: float = 10.0,
    enabled: bool = True,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Starts the clock and, on a terminal, draws the bar.

    Args:
      total: the value of `done` at which the job is complete; None if unknown.
      initial: how much of the total earlier processes have done.
      name: the unit of the total, such as "step", or the phase's name.
      phase: True for one of several phases, which may be short. A phase prints
        nothing during its first `every` seconds, does not show its counts, and
        prints at its end how long it took, unless that was under a second.
      every: seconds between two plain lines.
      enabled: False for processes other than 0, which print nothing.
      stream: where to write; None: standard error.
      clock: returns monotonic seconds; tests give their own.
    """
    self._total, self._done, self._tokens = total, initial, 0
    self._name, self._phase, self._every = name, phase, every
    self._enabled = enabled and total != 0
    self._stream = stream or sys.stderr
    self._clock = clock
    self._begin = clock()
    self._shown: Mapping[str, Any] = {}
    self._said = self._begin if phase else -math.inf
    # (seconds, done, tokens) points from which rates are computed. A job has
    # none before its first update, whose time includes compilation.
    self._marks: deque[tuple[float, float, int]]
    self._marks = deque(maxlen=None if phase else 200)
    if phase:
      self._marks.append((self._begin, initial, 0))
    self._bar: Any = None
    if self._enabled and self._stream.isatty():
      from tqdm import tqdm

      self._bar = tqdm(
        total=total,
        file=self._stream,
        dynamic_ncols=True,
        bar_format="{desc} |{bar}|" if total else "{desc}",
      )
      self._draw()

  def update(
    self,
    done: float,
    shown: Mapping[str, Any] | None = None,
    tokens: int = 0,
  ) -> None:
    """Reports progress.

    Args:
      done: how much of the total is done now.
      shown: values to show, by name; see format_shown.
      tokens: tokens processed since the last update; their rate is shown.
    """
    if not self._enabled:
      return
    now = self._clock()
    self._done, self._shown = done, shown or {}
    self._tokens += tokens
    self._marks.append((now, done, self._tokens))
    last = self._total is not None and done >= self._total
    if self._bar is not None:
      if last or now - self._said >= _REDRAW:
        self._said = now
        self._draw()
    elif now - self._said >= self._every or (last and not self._phase):
      self._said = now
      self._print(self._text())

  def advance(self, more: float) -> None:
    """Reports that so much more of the total is done."""
    self.update(self._done + more)

  def skip(self, done: float) -> None:
    """Reports work that an earlier process did, without counting it in rates.

    Skipping it takes much less time than doing it would.

    Args:
      done: how much of the total is done, that work included.
    """
    self._done, self._tokens = done, 0
    self._marks.clear()
    self._marks.append((self._clock(), done, 0))

  def say(self, text: str) -> None:
    """Prints a message without breaking the bar."""
    if not self._enabled:
      return
    if self._bar is not None:
      self._bar.write(text, file=self._stream)
    else:
      self._print(text)

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, kind: object, *unused: object) -> None:
    whole = self._phase and kind is None
    if self._bar is not None:
      if whole and self._total:
        self._done = self._total
      self._draw()
      self._bar.close()
    elif whole and self._enabled:
      seconds = self._clock() - self._begin
      if seconds >= _SHORT:
        text = f"{self._name}: done in {duration(seconds)}  {self._values()}"
        self._print(text.rstrip())

  def _draw(self) -> None:
    self._bar.set_description_str(self._text(), refresh=False)
    self._bar.n = min(self._done, self._total or math.inf)
    self._bar.refresh()

  def _text(self) -> str:
    text = self._name
    if self._total:
      share = min(100.0, 100 * self._done / self._total)
      count = "" if self._phase else f" {self._done}/{self._total}"
      text += f"{count} ({share:.0f} %)  ETA {duration(self._left())}"
    return f"{text}  {self._values()}".rstrip()

  def _left(self) -> float:
    """Seconds left at the rate since the first mark; NaN while unknown."""
    assert self._total is not None
    if self._done >= self._total:
      return 0.0
    if not self._marks:
      return math.nan
    then, before, _ = self._marks[0]
    seconds, done = self._clock() - then, self._done - before
    if seconds <= 0 or done <= 0:
      return math.nan
    return (self._total - self._done) * seconds / done

  def _values(self) -> str:
    """The caller's values, and the rate of tokens where they are counted."""
    shown = dict(self._shown)
    if self._tokens:
      then, _, before = self._marks[0]
      seconds = max(self._clock() - then, 1e-9)
      shown["tokens/s"] = (self._tokens - before) / seconds
    return format_shown(shown)

  def _print(self, text: str) -> None:
    print(text, file=self._stream, flush=True)
