"""Memory of a program that computes on a CPU: huge pages, and no leftovers."""

import ctypes
import importlib.util
import os
import platform
import sys
from pathlib import Path

_SETTING = "glibc.malloc.hugetlb"
_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
  """Starts this program again, with glibc's large blocks in huge pages.

  XLA on a CPU allocates a step's temporary arrays at every step, and glibc
  gives them back at its end, so that each step has a page fault for every
  4 KiB of them; in pages of 2 MiB a step is a tenth faster. glibc reads its
  settings when a program starts, so here it starts twice. To be called before
  anything slow. Does nothing where that changes nothing: with an accelerator,
  with another system or C library, or where the user has decided.
  """
  wanted = os.environ.get("GLIBC_TUNABLES", "")
  if _SETTING in wanted or not (_is_ours() and _pages_on_request()):
    return
  tunables = ":".join(filter(None, (wanted, f"{_SETTING}=1")))
  os.environ["GLIBC_TUNABLES"] = tunables
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def give_back_freed() -> None:
  """Gives what is free now back to the system.

  For between building a state and the first step: glibc keeps what building
  left, a tenth of the memory of a run at base size.
  """
  if _is_ours():
    ctypes.CDLL(None).malloc_trim(0)


def _is_ours() -> bool:
  """Whether jax's arrays are in memory that glibc hands out."""
  accelerators = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin")
  if any(importlib.util.find_spec(name) for name in accelerators):
    return False  # they are elsewhere
  return platform.libc_ver()[0] == "glibc"


def _pages_on_request() -> bool:
  """Whether Linux gives huge pages to those who ask for them."""
  return _PAGES.is_file() and "[madvise]" in _PAGES.read_text()
