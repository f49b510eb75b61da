"""Measures an update: seconds, memory, arithmetic; the last line is JSON.

    python tools/bench_step.py --preset tiny|small|base|large --steps 5
    python tools/bench_step.py --preset small --pairs 'en-*.tsv' --tokenizer F
    python tools/bench_step.py --preset small --sweep queue
    python tools/bench_step.py --preset base --peer PEER.py

The default measures MLM, TLM and XlCo on synthetic token ids, 8 rows of 128
for each of MLM, TLM, queries and keys: 4,096 tokens, in float32. In the JSON:
seconds_per_step (median), tokens_per_step, gflop_per_step (matrix products,
from shapes), gflops (their quotient), gemm_gflops (what one large product
reaches in the same process), peak_rss_mib, compile_seconds; of an accelerator
peak_device_mib, beside planned_mib, the compiler's plan.
bench_accelerator.py calls this program with several settings.

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

from bench_common import PRESETS, Batch, Bench, Preset, Rows, synthetic
from infoxlm_jax.runtime import host_memory

SWEEPS = {
  "queue": (1024, 4096, 16384, 65536, 131072),
  "vocab": (8000, 32000, 64000, 128000, 250002),
}


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


def peak_device_mib() -> float | None:
  """Of the first device since the process began; None: it does not say."""
  import jax

  stats = jax.local_devices()[0].memory_stats()
  if not stats or "peak_bytes_in_use" not in stats:
    return None
  return round(stats["peak_bytes_in_use"] / 2**20, 1)


def measure_synthetic(preset: Preset, options: argparse.Namespace) -> Batch:
  """Full rows of the three objectives."""
  import jax

  shape = rows_of(options)

  def batches() -> Iterator[Batch]:
    number = 0
    while True:
      yield synthetic(1, number, preset.vocab, shape)
      number += 1

  bench = Bench(preset, next(batches()), shape.rows, options)
  taken = bench.seconds(batches(), options.warm, options.steps)
  peak = peak_rss_mib()
  if options.trace:
    bench.trace(synthetic(1, 0, preset.vocab, shape), options.trace)
  seconds = statistics.median(taken)
  tokens = 4 * shape.rows * shape.length
  gflop = bench.gflop(
    dict.fromkeys(("mlm", "tlm", "xlco"), (shape.rows, shape.length)),
    shape.rows,
  )
  return {
    "device": jax.local_devices()[0].device_kind,
    "seconds_per_step": round(seconds, 5),
    "min": round(min(taken), 5),
    "max": round(max(taken), 5),
    "tokens_per_step": tokens,
    "tokens_per_second": round(tokens / seconds, 1),
    "gflop_per_step": round(gflop, 1),
    "gflops": round(gflop / seconds, 1),
    "gemm_gflops": round(gemm_gflops(), 1),
    "peak_rss_mib": round(peak, 1),
    "peak_device_mib": peak_device_mib(),
    "planned_mib": round(bench.planned_bytes / 2**20, 1),
    "compile_seconds": round(bench.compile_seconds, 2),
    "losses": bench.losses,
  }


def rows_of(options: argparse.Namespace) -> Rows:
  """The shape of synthetic batches."""
  return Rows(options.rows, options.length, options.microbatches)


def sweep(preset: Preset, options: argparse.Namespace) -> Batch:
  """Seconds of an update at several queue lengths or vocabularies."""
  curve, shape = {}, rows_of(options)
  for value in SWEEPS[options.sweep]:
    changed = dataclasses.replace(preset, **{options.sweep: value})
    example = synthetic(1, 0, changed.vocab, shape)
    bench = Bench(changed, example, shape.rows, options)
    batches = (synthetic(1, n, changed.vocab, shape) for n in range(10**6))
    taken = bench.seconds(batches, options.warm, options.steps)
    curve[str(value)] = round(statistics.median(taken), 5)
    print(f"{options.sweep} {value:>7}: {curve[str(value)]:.4f} s", flush=True)
  return {"sweep": options.sweep, "seconds_per_step": curve}


def main() -> int:
  """Parses flags, measures, prints one JSON line last."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--preset", choices=PRESETS, default="tiny")
  parser.add_argument("--steps", type=int, default=5, help="updates that count")
  parser.add_argument("--warm", type=int, default=2, help="updates before them")
  parser.add_argument("--rows", type=int, default=8, help="of each stream")
  parser.add_argument("--length", type=int, default=128, help="tokens of a row")
  parser.add_argument("--microbatches", type=int, default=1)
  parser.add_argument("--queue", type=int, help="keys; default: the preset's")
  parser.add_argument(
    "--attention", default="xla", help="EncoderConfig.attention"
  )
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
  if options.rows % options.microbatches:
    parser.error(
      f"--rows {options.rows} is not a multiple of --microbatches"
      f" {options.microbatches}"
    )
  preset = PRESETS[options.preset]
  if options.queue:
    preset = dataclasses.replace(preset, queue=options.queue)
  measure: Callable[[Preset, argparse.Namespace], Batch] = measure_synthetic
  if options.peer:
    import bench_turns

    found = bench_turns.in_turns(options)
  else:
    if options.sweep:
      measure = sweep
    elif options.pairs:
      import bench_pairs

      measure = bench_pairs.measure
    found = measure(preset, options)
  shapes = dataclasses.asdict(preset)
  print(json.dumps({"preset": options.preset, **shapes, **found}))
  return 0


if __name__ == "__main__":
  host_memory.use_huge_pages()
  sys.exit(main())
