"""The values that a run shows while it trains."""

import pytest

from infoxlm_jax.training import train_log
from infoxlm_jax.training.bad_updates import UpdateWatch


class Shown:
  """Stands for the bar, and for metrics.jsonl."""

  def __init__(self):
    self.rates, self.written = [], {}

  def update(self, number, shown):
    self.rates.append(shown.get("tokens/s"))

  def write(self, number, values):
    self.written[number] = values


def test_the_rate_is_of_the_last_updates(monkeypatch):
  """Up to the update that is shown, without compilation and pauses."""
  now = [50.0]
  monkeypatch.setattr(train_log.time, "monotonic", lambda: now[0])
  shown = Shown()
  log = train_log.TrainingLog(
    shown, shown, every=100, watch=UpdateWatch(0, None, 10), tokens=7000
  )

  def update(number, seconds):
    now[0] += seconds
    metrics = {"loss": 1.0, "grad_norm": 1.0, "finite": True, "tokens": 300}
    log.add(number, metrics, {})
    log.flush()

  update(1, 60.0)  # it compiles
  assert shown.rates == [None]
  for number in range(2, 12):
    update(number, 1.0)
    assert shown.rates[-1] == pytest.approx(300)
  with log.paused():
    now[0] += 100.0
  for number in range(12, 17):
    update(number, 2.0)
  # Of ten updates, five of 1 second and five of 2.
  assert shown.rates[-1] == pytest.approx(3000 / 15)
  for number in range(17, 22):
    update(number, 2.0)
  assert shown.rates[-1] == pytest.approx(150)
  # A run that is shorter than `every` has a line, too: of all its updates.
  assert not shown.written
  log.finish()
  log.finish()
  assert list(shown.written) == [21]
  assert shown.written[21]["train/seconds_per_update"] == pytest.approx(90 / 21)
  assert shown.written[21]["train/tokens"] == 7000 + 21 * 300
