"""Fixtures of all tests: eight CPU devices, folders, environments.

The environment is set at import, before any test imports jax, and is
inherited by the processes that tests start.
"""

import os
import signal
import threading
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
_EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"


def _set_environment() -> None:
  # Eight devices on one CPU, so that meshes are tested on any machine. The
  # CPU also where there is an accelerator: expected numbers are float32's.
  flags = os.environ.get("XLA_FLAGS", "").split()
  name = _EIGHT_DEVICES.partition("=")[0]
  flags = [flag for flag in flags if not flag.startswith(name)]
  os.environ["XLA_FLAGS"] = " ".join([*flags, _EIGHT_DEVICES])
  os.environ["JAX_PLATFORMS"] = "cpu"
  # No compiled program of an earlier run may stand in for this one's, unless
  # asked for: INFOXLM_TEST_CACHE names a folder to keep them in.
  cache = os.environ.get("INFOXLM_TEST_CACHE", "")
  os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "true" if cache else "false"
  if cache:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
  os.environ["MPLBACKEND"] = "Agg"
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


_set_environment()


def _set_signals() -> None:
  # As nobody has changed them: under nohup, or in the background of a shell,
  # some are ignored, and processes that tests start would inherit that.
  signal.signal(signal.SIGHUP, signal.SIG_DFL)
  signal.signal(signal.SIGINT, signal.default_int_handler)


if threading.current_thread() is threading.main_thread():
  _set_signals()

# The same examples every time, no limit on the first (compiling) one.
hypothesis.settings.register_profile(
  "suite", deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def root() -> Path:
  """The repository's root."""
  return ROOT


@pytest.fixture(scope="session")
def expected() -> Path:
  """tests/expected: expected numbers made by other programs."""
  return ROOT / "tests" / "expected"


@pytest.fixture(scope="session")
def shared() -> Path:
  """The folder of texts, tokenizer and oracles that are not shipped.

  INFOXLM_SHARED, or `shared` beside the repository. Without it a test is
  skipped, except where CI=true: there nothing may go untested unseen.
  """
  name = os.environ.get("INFOXLM_SHARED", "")
  folder = Path(name) if name else ROOT.parent / "shared"
  if not folder.is_dir():
    message = f"no folder {folder}; set INFOXLM_SHARED to where it is"
    if os.environ.get("CI", "").lower() in ("true", "1"):
      pytest.fail(message)
    pytest.skip(message)
  return folder.resolve()


@pytest.fixture
def plain_env() -> dict[str, str]:
  """An environment for a process that is to have one CPU device."""
  env = dict(os.environ)
  flags = env.pop("XLA_FLAGS", "").replace(_EIGHT_DEVICES, "").strip()
  if flags:
    env["XLA_FLAGS"] = flags
  return env
