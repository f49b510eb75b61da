"""A command starts no accelerator's runtime that is not meant."""

import subprocess
import sys

import jax
import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.model import partitioning
from infoxlm_jax.runtime import platforms

# jax asks for the library when it is imported, and again to start a TPU.
_LIBTPU = """
import os

os.environ["TPU_LIBRARY_PATH"] = "libtpu.so"

def get_library_path():
  with open({log!r}, "a") as file:
    file.write("asked\\n")
  return None
"""


def _command(plain_env, folder, root, **variables) -> str:
  """Standard error of a run that is refused after its devices are there."""
  (folder / "libtpu").mkdir()
  text = _LIBTPU.format(log=str(folder / "log"))
  (folder / "libtpu" / "__init__.py").write_text(text)
  environment = {k: v for k, v in plain_env.items() if k != "JAX_PLATFORMS"}
  done = subprocess.run(
    [sys.executable, "-m", "infoxlm_jax.main"]
    + ["--gin_file=gin/quickstart.gin", "--gin.GROUPS=3"],
    cwd=folder,
    env=environment
    | {"PYTHONPATH": f"{root}:{folder}", "INFOXLM_HUGE_PAGES": "0"}
    | variables,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 2
  return done.stderr


def test_libtpu_is_not_started_without_a_tpu(plain_env, tmp_path, root):
  """As with [tpu-compile] installed, which is to compile ahead alone."""
  assert "3 groups" in _command(plain_env, tmp_path, root)
  assert (tmp_path / "log").read_text() == "asked\n"


@pytest.fixture
def other_platforms():
  before = jax.config.jax_platforms
  yield
  jax.config.update("jax_platforms", before)


@pytest.mark.parametrize(
  ("devices", "package", "variables", "left_out"),
  [
    ("no-tpu*", "jax", {}, True),
    ("tpu*", "jax", {}, False),  # the device is here
    ("no-tpu*", "no_such_package", {}, False),  # nothing could be started
    ("no-tpu*", "jax", {"JAX_PLATFORMS": "tpu"}, False),
    ("no-tpu*", "jax", {"JAX_FORCE_TPU_INIT": "1"}, False),
    ("no-tpu*", "jax", {"TPU_LIBRARY_PATH": "libtpu.so"}, True),
  ],
)
def test_what_is_left_out(
  devices, package, variables, left_out, tmp_path, monkeypatch, other_platforms
):
  (tmp_path / "tpu0").touch()
  files = f"{tmp_path}/{devices}"
  monkeypatch.setattr(platforms, "_ACCELERATORS", ((files, package),))
  for name in ("JAX_PLATFORMS", "JAX_FORCE_TPU_INIT"):
    monkeypatch.delenv(name, raising=False)
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  jax.config.update("jax_platforms", "")
  platforms.leave_out_absent()
  assert jax.config.jax_platforms == ("cpu" if left_out else "")


def test_another_makers_plugin_may_have_a_device(tmp_path, monkeypatch):
  assert platforms.computes_on_cpu({})
  (tmp_path / "jax_plugins").mkdir()
  (tmp_path / "jax_plugins" / "xla_rocm7.py").touch()
  monkeypatch.syspath_prepend(tmp_path)
  assert not platforms.computes_on_cpu({})


@pytest.mark.parametrize(
  ("error", "reason"),
  [
    (AssertionError(), "there is none"),  # cuda without a GPU
    (RuntimeError("no libtpu.so\nand more"), "(no libtpu.so)"),
  ],
)
def test_platform_without_a_device(error, reason, monkeypatch, other_platforms):
  def no_devices():
    raise error

  monkeypatch.setattr(jax, "devices", no_devices)
  jax.config.update("jax_platforms", "cuda")
  with pytest.raises(InputError) as caught:
    partitioning.make_mesh()
  assert "JAX_PLATFORMS=cuda" in str(caught.value)
  assert reason in str(caught.value)
