"""Stopping on a signal and on a hang, in subprocesses."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infoxlm_jax.runtime.signals import StopRequest

ROOT = Path(__file__).resolve().parents[2]


def ended(code: str) -> subprocess.CompletedProcess[str]:
  head = "import os, signal, time\n"
  head += "from infoxlm_jax.runtime.signals import StopRequest, Watchdog\n"
  return subprocess.run(
    [sys.executable, "-c", head + code],
    env=dict(os.environ, PYTHONPATH=str(ROOT)),
    capture_output=True,
    text=True,
    timeout=60,
  )


@pytest.mark.parametrize(
  ("number", "code"),
  [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGHUP, 75)],
)
def test_first_signal_asks_and_the_handlers_come_back(number, code):
  # Tests that run in the background may have begun with it ignored.
  before = signal.signal(number, signal.default_int_handler)
  with StopRequest() as stop:
    assert stop.code is None
    os.kill(os.getpid(), number)
    assert stop.code == code
  assert signal.getsignal(number) is signal.default_int_handler
  signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_so():
  """nohup ignores SIGHUP before it starts a program."""
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  with StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGHUP)
    assert stop.code is None
  signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_second_signal_leaves_at_once(name, code):
  done = ended(
    "with StopRequest():\n"
    f"  os.kill(os.getpid(), signal.{name})\n"
    f"  os.kill(os.getpid(), signal.{name})\n"
    "  time.sleep(30)\n"
  )
  assert done.returncode == code
  assert f"{name}: saving, then leaving" in done.stderr


def test_hang_shows_the_stack_and_ends():
  done = ended(
    "def waits_for_ever():\n"
    "  time.sleep(30)\n"
    "with Watchdog(0.4):\n"
    "  waits_for_ever()\n"
  )
  assert done.returncode == 4
  assert "waits_for_ever" in done.stderr and "hang_seconds=0.4" in done.stderr


def test_no_hang_while_something_moves():
  done = ended(
    "with Watchdog(0.6) as watchdog:\n"
    "  for _ in range(12):\n"
    "    time.sleep(0.1)\n"
    "    watchdog.alive()\n"
    "with Watchdog(None):\n"
    "  time.sleep(0.1)\n"
  )
  assert done.returncode == 0, done.stderr
