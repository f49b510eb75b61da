"""Runs a program of a test in a process of its own."""

import subprocess
import sys
from pathlib import Path


def said(program: str, *arguments: str, folder: Path) -> str:
  """What a Python program prints, which must end with 0.

  Args:
    program: its text.
    *arguments: sys.argv[1:].
    folder: that it runs in.
  """
  ran = subprocess.run(
    [sys.executable, "-c", program, *arguments],
    capture_output=True,
    text=True,
    cwd=folder,
  )
  assert ran.returncode == 0, ran.stderr
  return ran.stdout
