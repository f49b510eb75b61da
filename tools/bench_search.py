"""Times the exact search for nearest sentences, and reads its peak memory.

    python tools/bench_search.py
    python tools/bench_search.py --sentences 100000 --size 768 --k 4

Random unit vectors, the same number on both sides; the k best both ways. A
small search comes first, which compiles. The last line is JSON.
"""

import argparse
import json
import resource
import sys
import time

import numpy as np


def _peak_mib() -> float:
  """Peak resident memory of this process."""
  unit = 1 if sys.platform == "darwin" else 1024  # bytes, or KiB
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak * unit / 2**20


def main() -> int:
  """Runs the benchmark."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--sentences", type=int, default=50_000)
  parser.add_argument("--size", type=int, default=384, help="of a vector")
  parser.add_argument("--k", type=int, default=4, help="neighbours")
  options = parser.parse_args()

  import jax

  from infoxlm_jax.evaluation import nearest
  from infoxlm_jax.evaluation.retrieval import unit

  random = np.random.default_rng(0)
  a, b = (
    unit(random.standard_normal((options.sentences, options.size), np.float32))
    for _ in range(2)
  )
  warm = tuple(most + 1 for most in nearest.BLOCK)
  nearest.search(a[: warm[0]], b[: warm[1]], options.k)
  before, start = _peak_mib(), time.monotonic()
  nearest.search(a, b, options.k)
  seconds, peak = time.monotonic() - start, _peak_mib()
  print(f"{options.sentences:,} x {options.sentences:,}, k = {options.k}")
  print(f"{seconds:.1f} s; peak memory {peak:,.0f} MiB, {before:,.0f} before")
  report = vars(options) | {
    "seconds": round(seconds, 2),
    "peak_mib": round(peak),
    "peak_mib_before": round(before),
    "vectors_mib": round(2 * a.nbytes / 2**20),
    "device": jax.devices()[0].device_kind,
  }
  print(json.dumps(report))
  return 0


if __name__ == "__main__":
  sys.exit(main())
