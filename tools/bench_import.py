"""Measures time and memory of an import; prints one JSON line.

    python tools/bench_import.py
    python tools/bench_import.py --layers 24 --hidden 1024

Writes a random checkpoint of XLM-R's shapes (base: 278M numbers, 1.1 GB) into
a temporary folder, then imports it in fresh processes: once into memory
(load_weights), once with the whole tool (tools/import_checkpoint.py, which
writes our checkpoint too). `peak` is the process's largest resident memory,
`peak_over_start` that without what it had after importing the package;
`ratio` and `ratio_over_start` are these over the size of the file.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

_MEASURE = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
import jax, orbax.checkpoint
from infoxlm_jax import checkpoint
from infoxlm_jax.weights.load import load_weights
from tools import import_checkpoint
def peak():
  used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return used * (1 if sys.platform == "darwin" else 1024)
jax.devices()
before, start = peak(), time.perf_counter()
if sys.argv[3] == "load":
  params = jax.block_until_ready(jax.device_put(load_weights(sys.argv[2])[1]))
  code = 0
else:
  paths = ["--input", sys.argv[2], "--output", sys.argv[4]]
  code = import_checkpoint.main(paths)
seconds = time.perf_counter() - start
print(json.dumps(
  {"code": code, "seconds": seconds, "peak": peak(), "before": before}))
"""


def write_model(folder: Path, layers: int, hidden: int, vocab: int) -> int:
  """A random XLMRobertaForMaskedLM; returns the size of its file."""
  from safetensors.numpy import save_file

  from infoxlm_jax.encoder_config import EncoderConfig
  from infoxlm_jax.weights import arrays, layouts, model_config, names

  config = EncoderConfig(
    vocab_size=vocab,
    num_layers=layers,
    hidden_size=hidden,
    num_heads=hidden // 64,
    ffn_size=4 * hidden,
    type_vocab_size=1,
  )
  draw = np.random.default_rng(0)
  entries = layouts.encoder_entries(config)
  entries += layouts.head_entries(config)["masked_lm"]
  tensors = {
    name: 0.02
    * draw.standard_normal(arrays.their_shape(e, config, {}), np.float32)
    for e in entries
    for name in names.all_names(e, config)
  }
  folder.mkdir()
  save_file(tensors, folder / "model.safetensors")
  described = model_config.to_hugging_face(config, "XLMRobertaForMaskedLM")
  (folder / "config.json").write_text(json.dumps(described))
  return (folder / "model.safetensors").stat().st_size


def measure(folder: Path, what: str, output: Path, size: int) -> dict:
  """Runs one import in a process of its own."""
  command = [sys.executable, "-c", _MEASURE, ROOT, folder, what, output]
  env = os.environ | {"JAX_PLATFORMS": "cpu"}
  done = subprocess.run(
    list(map(str, command)), env=env, capture_output=True, text=True
  )
  if done.returncode:
    raise SystemExit(done.stderr)
  found = json.loads(done.stdout.strip().splitlines()[-1])
  if found["code"]:
    raise SystemExit(done.stderr)
  over = found["peak"] - found["before"]
  return {
    "seconds": round(found["seconds"], 1),
    "peak_mb": round(found["peak"] / 1e6),
    "peak_over_start_mb": round(over / 1e6),
    "ratio": round(found["peak"] / size, 3),
    "ratio_over_start": round(over / size, 3),
  }


def main(argv: list[str] | None = None) -> int:
  """Runs the tool; returns its exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--layers", type=int, default=12)
  parser.add_argument("--hidden", type=int, default=768)
  parser.add_argument("--vocab", type=int, default=250002)
  args = parser.parse_args(argv)
  with tempfile.TemporaryDirectory(prefix="bench_import.") as place:
    folder = Path(place) / "model"
    started = time.perf_counter()
    # In a process of its own: a child inherits its parent's peak.
    shape = (folder, args.layers, args.hidden, args.vocab)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
      size = pool.apply(write_model, shape)
    written = time.perf_counter() - started
    result = {
      "file_mb": round(size / 1e6),
      "written_seconds": round(written, 1),
      "load_weights": measure(folder, "load", Path(place) / "none", size),
      "import_checkpoint": measure(folder, "tool", Path(place) / "own", size),
    }
  print(json.dumps(result))
  return 0


if __name__ == "__main__":
  sys.exit(main())
