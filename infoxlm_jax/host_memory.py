"""Memory of a process that computes on a CPU: kept, not faulted in anew."""

import ctypes
import importlib.util
import platform

# Numbers of <malloc.h>.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
  """Makes glibc keep what is freed; whether it did.

  XLA on a CPU allocates a step's temporary arrays at every step. Large blocks
  come from mmap and go back to the system, so each step has millions of page
  faults: a quarter of its time at base size. To be called before jax starts
  its threads, for each thread stays with the arena that it began with. Does
  nothing where jax has an accelerator, or the C library is another.
  """
  accelerators = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin")
  if any(importlib.util.find_spec(name) for name in accelerators):
    return False  # the arrays are elsewhere
  if platform.libc_ver()[0] != "glibc":
    return False
  mallopt = ctypes.CDLL(None).mallopt
  settings = (
    (_ARENA_MAX, 1),
    (_MMAP_MAX, 0),
    (_TRIM_THRESHOLD, -1),
    (_TOP_PAD, 64 << 20),
  )
  return all(mallopt(name, value) for name, value in settings)
