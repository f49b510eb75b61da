"""Counts the bytes that a device sends in an update, from the compiled program.

    python tools/bench_collectives.py
    python tools/bench_collectives.py --preset small --json collectives.json

On virtual CPU devices, so nothing is timed. The batch of a device is always
the same (8 rows of MLM, TLM, queries and keys); one line for every way to
split, number of devices and queue length. Beside it the least that the
parameters need, with n devices and p bytes of parameters: copied, their
gradient is summed, 2 p (n - 1) / n; ZeRO-1 scatters it and gathers new
parameters, as much; FSDP gathers a layer for each pass over it and scatters
its gradient, (n - 1) / n times the sum over passes. The last line is JSON.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from bench_common import PRESETS, Batch, Preset, Rows, parts, synthetic

COUNTS = (1, 2, 4, 8)
QUEUES = (1024, 8192)
MODES = ("copied", "zero1", "fsdp")


def measure(
  preset: Preset, mode: str, count: int, options: argparse.Namespace
) -> Batch:
  """Bytes of one compiled update on `count` devices."""
  import jax
  import numpy as np

  from infoxlm_jax.analysis import hlo, roofline
  from infoxlm_jax.model import partitioning
  from infoxlm_jax.training import state as train_state
  from infoxlm_jax.training import step

  one = synthetic(1, 0, preset.vocab, Rows())
  example = jax.tree.map(lambda x: np.concatenate([x] * count), one)
  model, objectives, adam, rate = parts(preset, example, options)
  zero1 = mode == "zero1"
  fsdp = count if mode == "fsdp" else 1
  mesh = partitioning.make_mesh(
    partitioning.MeshShape(fsdp=fsdp, devices=count)
  )
  batches = dict.fromkeys(objectives, Rows().rows * count)
  recipe = train_state.Recipe(model, objectives, adam, batches)
  state = train_state.abstract(recipe, mesh, zero1)
  update: Any = step.make_train_step(
    recipe, state, mesh, learning_rate=rate, zero1=zero1
  )
  place = partitioning.batch_sharding(mesh)
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), example
  )
  found = hlo.collectives(update.lower(state, batch).compile().as_text())
  in_loops = [c.largest for c in found if c.in_loop]
  return {
    "mode": mode,
    "devices": count,
    "queue": preset.queue,
    "sent": roofline.traffic(found, count)[0],
    "least": _least(state, mode, count, preset),
    "largest_in_a_loop": max(in_loops, default=0),
    "largest": max((c.largest for c in found), default=0),
  }


def _least(state: Any, mode: str, count: int, preset: Preset) -> float:
  """The least bytes that the parameters need; the module has the formulas."""
  import jax

  def size(tree: Any) -> int:
    return sum(4 * x.size for x in jax.tree.leaves(tree))

  share = (count - 1) / count
  if mode != "fsdp":
    return 2 * share * size(state.params)
  layer = size(state.params["layers"]) / preset.layers
  rest = size(state.params) - layer * preset.layers
  keys = size(state.objective_state["xlco"].key_params)
  trained = (preset.layers + preset.contrast_layer) * layer + rest
  # Forward and gradient, and the key encoder forward.
  return share * (2 * trained + keys)


def main() -> int:
  """Parses flags, compiles, prints one JSON line last."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--preset", choices=PRESETS, default="tiny")
  parser.add_argument("--json", default="", help="file to write as well")
  options = parser.parse_args()
  options.dtype, options.remat, options.unroll = "float32", "none", 1
  options.attention, options.microbatches = "xla", 1

  import jax

  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", max(COUNTS))
  found = []
  print(
    "mode    devices  queue  sent MB  least MB  ratio  largest in a loop KB"
  )
  for mode in MODES:
    for count in COUNTS:
      # Traffic that grows with the queue shows best on most devices.
      for queue in QUEUES if count == max(COUNTS) else QUEUES[:1]:
        preset = dataclasses.replace(PRESETS[options.preset], queue=queue)
        one = measure(preset, mode, count, options)
        found.append(one)
        ratio = one["sent"] / one["least"] if one["least"] else 1.0
        print(
          f"{mode:7} {count:7} {queue:6} {one['sent'] / 1e6:8.3f}"
          f" {one['least'] / 1e6:9.3f} {ratio:6.3f}"
          f" {one['largest_in_a_loop'] / 1e3:21.1f}",
          flush=True,
        )
  line = json.dumps({"preset": options.preset, "found": found})
  if options.json:
    Path(options.json).write_text(line + "\n")
  print(line)
  return 0


if __name__ == "__main__":
  sys.exit(main())
