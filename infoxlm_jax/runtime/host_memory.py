"""Memory of programs that compute on a CPU: huge pages, returning freed."""

import ctypes
import importlib.util
import os
import platform
import sys
from pathlib import Path

_SETTING = "glibc.malloc.hugetlb"
_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
  """Executes this program again with glibc's huge pages turned on.

  XLA on a CPU allocates the temporary arrays of every step anew, and glibc
  returns them to the system at its end, so that every step has a page fault
  per 4 KiB. With pages of 2 MiB a step is a tenth faster. glibc reads its
  settings only when a program starts; therefore the program starts twice. Call
  this before anything slow.

  Does nothing with an accelerator, on another system or C library, or if
  GLIBC_TUNABLES already has the setting.
  """
  wanted = os.environ.get("GLIBC_TUNABLES", "")
  if _SETTING in wanted or not (_is_ours() and _pages_on_request()):
    return
  tunables = ":".join(filter(None, (wanted, f"{_SETTING}=1")))
  os.environ["GLIBC_TUNABLES"] = tunables
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def give_back_freed() -> None:
  """Returns freed memory to the system.

  Call it between building a state and the first step: glibc keeps the memory
  that building used and freed, a tenth of a run's memory at base size.
  """
  if _is_ours():
    ctypes.CDLL(None).malloc_trim(0)


def _is_ours() -> bool:
  """Whether glibc allocates the memory of jax's arrays."""
  accelerators = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin")
  if any(importlib.util.find_spec(name) for name in accelerators):
    return False  # arrays are in the accelerator's memory
  return platform.libc_ver()[0] == "glibc"


def _pages_on_request() -> bool:
  """Whether Linux gives huge pages to programs that ask for them."""
  return _PAGES.is_file() and "[madvise]" in _PAGES.read_text()
