"""Formats a report of compile_ahead.py as text."""

from collections.abc import Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]

_NAMES = {
  "params": "parameters",
  "key_params": "key parameters",
  "opt_state": "moments",
  "queue": "queue",
  "gradients": "gradients",
  "copies": "copies of parameters",
  "kept": "kept for backward",
  "layer": "one layer backward",
  "softmax": "logits",
}
_BOUNDS = {
  "compute": "matrix products at peak",
  "memory": "state to and from memory",
  "links": "collectives inside a slice",
  "network": "collectives between slices",
}


def in_words(report: Report) -> str:
  """The text of a report."""
  compiled = "collectives" in report
  lines = [
    *_size(report),
    *_bytes(report, compiled),
    *_flops(report),
    *(_collectives(report["collectives"]) if compiled else ()),
    *_bound(report, compiled),
  ]
  if "compile_seconds" in report:
    lines.append(f"compiled in       {report['compile_seconds']:.0f} s")
  return "\n".join(lines)


def _size(report: Report) -> list[str]:
  mesh = ", ".join(f"{name} {size}" for name, size in report["mesh"].items())
  where = f" of {report['target']}" if report["target"] else ""
  lines = [
    f"parameters        {report['parameters']:,}",
    f"mesh              {mesh} on {report['devices']} device(s){where}",
  ]
  if report["key_parameters"]:
    lines.insert(1, f"key parameters    {report['key_parameters']:,}")
  return lines


def _bytes(report: Report, compiled: bool) -> list[str]:
  state = report["state_bytes"]
  guess = report["temporary_bytes_estimate"]
  lines = ["bytes per device  (MiB)"]
  lines += [_mebibytes(_NAMES[name], size) for name, size in state.items()]
  lines.append(_mebibytes("state", sum(state.values())))
  lines.append("  and, estimated from shapes:")
  lines += [_mebibytes(_NAMES[name], size) for name, size in guess.items()]
  lines.append(_mebibytes("peak, estimated", report["peak_bytes_estimate"]))
  if compiled:
    lines.append("  as compiled:")
    parts = report["compiled_bytes"]
    lines += [_mebibytes(name, size) for name, size in parts.items()]
    share = report["peak_bytes"] / report["memory_bytes"]
    lines.append(_mebibytes("peak", report["peak_bytes"]))
    lines[-1] += f"  {100 * share:.0f} % of the device's memory"
  if "fits" in report:
    lines.append(f"fits              {'yes' if report['fits'] else 'NO'}")
  else:
    fits = report["fits_estimate"]
    yes = [name for name, ok in fits.items() if ok]
    no = [name for name, ok in fits.items() if not ok]
    lines.append(f"should fit        {', '.join(yes) or 'none'}")
    if no:
      lines.append(f"should not fit    {', '.join(no)}")
  return lines


def _flops(report: Report) -> list[str]:
  lines = ["FLOPs per update  (matrix products, from shapes; G)"]
  for name, number in report["flops"].items():
    lines.append(f"  {name:<21} {number / 1e9:>14,.2f}")
  lines.append(f"  {'total':<21} {report['flops_total'] / 1e9:>14,.2f}")
  lines.append(f"  {'a device':<21} {report['flops_per_device'] / 1e9:>14,.2f}")
  line = f"intensity         {report['intensity']:,.0f} FLOPs a byte of state"
  if "balance" in report:
    line += f"; the chip's balance is {report['balance']:,.0f}"
  return [*lines, line]


def _collectives(entries: Sequence[Mapping[str, Any]]) -> list[str]:
  lines = [
    "collectives       (bytes of one, on one device; how often in a step)",
    f"  {'kind':<19}{'MiB':>10}{'times':>7}  {'along':<18}{'in loops of':<12}",
  ]
  for entry in entries:
    loops = " x ".join("?" if n is None else str(n) for n in entry["loops"])
    along = ",".join(entry["axes"]) or "all"
    lines.append(
      f"  {entry['kind']:<19}{entry['bytes'] / 2**20:>10,.3f}"
      f"{entry['times']:>7}  {along:<18}{loops or '-':<12}".rstrip()
    )
  return lines


def _bound(report: Report, compiled: bool) -> list[str]:
  if "bound_seconds" not in report:
    return []
  title = "lower bound       (seconds a step, at published peaks; no forecast)"
  lines = [title]
  for name, seconds in report["bound_seconds"].items():
    value = "not published" if seconds is None else f"{seconds:.4f}"
    lines.append(f"  {_BOUNDS[name]:<27} {value:>14}")
  if compiled:
    lines.append(
      f"  a step takes {report['bound']:.4f} s at least:"
      f" {_BOUNDS[report['bound_by']]}"
    )
  return lines


def _mebibytes(name: str, size: float) -> str:
  return f"  {name:<21} {size / 2**20:>14,.1f}"


def remedies(report: Report) -> str:
  """Suggests three settings to change, those that save most memory first."""
  now, state = report["settings"], report["state_bytes"]
  guess = report["temporary_bytes_estimate"]
  mesh, devices = report["mesh"], report["devices"]
  choices: list[tuple[float, str]] = []
  micro = 2 * now["microbatches"]
  groups = now["groups"]
  more = f"--gin.MICROBATCHES={micro} (now {now['microbatches']}"
  if groups % (devices * micro):
    more += f", and --gin.GROUPS={devices * micro}"
  used = guess["kept"] + guess["layer"] + guess["softmax"]
  choices.append((used, more + ")"))
  if now["remat"] != "full":
    better = "dots" if now["remat"] == "none" else "full"
    choices.append(
      (
        guess["kept"],
        f"--gin.REMAT={better} (now {now['remat']})",
      )
    )
  if not now["zero1"] and devices > 1:
    spared = state["opt_state"] * (1 - 1 / devices)
    choices.append((spared, "--gin.ZERO1=True (now False)"))
  split = mesh.get("fsdp", 1)
  if 2 * split <= devices and devices % (2 * split) == 0:
    choices.append(
      (
        sum(state.values()) + guess["gradients"],
        f"--gin.partitioning.MeshShape.fsdp={2 * split} (now {split})",
      )
    )
  chunk = now["logits_chunk"]
  if chunk is not None and chunk > 512:
    choices.append(
      (
        guess["softmax"],
        f"--gin.LOGITS_CHUNK={max(512, chunk // 4)} (now {chunk})",
      )
    )
  choices.sort(key=lambda choice: -choice[0])
  said = [text for _, text in choices[:3]]
  # Where a mesh has no more to split and nothing is left to recompute.
  said += ["a larger slice or node", "half the batch and rows of the streams"]
  return "Change one of these: " + "; ".join(said[:3])
