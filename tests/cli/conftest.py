"""Fixtures of the tests of the commands."""

from collections.abc import Callable

import pytest


@pytest.fixture
def refused(capsys) -> Callable[..., str]:
  """Runs a command that must not accept its input; returns its one line."""

  def run(main, *args) -> str:
    assert main([str(arg) for arg in args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.endswith("\n")
    assert error.count("\n") == 1
    return error

  return run
