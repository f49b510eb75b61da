r"""The real update against numbers of the authors' own trainer.

  python tools/check_official.py FILE.npz ...

Each file holds whole updates that the released code computed: its settings,
batches, losses and parameters. Prints the largest difference of every kind of
number. Exit code 1: one is beyond its bound; 2: a file cannot be read.

PyTorch, which computed the files, rounds after every operation. So here x86
processors are told to do so, too: without fused multiply-add, unless XLA_FLAGS
says --xla_cpu_max_isa=... itself. Training uses whatever the processor has.
"""

import os
import platform
import sys

# Expected numbers are float32's of a CPU. Before anything imports jax.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
  ["--xla_cpu_max_isa=SSE4_2"] * (platform.machine() in ("x86_64", "AMD64"))
  + os.environ.get("XLA_FLAGS", "").split()  # of two, the last one counts
)

from infoxlm_jax.analysis import official, official_differences
from infoxlm_jax.cli import command


def main() -> int:
  """Runs the command; returns its exit code."""
  failed: list[str] = []

  def check() -> None:
    parser = command.make_parser("check_official", __doc__)
    parser.add_argument("files", nargs="+", metavar="FILE.npz")
    for file in parser.parse_args().files:
      differences = official.compare(file)
      print(official_differences.table(file, differences), flush=True)
      failed.extend(official_differences.beyond(differences))

  return command.run(check) or int(bool(failed))


if __name__ == "__main__":
  sys.exit(main())
