"""Measures an update: seconds, memory, arithmetic; the last line is JSON.

    python tools/bench_step.py --preset tiny|small|base --steps 5
    python tools/bench_step.py --preset small --pairs 'en-*.tsv' --tokenizer F
    python tools/bench_step.py --preset small --sweep queue
    python tools/bench_step.py --preset base --peer PEER.py

The default measures MLM, TLM and XlCo on synthetic token ids, 8 rows of 128
for each of MLM, TLM, queries and keys: 4,096 tokens, in float32. In the JSON:
seconds_per_step (median), tokens_per_step, gflop_per_step (matrix products,
from shapes), gflops (their quotient), gemm_gflops (what one large product
reaches in the same process), peak_rss_mib, compile_seconds.

--pairs measures real sentence pairs, as many in TLM as in XlCo: packed rows,
and the same items one a row. --peer runs another program in turns with this
one and adds the ratio of medians; with --pairs through tools/bench_peer.py,
on the same sentences. Nothing else may run meanwhile, and the machine's name
belongs beside every number.
"""

import argparse
import dataclasses
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infoxlm_jax.runtime import host_memory

ROWS, LENGTH = 8, 128  # of each stream of the synthetic batch
Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Preset:
  """Shapes of a model and its contrast."""

  layers: int
  hidden: int
  heads: int
  ffn: int
  vocab: int
  queue: int
  contrast_layer: int


PRESETS = {
  "quickstart": Preset(3, 256, 4, 512, 8002, 2048, 1),
  "tiny": Preset(4, 256, 4, 1024, 8000, 1024, 3),
  "small": Preset(6, 384, 6, 1536, 32000, 4096, 4),
  "base": Preset(12, 768, 12, 3072, 250002, 16384, 8),
}
SWEEPS = {
  "queue": (1024, 4096, 16384, 65536, 131072),
  "vocab": (8000, 32000, 64000, 128000, 250002),
}


def synthetic(seed: int, step: int, vocab: int) -> Batch:
  """Token ids of one step: a function of (seed, step), full rows.

  19 targets a row, 80 % <mask>, 10 % random, 10 % kept.
  """
  random = np.random.default_rng([seed, step])
  count = max(1, round(0.15 * (LENGTH - 2)))

  def sentences() -> np.ndarray:
    ids = random.integers(4, vocab - 1, size=(ROWS, LENGTH))
    ids[:, 0], ids[:, -1] = 0, 2
    return ids

  def masked() -> Batch:
    ids = sentences()
    tokens, targets = ids.copy(), np.full_like(ids, -1)
    for row in range(ROWS):
      places = random.choice(np.arange(1, LENGTH - 1), count, replace=False)
      targets[row, places] = ids[row, places]
      how = random.random(count)
      tokens[row, places[how < 0.8]] = vocab - 1
      other = places[(how >= 0.8) & (how < 0.9)]
      tokens[row, other] = random.integers(4, vocab - 1, size=len(other))
    return rows(tokens) | {"targets": targets[None].astype(np.int32)}

  def rows(tokens: np.ndarray) -> Batch:
    numbers = np.broadcast_to(1 + np.arange(ROWS)[:, None], tokens.shape)
    places = np.broadcast_to(np.arange(LENGTH), tokens.shape)
    found = {"tokens": tokens, "segments": numbers, "positions": places}
    return {name: x[None].astype(np.int32) for name, x in found.items()}

  mlm, tlm = masked(), masked()
  query, key = rows(sentences()), rows(sentences())
  items = np.zeros((1, ROWS), np.int32)
  return {
    "mlm": mlm,
    "tlm": tlm,
    "xlco": {"query": query, "key": key, "items": items},
  }


def parts(
  preset: Preset, example: Batch, options: argparse.Namespace
) -> tuple[Any, dict[str, Any], Any, Any]:
  """Model, objectives, optimiser and its rate."""
  from infoxlm_jax.model.config import EncoderConfig
  from infoxlm_jax.objectives.contrast import Contrast
  from infoxlm_jax.objectives.masked_lm import MaskedLM
  from infoxlm_jax.training import optimizer, schedules

  model = EncoderConfig(
    preset.vocab,
    preset.layers,
    preset.hidden,
    preset.heads,
    preset.ffn,
    dtype=options.dtype,
    remat=options.remat,
    unroll=options.unroll or preset.layers,
  )
  # Ready-made targets have 19 places a row; drawn ones as many as a run.
  slots = 19 if "mlm" in example else None
  objectives: dict[str, Any] = {
    name: MaskedLM(name, mask_slots=slots)
    for name in ("mlm", "tlm")
    if name in example
  }
  objectives["xlco"] = Contrast(
    layer=preset.contrast_layer, queue_size=preset.queue, mask_prob=0.0
  )
  rate = schedules.linear_warmup_decay(2e-4, 10, 200)
  return model, objectives, optimizer.adamw(rate), rate


class Bench:
  """A compiled update of a preset, and its state."""

  def __init__(
    self,
    preset: Preset,
    example: Batch,
    items: int,
    options: argparse.Namespace,
  ):
    import jax

    from infoxlm_jax.model import partitioning
    from infoxlm_jax.training import schedules, step
    from infoxlm_jax.training import state as train_state

    self.model, self.objectives, adam, rate = parts(preset, example, options)
    mesh = partitioning.make_mesh(partitioning.MeshShape(devices=1))
    self.state = train_state.init_sharded(
      1, self.model, self.objectives, adam, items, mesh
    )
    update: Any = step.make_train_step(
      self.state,
      mesh,
      self.model,
      self.objectives,
      adam,
      learning_rate=rate,
      momentum=schedules.constant(0.999),
    )
    self._place = partitioning.batch_sharding(mesh)
    start = time.perf_counter()
    placed = jax.device_put(example, self._place)
    self._update = update.lower(self.state, placed).compile()
    self.compile_seconds = time.perf_counter() - start
    host_memory.give_back_freed()
    self.losses: list[float] = []

  def seconds(self, batches: Iterator[Batch], warm: int, steps: int) -> Any:
    """Seconds of each of `steps` updates, after `warm` that do not count."""
    import jax

    taken = []
    for number in range(warm + steps):
      batch = jax.device_put(next(batches), self._place)
      jax.block_until_ready(batch)
      start = time.perf_counter()
      self.state, metrics = self._update(self.state, batch)
      jax.block_until_ready((self.state, metrics))
      if number >= warm:
        taken.append(time.perf_counter() - start)
      self.losses.append(round(float(metrics["loss"]), 5))
    return taken

  def gflop(self, rows: dict[str, tuple[int, int]], items: int) -> float:
    """Of an update, from shapes; rows: (rows, length) of every stream."""
    from infoxlm_jax.analysis import cost_model

    shapes = {name: _Shape(items, *rows[name]) for name in self.objectives}
    flops = cost_model.step_flops(self.model, self.objectives, shapes)
    return sum(flops.values()) / 1e9

  def trace(self, batch: Batch, folder: str) -> None:
    """A profile of one update, for TensorBoard or xprof."""
    import jax

    placed = jax.device_put(batch, self._place)
    with jax.profiler.trace(folder):
      self.state, metrics = self._update(self.state, placed)
      jax.block_until_ready((self.state, metrics))


@dataclasses.dataclass(frozen=True)
class _Shape:
  """What costs.step_flops asks of a stream."""

  batch: int
  rows: int
  row_length: int


def gemm_gflops(size: int = 3072) -> float:
  """GFLOP/s of a product of two square float32 matrices, the best of five."""
  import jax
  import jax.numpy as jnp

  a = jnp.ones((size, size))
  product = jax.jit(lambda a: a @ a)
  taken = []
  for _ in range(6):
    start = time.perf_counter()
    product(a).block_until_ready()
    taken.append(time.perf_counter() - start)
  return 2 * size**3 / min(taken[1:]) / 1e9


def peak_rss_mib() -> float:
  """Of this process since it began."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak / (2**20 if sys.platform == "darwin" else 2**10)


def measure_synthetic(preset: Preset, options: argparse.Namespace) -> Batch:
  """Full rows of the three objectives."""

  def batches() -> Iterator[Batch]:
    number = 0
    while True:
      yield synthetic(1, number, preset.vocab)
      number += 1

  bench = Bench(preset, synthetic(1, 0, preset.vocab), ROWS, options)
  taken = bench.seconds(batches(), options.warm, options.steps)
  peak = peak_rss_mib()
  if options.trace:
    bench.trace(synthetic(1, 0, preset.vocab), options.trace)
  seconds = statistics.median(taken)
  tokens = 4 * ROWS * LENGTH
  gflop = bench.gflop(
    dict.fromkeys(("mlm", "tlm", "xlco"), (ROWS, LENGTH)), ROWS
  )
  return {
    "seconds_per_step": round(seconds, 5),
    "min": round(min(taken), 5),
    "max": round(max(taken), 5),
    "tokens_per_step": tokens,
    "tokens_per_second": round(tokens / seconds, 1),
    "gflop_per_step": round(gflop, 1),
    "gflops": round(gflop / seconds, 1),
    "gemm_gflops": round(gemm_gflops(), 1),
    "peak_rss_mib": round(peak, 1),
    "compile_seconds": round(bench.compile_seconds, 2),
    "losses": bench.losses,
  }


def sweep(preset: Preset, options: argparse.Namespace) -> Batch:
  """Seconds of an update at several queue lengths or vocabularies."""
  found = {}
  for value in SWEEPS[options.sweep]:
    changed = dataclasses.replace(preset, **{options.sweep: value})
    bench = Bench(changed, synthetic(1, 0, changed.vocab), ROWS, options)
    batches = (synthetic(1, n, changed.vocab) for n in range(10**6))
    taken = bench.seconds(batches, options.warm, options.steps)
    found[str(value)] = round(statistics.median(taken), 5)
    print(f"{options.sweep} {value:>7}: {found[str(value)]:.4f} s", flush=True)
  return {"sweep": options.sweep, "seconds_per_step": found}


def main() -> int:
  """Parses flags, measures, prints one JSON line last."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--preset", choices=PRESETS, default="tiny")
  parser.add_argument("--steps", type=int, default=5, help="updates that count")
  parser.add_argument("--warm", type=int, default=2, help="updates before them")
  parser.add_argument("--remat", default="none", help="EncoderConfig.remat")
  parser.add_argument("--dtype", default="float32", help="of the computation")
  parser.add_argument(
    "--unroll", type=int, default=0, help="layers in a turn of the loop; 0: all"
  )
  parser.add_argument("--sweep", choices=SWEEPS, help="measure a curve")
  parser.add_argument("--pairs", default="", help="files of sentence pairs")
  parser.add_argument(
    "--tokenizer", default="", help="for --pairs; default: the verses'"
  )
  parser.add_argument(
    "--batch", type=int, default=64, help="pairs, for --pairs"
  )
  parser.add_argument("--row_length", type=int, default=128, help="for --pairs")
  parser.add_argument("--trace", default="", help="folder for a profile")
  parser.add_argument("--peer", default="", help="a program to be run in turns")
  parser.add_argument("--peer_python", default=sys.executable)
  parser.add_argument("--peer_options", default="", help="its further flags")
  parser.add_argument("--rounds", type=int, default=3, help="of --peer")
  parser.add_argument("--keep_batches", default="", help=argparse.SUPPRESS)
  options = parser.parse_args()
  preset = PRESETS[options.preset]
  measure: Callable[[Preset, argparse.Namespace], Batch] = measure_synthetic
  if options.peer:
    from tools import bench_turns

    found = bench_turns.in_turns(options)
  else:
    if options.sweep:
      measure = sweep
    elif options.pairs:
      from tools import bench_pairs

      measure = bench_pairs.measure
    found = measure(preset, options)
  shapes = dataclasses.asdict(preset)
  print(json.dumps({"preset": options.preset, **shapes, **found}))
  return 0


if __name__ == "__main__":
  host_memory.use_huge_pages()
  sys.exit(main())
