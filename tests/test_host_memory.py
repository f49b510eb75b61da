"""Freed memory stays with the process, so that no step faults it in anew."""

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
from infoxlm_jax import host_memory
if sys.argv[1] == "kept":
  assert host_memory.keep_freed_memory()
import jax, jax.numpy as jnp

@jax.jit
def step(x):
  # Temporary arrays of 16 MiB.
  return jnp.cumsum(x * jnp.arange(2048.0)[:, None], axis=0)[:1]

x = jnp.ones((2048, 2048))
faults = []
for _ in range(20):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  step(x).block_until_ready()
  faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(faults)[10])
"""


@pytest.mark.skipif(
  platform.libc_ver()[0] != "glibc", reason="another C library"
)
def test_a_second_step_faults_nothing_in():
  faults = {}
  for how in ("kept", "given back"):
    done = subprocess.run(
      [sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    faults[how] = int(done.stdout)
  assert faults["given back"] > 2000  # of 4 KiB: it is measured
  assert faults["kept"] < 200
