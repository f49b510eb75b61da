"""What cannot be printed does not end a process."""

import subprocess
import sys

import pytest

JOB = """
import sys
from infoxlm_jax.runtime import output
output.keep_going()
for number in range(20000):
  print("line", number, flush=number % 100 == 0)
  print("line", number, file=sys.stderr)
with open(sys.argv[1], "w") as file:
  file.write("done")
sys.exit(7)
"""


@pytest.mark.parametrize(
  "redirection",
  [
    '"$@" | head -1; exit ${PIPESTATUS[0]}',
    '"$@" 2>&1 | head -1; exit ${PIPESTATUS[0]}',
    '"$@" >&-',
    '"$@" 2>&-',
    '"$@" >&- 2>&- <&-',
    '"$@" >/dev/full',
    '"$@" >/dev/full 2>/dev/full',
  ],
)
def test_a_job_ends_as_it_would_have(tmp_path, redirection):
  done = tmp_path / "done"
  job = [sys.executable, "-c", JOB, str(done)]
  ended = subprocess.run(
    ["bash", "-c", redirection, "bash", *job], stdout=subprocess.DEVNULL
  )
  assert ended.returncode == 7
  # Not a line of the output, which would be there if it had got the number of
  # a closed stream.
  assert done.read_text() == "done"
