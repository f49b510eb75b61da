"""How far a phase of prepare is: a bar on a terminal, plain lines in a log."""

import math
import sys
import time
from collections.abc import Callable
from typing import TextIO

import tqdm

from infoxlm_jax.runtime.progress import duration

# Seconds between two lines of a log. A phase that is faster says nothing.
_EVERY = 10.0


class Phase:
  """Shows name, share, time left and tokens a second.

  Rate and time left are those since the last `skip`: what an earlier start
  has done goes by much faster than what is to be done.
  """

  def __init__(
    self,
    name: str,
    total: float | None,
    enabled: bool = True,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Begins a phase.

    Args:
      name: of the phase.
      total: what `reach` counts up to; None where it is not known.
      enabled: whether anything is shown.
      stream: where; standard error if None.
      clock: seconds that only rise, for tests.
    """
    self._name = name
    self._total = total
    self._enabled = enabled and total != 0
    self._stream = stream or sys.stderr
    self._clock = clock
    self._begin = self._from = self._said = clock()
    self._done = self._done_from = 0.0
    self._tokens = 0
    self._bar: tqdm.tqdm | None = None
    if self._enabled and self._stream.isatty():
      self._bar = tqdm.tqdm(
        total=total,
        file=self._stream,
        dynamic_ncols=True,
        bar_format="{desc} |{bar}|" if total else "{desc}",
        leave=True,
      )
      self._show()

  def __enter__(self) -> "Phase":
    return self

  def __exit__(self, kind: object, *unused: object) -> None:
    if self._bar is not None:
      if kind is None and self._total:
        self._done = self._total
      self._show()
      self._bar.close()
    elif kind is None and self._said > self._begin:
      seconds = duration(self._clock() - self._begin)
      self._print(f"{self._name}: done in {seconds}{self._rate()}")

  def reach(self, done: float, tokens: int = 0) -> None:
    """So much of the total is done now; `tokens` more were made."""
    self._done = done
    self._tokens += tokens
    if self._bar is not None:
      self._show()
    elif self._enabled and self._clock() - self._said >= _EVERY:
      self._said = self._clock()
      self._print(self._text())

  def skip(self, done: float) -> None:
    """So much of the total is done now, by an earlier start."""
    self._done = self._done_from = done
    self._from, self._tokens = self._clock(), 0

  def _show(self) -> None:
    assert self._bar is not None
    self._bar.set_description_str(self._text(), refresh=False)
    self._bar.n = min(self._done, self._total or math.inf)
    self._bar.refresh()

  def _text(self) -> str:
    text = self._name
    if self._total:
      share = min(1.0, self._done / self._total)
      text += f" {100 * share:3.0f} %  ETA {duration(self._left())}"
    return text + self._rate()

  def _left(self) -> float:
    """Seconds left; NaN while unknown."""
    assert self._total
    done = self._done - self._done_from
    left = max(0.0, self._total - self._done)
    return (self._clock() - self._from) * left / done if done else math.nan

  def _rate(self) -> str:
    seconds = self._clock() - self._from
    if not self._tokens or seconds <= 0:
      return ""
    return f"  {self._tokens / seconds / 1000:,.1f}k tokens/s"

  def _print(self, text: str) -> None:
    print(text, file=self._stream, flush=True)
