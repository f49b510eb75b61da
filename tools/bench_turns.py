"""bench_step.py and another program, one after the other."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parent
Found = dict[str, Any]


def in_turns(options: argparse.Namespace) -> Found:
  """This program and the peer, one after the other, `--rounds` times."""
  mine: list[Found] = []
  theirs: list[Found] = []
  steps = ["--preset", options.preset, "--steps", str(options.steps)]
  shape = [
    f"--{name}={getattr(options, name)}"
    for name in ("warm", "remat", "dtype", "unroll", "batch", "row_length")
  ]
  with tempfile.TemporaryDirectory() as folder:
    for _ in range(options.rounds):
      own = [sys.executable, str(TOOLS / "bench_step.py"), *steps, *shape]
      peer = [options.peer_python, options.peer]
      if options.pairs:
        file = f"{folder}/batches.npz"
        own += ["--pairs", options.pairs, "--keep_batches", file]
        if options.tokenizer:
          own += ["--tokenizer", options.tokenizer]
        harness = str(TOOLS / "bench_peer.py")
        peer[1:] = [harness, "--peer", options.peer, "--batches", file]
      mine.append(_json_of(own))
      theirs.append(_json_of([*peer, *steps, *options.peer_options.split()]))

  def median(runs: Sequence[Found], name: str) -> float:
    return statistics.median(run[name] for run in runs)

  found: Found = {"rounds": options.rounds, "ours": mine, "peer": theirs}
  if options.pairs:
    name = "pairs_per_second"
    found[name] = median(mine, name)
    found[f"peer_{name}"] = median(theirs, name)
    found["ratio"] = found[name] / found[f"peer_{name}"]
    return found
  for name in ("seconds_per_step", "peak_rss_mib"):
    found[name] = median(mine, name)
    found[f"peer_{name}"] = median(theirs, name)
  found["ratio"] = found["peer_seconds_per_step"] / found["seconds_per_step"]
  found["memory_ratio"] = found["peak_rss_mib"] / found["peer_peak_rss_mib"]
  return found


def _json_of(command: Sequence[str]) -> Found:
  print(" ".join(command), flush=True)
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    raise SystemExit(f"it failed:\n{done.stdout}{done.stderr}")
  found: Found = json.loads(done.stdout.strip().splitlines()[-1])
  found.pop("losses", None)
  print(json.dumps(found), flush=True)
  return found
