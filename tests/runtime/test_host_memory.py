"""The program starts again with huge pages, once, and faults less."""

import os
import subprocess
import sys

import pytest

from infoxlm_jax.runtime import host_memory

_PROGRAM = """
import os, resource, sys
from infoxlm_jax.runtime import host_memory

print("started", flush=True)
host_memory.use_huge_pages()
assert sys.argv[1:] == ["a b", "--c"], sys.argv
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
print(os.environ.get("GLIBC_TUNABLES"))
print(sorted(faults)[5])
"""


def _run(tunables: str | None) -> list[str]:
  environment = dict(os.environ)
  environment.pop("GLIBC_TUNABLES", None)
  if tunables is not None:
    environment["GLIBC_TUNABLES"] = tunables
  done = subprocess.run(
    [sys.executable, "-c", _PROGRAM, "a b", "--c"],
    capture_output=True,
    text=True,
    env=environment,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.splitlines()


@pytest.mark.skipif(
  not (host_memory._is_ours() and host_memory._pages_on_request()),
  reason="no huge pages on request here",
)
def test_starts_again_with_huge_pages_once():
  other = "glibc.malloc.top_pad=131072"
  *starts, tunables, few = _run(other)
  assert starts == ["started"] * 2
  assert tunables == f"{other}:glibc.malloc.hugetlb=1"
  # Where the user has decided, nothing happens.
  *starts, tunables, many = _run("glibc.malloc.hugetlb=0")
  assert starts == ["started"]
  assert tunables == "glibc.malloc.hugetlb=0"
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
  not (host_memory._is_ours() and sys.platform == "linux"),
  reason="another C library",
)
def test_what_building_left_is_given_back():
  done = subprocess.run(
    [sys.executable, "-c", _BUILDS], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert int(done.stdout) > 0.8 * 1000 * 16  # pages of 4 KiB
