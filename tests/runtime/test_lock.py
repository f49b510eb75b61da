"""Two processes never train in one folder."""

import subprocess
import sys

import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import lock, run_dir

HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
file.write('process 123 on "there", since then')
file.flush()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_told_who_has_it(tmp_path):
  path = tmp_path / lock.LOCK
  with subprocess.Popen(
    [sys.executable, "-c", HOLDER, str(path)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  ) as holder:
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match='in use: process 123 on "there"'):
      lock.hold(tmp_path)
    holder.kill()
  # A process that was killed holds nothing.
  lock.hold(tmp_path)
  assert path.read_text().startswith("process ")
  lock.hold(tmp_path)  # again, in the same process


def test_the_lock_is_no_content_of_the_folder(tmp_path):
  lock.hold(tmp_path)
  run_dir.claim(tmp_path, {"seed": 1})


def test_a_start_that_prepares_keeps_its_identity(tmp_path):
  """It has no metrics and no checkpoint yet."""
  mark = tmp_path / run_dir.IDENTITY
  mark.write_text('{"seed": 1}')
  with subprocess.Popen(
    [sys.executable, "-c", HOLDER, str(tmp_path / lock.LOCK)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  ) as holder:
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match="in use"):
      run_dir.claim(tmp_path, {"seed": 2})
    holder.kill()
  assert mark.read_text() == '{"seed": 1}'
  run_dir.claim(tmp_path, {"seed": 2})
