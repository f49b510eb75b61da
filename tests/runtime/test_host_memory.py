"""A command starts again with huge pages, once, and only where that helps."""

import fnmatch
import os
import subprocess
import sys

import pytest

from infoxlm_jax.runtime import host_memory, platforms

pages_here = pytest.mark.skipif(
  not host_memory._has_huge_pages(), reason="no huge pages on request here"
)
_PROGRAM = """
import os, sys
print("started", flush=True)
{before}
from infoxlm_jax.runtime import host_memory, platforms
platforms._ACCELERATORS = {accelerators}
host_memory.use_huge_pages()
print(sys.argv[1:], os.environ.get("GLIBC_TUNABLES"))
{after}
"""
_LINE = (
  "starting again with memory in huge pages (INFOXLM_HUGE_PAGES=0 prevents"
  " it)\n"
)


class Command:
  """Writes programs, runs them, and tells how often each was started."""

  def __init__(self, folder, root):
    self.folder = folder
    self._root = root

  def __call__(
    self,
    *arguments,
    python=(),
    before="",
    after="",
    accelerators=(),
    **variables,
  ):
    """(starts, the rest of stdout, stderr)."""
    program = self.folder / "program.py"
    program.write_text(
      _PROGRAM.format(
        before=before, after=after, accelerators=repr(accelerators)
      )
    )
    return self.run(*python, str(program), *arguments, **variables)

  def run(self, *command, **variables):
    environment = dict(os.environ)
    for name in ("GLIBC_TUNABLES", "JAX_PLATFORMS", host_memory.SWITCH):
      environment.pop(name, None)
    environment["PYTHONPATH"] = f"{self._root}:{self.folder}"
    done = subprocess.run(
      [sys.executable, *command],
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      env=environment | variables,
      timeout=120,
    )
    lines = done.stdout.splitlines()
    rest = [line for line in lines if line != "started"]
    return len(lines) - len(rest), rest, done.stderr


@pytest.fixture
def command(tmp_path, root):
  return Command(tmp_path, root)


@pages_here
def test_it_starts_again_once_and_says_so(command):
  other = "glibc.malloc.top_pad=131072"
  starts, (last,), stderr = command("a b", "--c", GLIBC_TUNABLES=other)
  assert starts == 2
  assert last == f"['a b', '--c'] {other}:glibc.malloc.hugetlb=1"
  assert stderr == _LINE


@pages_here
@pytest.mark.parametrize(
  "how",
  [
    {"INFOXLM_HUGE_PAGES": "0"},
    {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"},
    {"python": ("-i",)},
    {"PYTHONINSPECT": "1"},
    {"python": ("-m", "pdb", "-c", "continue")},
    {"before": "sys.settrace(lambda *event: None)"},
    {"before": "sys.modules['debugpy'] = sys"},
    {"before": "sys.ps1 = '>>> '"},
    {"JAX_PLATFORMS": "cuda"},
    {"JAX_PLATFORMS": "tpu,cpu"},
  ],
  ids=str,
)
def test_it_starts_once(command, how):
  starts, _, stderr = command(**how)
  assert starts == 1
  assert _LINE not in stderr


@pages_here
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_starts_once(command, flag):
  assert command(flag)[0] == 1


@pages_here
@pytest.mark.parametrize(
  ("device", "package", "variables", "starts"),
  [
    (True, True, {}, 1),
    (False, True, {}, 2),  # to compile ahead for such devices
    (True, False, {}, 2),  # a device that jax cannot use
    (True, True, {"JAX_PLATFORMS": "cpu"}, 2),
    (True, True, {"JAX_PLATFORMS": ""}, 1),
  ],
)
def test_what_runs_decides(command, device, package, variables, starts):
  if device:
    (command.folder / "accel0").touch()
  if package:
    (command.folder / "libtpu_here").mkdir()
  found = command(
    accelerators=((f"{command.folder}/accel[0-9]*", "libtpu_here"),),
    **variables,
  )
  assert found[0] == starts


@pytest.mark.parametrize(
  ("file", "package"),
  [
    ("/dev/accel0", "libtpu"),  # TPU v4
    ("/dev/vfio/0", "libtpu"),  # TPU v5e and later
    ("/dev/nvidia0", "jax_cuda12_plugin"),
    ("/dev/vfio/vfio", None),  # there without any device
    ("/dev/nvidiactl", None),
    ("/dev/accel", None),  # the folder of other makers' accelerators
  ],
)
def test_device_files(file, package):
  packages = {
    package
    for files, package in platforms._ACCELERATORS
    if fnmatch.fnmatch(file, files)
  }
  assert (package in packages) if package else not packages


@pages_here
def test_only_a_command_starts_again(command):
  """infoxlm_jax.main as a program, not main() called from Python."""
  flags = ["--gin_file=none.gin"]
  _, _, stderr = command.run("-m", "infoxlm_jax.main", *flags)
  assert stderr.startswith(_LINE) and stderr.count(_LINE) == 1
  assert "none.gin" in stderr.removeprefix(_LINE)
  calls = f"from infoxlm_jax.main import main; main({flags})"
  _, _, stderr = command.run("-c", calls)
  assert "none.gin" in stderr and _LINE not in stderr


_FAULTS = """
import resource
import jax, jax.numpy as jnp

@jax.jit
def step(x):
  # Temporary arrays of 64 MiB.
  return jnp.cumsum(x * jnp.arange(4096.0)[:, None], axis=0)[:1]

x = jnp.ones((4096, 4096))
faults = []
for _ in range(10):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  step(x).block_until_ready()
  faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(faults)[5])
"""


@pages_here
def test_a_step_has_few_page_faults(command):
  _, (_, few), _ = command(after=_FAULTS)
  _, (_, many), _ = command(after=_FAULTS, INFOXLM_HUGE_PAGES="0")
  assert int(many) > 10000  # of 4 KiB: it is measured
  assert int(few) < int(many) / 20


_BUILDS = """
import ctypes
from infoxlm_jax.runtime import host_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def resident():
  with open("/proc/self/statm") as file:
    return int(file.read().split()[1])

# Every second block is still in use, as after building a state.
blocks = [libc.malloc(1 << 16) for _ in range(2000)]
for block in blocks:
  ctypes.memset(block, 1, 1 << 16)
for block in blocks[::2]:
  libc.free(block)
before = resident()
host_memory.give_back_freed()
print(before - resident())
"""


@pytest.mark.skipif(
  host_memory._glibc_version() is None,
  reason="another C library",
)
def test_what_building_left_is_given_back():
  done = subprocess.run(
    [sys.executable, "-c", _BUILDS], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert int(done.stdout) > 0.8 * 1000 * 16  # pages of 4 KiB
