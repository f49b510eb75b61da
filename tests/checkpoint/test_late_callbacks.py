"""Only the tracebacks of callbacks that come too late are left out."""

import asyncio
import sys
import types

import pytest

from infoxlm_jax.checkpoint import late_callbacks


@pytest.fixture
def shown(monkeypatch):
  """Errors that the hook before ours is given."""
  errors: list = []
  monkeypatch.setattr(
    sys, "unraisablehook", lambda given: errors.append(given.exc_value)
  )
  late_callbacks.silence()
  late_callbacks.silence()
  return errors


def late_error() -> RuntimeError:
  """What tensorstore meets: its call of a loop that is closed."""
  loop = asyncio.new_event_loop()
  loop.close()
  with pytest.raises(RuntimeError) as raised:
    loop.call_soon_threadsafe(print)
  return raised.value


def hook(error: BaseException, trace) -> None:
  sys.unraisablehook(
    types.SimpleNamespace(exc_value=error, exc_traceback=trace)  # type: ignore[arg-type]
  )


def test_a_late_callback_is_left_out(shown):
  error = late_error()
  trace = error.__traceback__
  while trace.tb_frame.f_code.co_name != "call_soon_threadsafe":
    trace = trace.tb_next
  hook(error, trace)
  assert shown == []


def test_all_others_are_shown(shown):
  others = [ValueError("other"), RuntimeError("other"), late_error()]
  for error in others:
    hook(error, error.__traceback__)
  assert shown == others
