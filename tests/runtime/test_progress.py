"""A job's progress: lines of a log, or a bar on a terminal."""

import doctest
import io
import math

import pytest

from infoxlm_jax.runtime import progress
from infoxlm_jax.runtime.progress import Progress, duration, format_shown


class Terminal(io.StringIO):
  def isatty(self):
    return True


class Clock:
  now = 100.0

  def __call__(self):
    return self.now


def phase(total, stream=None, **options):
  """A phase, what it writes to, and its clock."""
  stream, clock = stream or io.StringIO(), Clock()
  options = {"name": "read", "phase": True} | options
  return Progress(total, stream=stream, clock=clock, **options), stream, clock


@pytest.mark.parametrize(
  "seconds, text",
  [(7.2, "7 s"), (59.6, "1:00"), (200, "3:20"), (4000, "1:06:40")],
)
def test_duration(seconds, text):
  assert duration(seconds) == text
  assert duration(math.nan) == "?"


def test_format_shown():
  shown = {"mlm": 5.12345, "accuracy": 0.5, "tokens/s": 22710.4}
  assert format_shown(shown) == "mlm 5.123  accuracy 50.0 %  22.7k tokens/s"


def test_the_examples():
  assert doctest.testmod(progress) == (0, 3)


def test_a_job_tells_its_first_update_and_its_last():
  """And between them one every ten seconds."""
  job, stream, clock = phase(100, name="step", phase=False)
  with job:
    for step in (1, 2, 3, 4, 100):
      # The first step takes long (compilation), then 4 seconds each.
      clock.now = 160.0 + 4 * step
      job.update(step, {"loss": 2.0})
  assert stream.getvalue().splitlines() == [
    "step 1/100 (1 %)  ETA ?  loss 2",
    # 96 steps of 4 seconds.
    "step 4/100 (4 %)  ETA 6:24  loss 2",
    "step 100/100 (100 %)  ETA 0 s  loss 2",
  ]


def test_the_time_left_follows_the_last_200_updates():
  job, stream, clock = phase(1000, name="step", phase=False)
  for step in range(1, 501):
    clock.now += 1 if step <= 250 else 2
    job.update(step)
  # 504 steps of 2 seconds.
  assert stream.getvalue().splitlines()[-1] == "step 496/1000 (50 %)  ETA 16:48"


def test_a_bar_on_a_terminal_shows_values_and_messages():
  stream = Terminal()
  with Progress(4, 2, stream=stream) as job:
    assert "step 2/4 (50 %)  ETA ? |" in stream.getvalue()
    job.say("a message")
    job.update(4, {"loss": 2.0, "accuracy": 0.25})
  text = stream.getvalue()
  assert "a message\n" in text
  assert (
    "step 4/4 (100 %)  ETA 0 s  loss 2  accuracy 25.0 % |"
    in text.splitlines()[-1]
  )


def test_a_bar_is_drawn_ten_times_a_second_at_most():
  stream = Terminal()
  job, stream, clock = phase(1000, stream, name="step", phase=False)
  for step in range(1, 101):
    clock.now += 0.01
    job.update(step)
  drawn = [n for n in range(1, 101) if f"step {n}/1000 " in stream.getvalue()]
  assert drawn == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91]


def test_disabled_progress_is_silent():
  stream = io.StringIO()
  with Progress(4, enabled=False, stream=stream) as job:
    job.say("a message")
    job.update(4, {})
  assert stream.getvalue() == ""


def test_a_phase_tells_every_ten_seconds_and_its_end():
  reading, stream, clock = phase(1000)
  with reading:
    for second in range(1, 36):
      clock.now += 1
      reading.update(20 * second, tokens=3000)
  assert stream.getvalue().split("\n") == [
    "read (20 %)  ETA 40 s  3.0k tokens/s",
    "read (40 %)  ETA 30 s  3.0k tokens/s",
    "read (60 %)  ETA 20 s  3.0k tokens/s",
    "read: done in 35 s  3.0k tokens/s",
    "",
  ]


def test_what_was_done_before_does_not_count():
  """Otherwise the ETA after a restart would be far too short."""
  reading, stream, clock = phase(1000)
  with reading:
    clock.now += 1
    reading.skip(800)
    clock.now += 20
    reading.update(850, tokens=2000)
    assert stream.getvalue() == "read (85 %)  ETA 1:00  100.0 tokens/s\n"


def test_a_size_that_is_not_known():
  reading, stream, clock = phase(None)
  with reading:
    clock.now += 10
    reading.update(5, tokens=10_000)
    assert stream.getvalue() == "read  1.0k tokens/s\n"


def test_a_phase_of_some_seconds_tells_its_end():
  """Or a log would show nothing where each of many phases is short."""
  reading, stream, clock = phase(10)
  with reading:
    clock.now += 4
    reading.update(10, tokens=8000)
  assert stream.getvalue() == "read: done in 4 s  2.0k tokens/s\n"
  hidden, stream, clock = phase(10, enabled=False)
  with hidden:
    clock.now += 4
  assert stream.getvalue() == ""


@pytest.mark.parametrize("total", [0, 5])
def test_a_phase_that_is_quick_or_empty_says_nothing(total):
  reading, stream, _ = phase(total)
  with reading:
    reading.update(total)
  assert stream.getvalue() == ""


def test_a_phase_on_a_terminal_ends_full():
  reading, stream, clock = phase(10, Terminal())
  with reading:
    clock.now += 4
    reading.update(2, tokens=8000)
    assert "read (20 %)  ETA 16 s  2.0k tokens/s |" in stream.getvalue()
  assert "read (100 %)" in stream.getvalue()


def test_an_error_is_not_called_done():
  reading, stream, clock = phase(10)
  with pytest.raises(OSError), reading:
    clock.now += 11
    reading.update(2)
    raise OSError
  assert stream.getvalue() == "read (20 %)  ETA 44 s\n"
