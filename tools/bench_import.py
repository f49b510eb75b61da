"""Measures time and memory of an import; prints one JSON line.

    python tools/bench_import.py
    python tools/bench_import.py --layers 24 --hidden 1024

Writes a random checkpoint of XLM-R's shapes (base: 278M numbers, 1.1 GB) into
a temporary folder, then imports it in fresh processes:

    load_weights         into memory
    import_checkpoint    the whole tool, which writes our checkpoint too
    mesh                 onto a mesh of 8 devices that splits every matrix
    replicas             onto 8 devices that each have all of it
    two_processes        onto the same mesh, 4 devices in each of two processes

`peak` is the process's largest resident memory, `peak_over_start` that without
what it had after importing the package; `ratio` and `ratio_over_start` are
these over the size of the file. The devices are virtual: what they hold is
memory of the process.
"""

import argparse
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DEVICES = 8
_MEASURE = r"""
import json, re, resource, sys, time
folder, what, output, setting = sys.argv[1:]
import jax, orbax.checkpoint
from infoxlm_jax.checkpoint import manager
from infoxlm_jax.checkpoint.importers.load import load_weights
from infoxlm_jax.cli import import_checkpoint
from infoxlm_jax.model import partitioning
from infoxlm_jax.runtime import distributed
def peak():
  if sys.platform == "darwin":
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  # Not getrusage: there a process begins with the peak of who started it.
  status = open("/proc/self/status").read()
  return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
distributed.start(setting)
fsdp = len(jax.devices()) if what == "mesh" else 1
shape = partitioning.MeshShape(fsdp=fsdp)
mesh = None if what == "load" else partitioning.make_mesh(shape)
before, start = peak(), time.perf_counter()
if what == "tool":
  if import_checkpoint.main(["--input", folder, "--output", output]):
    sys.exit("the import failed")
else:
  params = load_weights(folder, mesh=mesh)[1]
  jax.block_until_ready(jax.device_put(params) if mesh is None else params)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "peak": peak(), "before": before}))
"""


def write_model(folder: Path, layers: int, hidden: int, vocab: int) -> int:
  """A random XLMRobertaForMaskedLM; returns the size of its file."""
  from safetensors.numpy import save_file

  from infoxlm_jax.checkpoint.importers import (
    assemble,
    hf_config,
    parameter_map,
    tensor_names,
  )
  from infoxlm_jax.model.config import EncoderConfig

  config = EncoderConfig(
    vocab_size=vocab,
    num_layers=layers,
    hidden_size=hidden,
    num_heads=hidden // 64,
    ffn_size=4 * hidden,
    type_vocab_size=1,
  )
  draw = np.random.default_rng(0)
  entries = parameter_map.encoder_entries(config)
  entries += parameter_map.head_entries(config)["masked_lm"]
  tensors = {
    name: 0.02
    * draw.standard_normal(assemble.their_shape(e, config, {}), np.float32)
    for e in entries
    for name in tensor_names.all_names(e, config)
  }
  folder.mkdir()
  save_file(tensors, folder / "model.safetensors")
  described = hf_config.to_hugging_face(config, "XLMRobertaForMaskedLM")
  (folder / "config.json").write_text(json.dumps(described))
  return (folder / "model.safetensors").stat().st_size


def measure(
  folder: Path,
  what: str,
  output: Path,
  size: int,
  devices: int = 1,
  processes: int = 1,
) -> list[dict]:
  """Runs one import in processes of their own."""
  flag = f"--xla_force_host_platform_device_count={devices // processes}"
  env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flag}
  settings = [""]
  if processes > 1:
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = [f"{address},{processes},{i}" for i in range(processes)]
  command = [sys.executable, "-c", _MEASURE, folder, what, output]
  started = [
    subprocess.Popen(
      [*map(str, command), setting],
      cwd=ROOT,
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for setting in settings
  ]
  found = []
  for process in started:
    printed, errors = process.communicate()
    if process.returncode:
      raise SystemExit(errors)
    found.append(_figures(json.loads(printed.strip().splitlines()[-1]), size))
  return found


def _figures(found: dict, size: int) -> dict:
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
    size = write_model(folder, args.layers, args.hidden, args.vocab)
    written = time.perf_counter() - started
    own = Path(place) / "own"
    alone = functools.partial(measure, folder, output=own, size=size)
    mesh = functools.partial(alone, "mesh", devices=DEVICES)
    result = {
      "file_mb": round(size / 1e6),
      "written_seconds": round(written, 1),
      "load_weights": alone("load")[0],
      "import_checkpoint": alone("tool")[0],
      "mesh": mesh()[0],
      "replicas": alone("replicas", devices=DEVICES)[0],
      "two_processes": mesh(processes=2),
    }
  print(json.dumps(result))
  return 0


if __name__ == "__main__":
  sys.exit(main())
