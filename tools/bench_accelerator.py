"""Measures the update on one accelerator, with several settings, in minutes.

    python tools/bench_accelerator.py --preset base [--peer]

The machine needs jax, flax and optax, and torch for --peer; nothing else that
the package installs. Every setting runs in a process of its own (a setting
whose memory does not suffice ends alone, and the table says so): bench_step.py
in bfloat16 with a queue of 131,072 keys, 8 rows of 512 tokens and more for each
of MLM, TLM, queries and keys. After the first setting, and after the fastest
one, bench_torch.py runs the same update in PyTorch (--peer), so that the two
are measured in turns.

MFU is the floating-point operations of the update, from its shapes, over its
seconds and the published peak of the device; what remat computes again does
not count. planned MiB is the compiler's plan, which --compile_for prints,
beside the peak that the device saw. No further setting starts once --seconds
have passed. A table, then one JSON line last.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TOOLS = Path(__file__).resolve().parent
_ROOT = _TOOLS.parent
Report = dict[str, Any]

# The plain one first; then one change at a time, then more rows.
_SETTINGS: dict[str, Sequence[dict[str, Any]]] = {
  "gpu": (
    {},
    {"attention": "cudnn"},
    {"attention": "cudnn", "unroll": 0},
    {"attention": "cudnn", "rows": 32},
    {"attention": "cudnn", "rows": 32, "remat": "dots"},
    {"attention": "cudnn", "rows": 64, "remat": "full"},
    {"attention": "cudnn", "rows": 64, "microbatches": 2},
  ),
  "tpu": (
    {},
    {"attention": "splash"},
    {"attention": "splash", "remat": "dots"},
    {"attention": "splash", "rows": 32, "remat": "full"},
    {"attention": "splash", "rows": 32, "microbatches": 4},
  ),
  "cpu": ({}, {"remat": "dots"}, {"microbatches": 2}),
}
_DEFAULTS = {
  "attention": "xla",
  "remat": "none",
  "unroll": 1,
  "microbatches": 1,
}


def main() -> int:
  """Parses flags, measures, prints one JSON line last."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--preset", default="base", help="as in bench_step.py")
  parser.add_argument("--rows", type=int, default=8, help="at first")
  parser.add_argument("--length", type=int, default=512, help="tokens of a row")
  parser.add_argument("--queue", type=int, default=131072, help="keys")
  parser.add_argument("--dtype", default="bfloat16", help="of the computation")
  parser.add_argument("--steps", type=int, default=10, help="that count")
  parser.add_argument("--warm", type=int, default=3, help="before them")
  parser.add_argument("--seconds", type=float, default=480.0, help="for all")
  parser.add_argument("--settings", type=int, help="only so many of ours")
  parser.add_argument("--peer", action="store_true", help="PyTorch as well")
  parser.add_argument("--peer_python", default=sys.executable)
  parser.add_argument("--peer_options", default="", help="of bench_torch.py")
  parser.add_argument("--output", type=Path, help="file for the JSON as well")
  options = parser.parse_args()
  start = time.monotonic()
  sys.path.append(str(_ROOT))  # a bare machine has no installed package
  platform, device = _device()
  print(f"{device} ({platform}), {options.dtype}, queue {options.queue}")
  settings = _SETTINGS[platform][: options.settings]
  ours: list[Report] = []
  peers: list[Report] = []

  def left() -> float:
    return options.seconds - (time.monotonic() - start)

  for number, changes in enumerate(settings):
    if left() < 0:
      print(f"{len(settings) - number} settings left out: the time is up")
      break
    ours.append(_ours(options, changes, left()))
    if options.peer and number == 0:
      peers.append(_peer(options, ours[0]["rows"], left()))
  done = [one for one in ours if "error" not in one]
  if not done:
    print("no setting ran", file=sys.stderr)
    return 1
  best = max(done, key=lambda one: one["tokens_per_second"])
  if options.peer and left() > 0:
    peers.append(_peer(options, best["rows"], left()))
    if left() > 0 and best is not ours[0]:
      again = {k: best[k] for k in (*_DEFAULTS, "rows")}
      ours.append(_ours(options, again, left()))
  report = {
    "device": device,
    "preset": options.preset,
    "length": options.length,
    "queue": options.queue,
    "dtype": options.dtype,
    "ours": ours,
    "peer": peers,
  }
  report |= _compared(ours, peers)
  print(_table(ours, peers))
  line = json.dumps(report)
  if options.output:
    options.output.write_text(line + "\n", encoding="utf-8")
  print(line)
  return 0


def _device() -> tuple[str, str]:
  """Platform and name of the first device, as a process of its own sees it."""
  from infoxlm_jax.analysis import device_probe

  seen = device_probe.devices()
  if isinstance(seen, str):
    raise SystemExit(f"jax does not start here: {seen}")
  platform, device, _ = seen[0]
  return platform, device


def _ours(
  options: argparse.Namespace, changes: dict[str, Any], left: float
) -> Report:
  """bench_step.py with one setting."""
  setting = {**_DEFAULTS, "rows": options.rows, **changes}
  flags = [f"--{name}={value}" for name, value in setting.items()]
  return setting | _json_of(
    [
      *(sys.executable, str(_TOOLS / "bench_step.py"), *_shared(options)),
      *flags,
    ],
    left,
    options,
  )


def _peer(options: argparse.Namespace, rows: int, left: float) -> Report:
  """bench_torch.py with as many rows."""
  return {"rows": rows} | _json_of(
    [
      *(options.peer_python, str(_TOOLS / "bench_torch.py")),
      *(*_shared(options), f"--rows={rows}", *options.peer_options.split()),
    ],
    left,
    options,
  )


def _shared(options: argparse.Namespace) -> list[str]:
  names = ("preset", "length", "queue", "dtype", "steps", "warm")
  return [f"--{name}={getattr(options, name)}" for name in names]


def _json_of(
  command: Sequence[str], left: float, options: argparse.Namespace
) -> Report:
  """The last line of a program as JSON; or {"error": its last words}."""
  shown = " ".join(command[1:]).replace(f"{_TOOLS}{os.sep}", "")
  print(shown, flush=True)
  paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
  env = os.environ | {
    "PYTHONPATH": os.pathsep.join(p for p in paths if p),
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
  }
  try:
    done = subprocess.run(
      command, capture_output=True, text=True, env=env, timeout=max(left, 120)
    )
  except subprocess.TimeoutExpired:
    return _failed("it took too long")
  if done.returncode:
    lines = done.stderr.strip().splitlines() or ["it ended without a word"]
    full = [line for line in lines if "RESOURCE_EXHAUSTED" in line]
    return _failed((full or lines)[-1][:300])
  report: Report = json.loads(done.stdout.strip().splitlines()[-1])
  report["mfu"] = _mfu(report, options.dtype)
  print(f"  {report['tokens_per_second']:,.0f} tokens/s", flush=True)
  return report


def _failed(error: str) -> Report:
  print(f"  {error}", flush=True)
  return {"error": error}


def _mfu(report: Report, dtype: str) -> float | None:
  """Share of the published peak; None: no published figure is at hand."""
  from infoxlm_jax.analysis.chips import CHIPS

  if "gflops" not in report:
    return None
  words = report["device"].lower().replace("-", " ").split()
  for name, chip in CHIPS.items():
    if name in words:
      return round(1e9 * report["gflops"] / chip.peak[dtype], 4)
  return None


def _compared(ours: Sequence[Report], peers: Sequence[Report]) -> Report:
  """Our tokens a second over PyTorch's, by rows: the best of each."""
  ratios = {}
  for rows in sorted({one["rows"] for one in peers}):
    rates = [
      [one.get("tokens_per_second", 0) for one in runs if one["rows"] == rows]
      for runs in (ours, peers)
    ]
    if all(map(any, rates)):
      ratios[str(rows)] = round(max(rates[0]) / max(rates[1]), 3)
  return {"tokens_per_second_over_peer": ratios} if ratios else {}


def _table(ours: Sequence[Report], peers: Sequence[Report]) -> str:
  """What was measured, as markdown."""
  columns = "rows|attention|remat|unroll|microbatches|tokens/s|MFU|peak MiB"
  columns += "|planned MiB"
  names = ("rows", *_DEFAULTS)
  lines = ["", f"|{columns}|", "|---" * len(columns.split("|")) + "|"]
  for one in [*ours, *peers]:
    own = [str(one.get(name, "")) for name in names]
    if "attention" not in one:
      own[1] = f"PyTorch {one.get('torch', '')}".strip()
    if "error" in one:
      own += [one["error"].replace("|", "/"), "", "", ""]
    else:
      mfu = one.get("mfu")
      own += [
        f"{one['tokens_per_second']:,.0f}",
        "" if mfu is None else f"{100 * mfu:.1f} %",
        str(one.get("peak_device_mib") or ""),
        str(one.get("planned_mib") or ""),
      ]
    lines.append("|" + "|".join(own) + "|")
  return "\n".join([*lines, ""])


if __name__ == "__main__":
  sys.exit(main())
