"""Decides when updates have gone wrong: numbers not finite, or a loss spike."""

import collections
import math

import numpy as np

# Losses that mean and deviation are taken over, and how many are needed.
_WINDOW, _ENOUGH = 128, 16


class Diverged(Exception):
  """The run cannot go on by itself: exit code 1."""


class BadUpdates(Diverged):
  """Updates went wrong; the run goes back to a checkpoint, if it can.

  Attributes:
    first: number of the first of these updates.
  """

  def __init__(self, first: int, reason: str):
    super().__init__(reason)
    self.first = first


class UpdateWatch:
  """Counts bad updates in a row; `add` raises BadUpdates.

  Args:
    allowed: updates in a row that may be skipped because a number is not
      finite.
    spike_sigmas: a loss is a spike if it is so many standard deviations above
      the mean of the last 128 losses that were none. None: no loss is.
    spike_updates: spikes in a row that are too many.
  """

  def __init__(
    self, allowed: int, spike_sigmas: float | None, spike_updates: int
  ):
    self._allowed = allowed
    self._sigmas, self._spike_updates = spike_sigmas, spike_updates
    self._losses: collections.deque[float] = collections.deque(maxlen=_WINDOW)
    self._skipped = self._spikes = 0

  def add(
    self, number: int, *, finite: bool, loss: float, grad_norm: float
  ) -> None:
    """Adds an update.

    Args:
      number: of the update.
      finite: whether it was applied, see step.make_train_step.
      loss, grad_norm: its metrics.

    Raises:
      BadUpdates: it is one too many.
    """
    self._skipped = 0 if finite else self._skipped + 1
    if self._skipped > self._allowed:
      raise BadUpdates(
        number - self._skipped + 1,
        f"update {number}: loss {loss}, gradient norm {grad_norm}: one of"
        " these, a key or a momentum is not finite, or the learning rate is far"
        " too large. The update was not applied and the saved checkpoints are"
        " good. Lower the learning rate, or look at the data of this update.",
      )
    if finite:
      self._add_loss(number, loss)

  def _add_loss(self, number: int, loss: float) -> None:
    if self._sigmas is None:
      return
    limit = math.inf
    if len(self._losses) >= _ENOUGH:
      deviation = float(np.std(self._losses))
      limit = float(np.mean(self._losses)) + self._sigmas * deviation
    if loss <= limit:
      self._losses.append(loss)
      self._spikes = 0
      return
    self._spikes += 1
    if self._spikes >= self._spike_updates:
      raise BadUpdates(
        number - self._spikes + 1,
        f"update {number}: loss {loss}, and {self._spikes} losses in a row"
        f" above {limit:.4g}, which is {self._sigmas} standard deviations above"
        f" the mean of the last {len(self._losses)}.",
      )
