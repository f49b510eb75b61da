"""Memory of a program that computes on a CPU: huge pages, and no leftovers."""

import ctypes
import os
import sys
from pathlib import Path

from infoxlm_jax.runtime import platforms

SWITCH = "INFOXLM_HUGE_PAGES"
_SETTING = "glibc.malloc.hugetlb"
_FIRST_GLIBC = (2, 35)  # that has the setting
_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_DEBUGGERS = ("bdb", "debugpy", "pydevd", "IPython")


def use_huge_pages() -> None:
  """Starts this program again with glibc's large blocks in huge pages.

  XLA on a CPU allocates a step's temporary arrays at every step, and glibc
  gives them back at its end, so that each step has a page fault for every
  4 KiB of them; with pages of 2 MiB it has few (docs/install.md has numbers).
  glibc reads the setting when a program starts, hence the second start, which
  one line on stderr announces.

  Only for the `if __name__ == "__main__"` of a command: the process is
  replaced. Call it before anything slow. Nothing happens for --help, under a
  debugger, where INFOXLM_HUGE_PAGES=0 or GLIBC_TUNABLES decide, where jax
  computes on an accelerator, or where the system has no huge pages on request.
  """
  tunables = os.environ.get("GLIBC_TUNABLES", "")
  if (
    os.environ.get(SWITCH) == "0"
    or _SETTING in tunables  # the user's, or this is the second start
    or {"-h", "--help"} & set(sys.argv)
    or _is_debugged()
    or not platforms.computes_on_cpu(os.environ)
    or not _has_huge_pages()
  ):
    return
  print(
    f"starting again with memory in huge pages ({SWITCH}=0 prevents it)",
    file=sys.stderr,
    flush=True,
  )
  tunables = ":".join(filter(None, (tunables, f"{_SETTING}=1")))
  os.environ["GLIBC_TUNABLES"] = tunables
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def give_back_freed() -> None:
  """Gives memory that is free now back to the system, where this is glibc.

  For between building a state and the first step: glibc keeps what building
  freed, a tenth of the memory of a run at base size.
  """
  if _glibc_version() is not None:
    ctypes.CDLL(None).malloc_trim(0)


def _is_debugged() -> bool:
  """Whether someone looks into this process, who would lose it."""
  return (
    sys.gettrace() is not None
    or any(name in sys.modules for name in _DEBUGGERS)
    or bool(sys.flags.inspect)  # python -i, or PYTHONINSPECT
    or hasattr(sys, "ps1")
  )


def _has_huge_pages() -> bool:
  """Whether glibc can ask for them, and Linux gives them to those who ask."""
  version = _glibc_version()
  return (
    version is not None
    and version >= _FIRST_GLIBC
    and _PAGES.is_file()
    and "[madvise]" in _PAGES.read_text()
  )


def _glibc_version() -> tuple[int, ...] | None:
  """(2, 39); None: another C library."""
  try:
    name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
  except ValueError:  # a system that does not know the name
    return None
  return tuple(map(int, version.split("."))) if name == "glibc" else None
