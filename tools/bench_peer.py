"""Runs a PyTorch program's update on batches of bench_step.py --pairs.

    python tools/bench_peer.py --peer PEER.py --batches FILE.npz --preset small

The program must offer parse_args(list), build(args), and Step(args, model), a
callable that takes a dict of tensors mlm_ids, mlm_labels, tlm_ids, tlm_labels,
src_ids, tgt_ids, as the one does that infoxlm_jax was measured beside. Each
batch is padded to its longest sentence; there is no MLM in it. Further flags
go to the program. One JSON line last.
"""

import argparse
import importlib.util
import json
import os
import statistics
import sys
import time
from typing import Any

# glibc reads these at the start only: memory that is kept between steps.
_ENVIRONMENT = {
  "OMP_NUM_THREADS": "2",
  "OMP_WAIT_POLICY": "PASSIVE",
  "MALLOC_MMAP_MAX_": "0",
  "MALLOC_TRIM_THRESHOLD_": str(1 << 36),
  "MALLOC_TOP_PAD_": str(64 << 20),
}


def main() -> int:
  """Parses flags, measures, prints one JSON line last."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--peer", required=True)
  parser.add_argument("--batches", required=True)
  parser.add_argument("--preset", default="small")
  parser.add_argument("--warm", type=int, default=2)
  parser.add_argument("--steps", type=int, default=5)
  flags, rest = parser.parse_known_args()
  if any(os.environ.get(k) != v for k, v in _ENVIRONMENT.items()):
    os.execve(
      sys.executable,
      [sys.executable, *sys.argv],
      {**os.environ, **_ENVIRONMENT},
    )
  import numpy as np
  import torch

  spec = importlib.util.spec_from_file_location("peer", flags.peer)
  assert spec is not None and spec.loader is not None
  peer: Any = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(peer)
  args = peer.parse_args(["--preset", flags.preset, "--pad", "1", *rest])
  torch.set_num_threads(args.threads)
  if args.matmul == "onednn":
    torch.set_float32_matmul_precision("medium")
  model = peer.build(args)
  model.train()
  step = peer.Step(args, model)
  taken, places, real, pairs = [], 0, 0, 0
  with np.load(flags.batches) as stored:
    for number in range(flags.warm + flags.steps):
      arrays = {
        name: stored[f"{number}/{name}"]
        for name in ("tlm_ids", "tlm_labels", "src_ids", "tgt_ids")
      }
      empty = arrays["tlm_ids"][:0]
      arrays |= {"mlm_ids": empty, "mlm_labels": empty}
      batch = {name: torch.from_numpy(x) for name, x in arrays.items()}
      start = time.perf_counter()
      step(batch)
      if number >= flags.warm:
        taken.append(time.perf_counter() - start)
      pairs = len(arrays["tlm_ids"]) + len(arrays["src_ids"])
      for name in ("tlm_ids", "src_ids", "tgt_ids"):
        places += arrays[name].size
        real += int((arrays[name] != 1).sum())
  seconds = statistics.median(taken)
  found = {
    "pairs_per_second": round(pairs / seconds, 2),
    "seconds_per_step": round(seconds, 5),
    "fill": round(real / places, 4),
    "matmul": args.matmul,
    "mode": args.mode,
  }
  print(json.dumps(found))
  return 0


if __name__ == "__main__":
  sys.exit(main())
