"""Computes a training step's costs on a machine that need not be here.

They come from shapes alone (a dry run), or from compiling the training step
for the machine. A report is a dict that can be written as JSON;
compile_report.py formats it as text.
"""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from infoxlm_jax.analysis import cost_model, hlo, roofline, targets
from infoxlm_jax.analysis.chips import CHIPS
from infoxlm_jax.analysis.compile_report import in_words, remedies
from infoxlm_jax.analysis.targets import Target
from infoxlm_jax.errors import InputError
from infoxlm_jax.model import partitioning
from infoxlm_jax.objectives.masked_lm import MaskedLM
from infoxlm_jax.runtime.files import write_atomically
from infoxlm_jax.training.program import Program

Report = dict[str, Any]

# Where no GPU is, XLA cannot time kernels, and the tiles that it guesses for
# Triton's products may fit none (jax 0.10.2): the library's products instead.
_OPTIONS: dict[str, dict[str, str | bool]] = {
  "tpu": {},
  "cuda": {"xla_gpu_enable_triton_gemm": False},
}


class DoesNotFit(Exception):
  """The step needs more memory than a device of the target has."""


def mesh_for(
  shape: partitioning.MeshShape, target: Target | None, compiling: bool
) -> Any:
  """The mesh that a run on the target would have.

  Args:
    shape: sizes of the mesh.
    target: None: any that has as many devices as the shape asks for.
    compiling: whether descriptions of the target's devices are needed; else
      the mesh has sizes only.
  """
  if target is None:
    return partitioning.abstract_mesh(shape)
  if compiling:
    return partitioning.make_mesh(shape, targets.devices(target))
  return partitioning.abstract_mesh(shape, target.count)


def report_costs(
  program: Program,
  *,
  target: Target | None = None,
  compiling: bool = False,
  json_file: str | None = None,
) -> None:
  """Prints the report of a program, and writes it as JSON.

  Args:
    program: on a mesh from mesh_for; its streams have rows.
    target: the machine. None: all known chips are compared.
    compiling: whether to compile the step for the target, too.
    json_file: file to write the report to.

  Raises:
    DoesNotFit: a compiled step is too large for the target; raised after the
      report has been printed and written.
    InputError: there is no folder for json_file.
  """
  if json_file is not None and not Path(json_file).parent.is_dir():
    raise InputError(f"--json={json_file}: there is no such folder")
  report = from_shapes(program, target)
  problem = ""
  if compiling:
    assert target is not None
    problem = _compile(report, program, target)
  if json_file is not None:
    write_atomically(json_file, json.dumps(report, indent=1) + "\n")
  print(in_words(report))
  if problem:
    raise DoesNotFit(f"{problem} {remedies(report)}")


def from_shapes(program: Program, target: Target | None) -> Report:
  """The part of a report that needs no compiler; see `report_costs`."""
  model, state, mesh = program.model, program.state, program.mesh
  objectives: Mapping[str, Any] = program.objectives
  streams = program.streams
  microbatches = program.parallelism.microbatches
  by_part = cost_model.state_bytes(state)
  temporary = cost_model.temporary_bytes(
    model, state, objectives, streams, mesh.shape, microbatches
  )
  peak = sum(by_part.values()) + sum(temporary.values())
  flops = cost_model.step_flops(model, objectives, streams)
  total = sum(flops.values())
  # The state is read and written once; of the queue, one slot is written.
  moved = 2 * sum(by_part.values()) - by_part["queue"]
  chips = CHIPS if target is None else {target.chip.name: target.chip}
  report: Report = {
    "target": None if target is None else target.name,
    "devices": mesh.size,
    "mesh": dict(mesh.shape),
    **cost_model.parameters(state),
    "state_bytes": by_part,
    "temporary_bytes_estimate": temporary,
    "peak_bytes_estimate": peak,
    "fits_estimate": {
      name: peak <= chip.memory for name, chip in chips.items()
    },
    "flops": flops,
    "flops_total": total,
    "flops_per_device": total / mesh.size,
    "memory_bytes_least": moved,
    "intensity": total / mesh.size / moved,
  }
  if target is not None:
    bound = roofline.lower_bound(
      target.chip, model.dtype, total / mesh.size, moved, 0, 0
    )
    report["memory_bytes"] = target.chip.memory
    report["peak_flops"] = target.chip.peak[model.dtype]
    report["balance"] = target.chip.peak[model.dtype] / target.chip.memory_rate
    report["bound_seconds"] = {
      "compute": bound.compute,
      "memory": bound.memory,
    }
  report["settings"] = {
    "microbatches": microbatches,
    "groups": program.parallelism.groups,
    "zero1": program.parallelism.zero1,
    "remat": model.remat,
    "dtype": model.dtype,
    "logits_chunk": min(
      (o.logits_chunk for o in objectives.values() if isinstance(o, MaskedLM)),
      default=None,
    ),
  }
  return report


def _compile(report: Report, program: Program, target: Target) -> str:
  """Compiles the step and extends the report; returns the problem or ""."""
  mesh = program.mesh
  batch = abstract_batch(program.streams, program.parallelism.groups, mesh)
  lowered = program.train_step().lower(program.state, batch)
  started = time.monotonic()
  try:
    compiled = lowered.compile(_OPTIONS[target.chip.platform])
  except jax.errors.JaxRuntimeError as error:
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text:
      raise
    report["fits"] = False
    report["compile_seconds"] = time.monotonic() - started
    return f"{target.name}: the step does not fit: {_first_lines(text)}"
  report["compile_seconds"] = time.monotonic() - started
  memory = compiled.memory_analysis()
  collectives = hlo.collectives(compiled.as_text())
  peak = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
    + memory.generated_code_size_in_bytes
  )
  inside, between = roofline.traffic(collectives, mesh.size, target.slices)
  bound = roofline.lower_bound(
    target.chip,
    report["settings"]["dtype"],
    report["flops_per_device"],
    report["memory_bytes_least"],
    inside,
    between,
  )
  report |= {
    "fits": peak <= target.chip.memory,
    "peak_bytes": peak,
    "compiled_bytes": {
      "arguments": memory.argument_size_in_bytes,
      "outputs beside them": memory.output_size_in_bytes
      - memory.alias_size_in_bytes,
      "temporaries": memory.temp_size_in_bytes,
      "program": memory.generated_code_size_in_bytes,
    },
    "collectives": summary(collectives, mesh.shape),
    "sent_bytes": {"in a slice": inside, "between slices": between},
    "bound_seconds": dataclasses.asdict(bound),
    "bound": bound.seconds,
    "bound_by": bound.by,
  }
  if report["fits"]:
    return ""
  return (
    f"{target.name}: the step does not fit: {peak / 2**30:.1f} GiB, where a"
    f" {target.chip.name} has {target.chip.memory / 2**30:.1f}."
  )


def abstract_batch(streams: Mapping[str, Any], groups: int, mesh: Any) -> Any:
  """Shapes and shardings of a batch, as training.input_pipeline gives it."""
  sharding = partitioning.batch_sharding(mesh)
  return jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=sharding),
    {name: stream.shapes(groups) for name, stream in streams.items()},
    is_leaf=lambda x: isinstance(x, tuple),
  )


def summary(
  collectives: Sequence[hlo.Collective], mesh: Mapping[str, int]
) -> list[dict[str, Any]]:
  """Groups equal collectives into one entry, largest total bytes first.

  `bytes` is the size of one of them on one device, see hlo.Collective; `times`
  is how often all of the entry run in a step.
  """
  entries: dict[tuple[Any, ...], dict[str, Any]] = {}
  for one in collectives:
    group = max(map(len, one.groups), default=0)
    key = (one.kind, one.bytes, one.groups, one.loops)
    entry = entries.setdefault(
      key,
      {
        "kind": one.kind,
        "bytes": one.bytes,
        "axes": hlo.axes_of(one.groups, mesh),
        "devices": group,
        "loops": list(one.loops),
        "count": 0,
        "times": 0,
        "from": one.name,
      },
    )
    entry["count"] += 1
    entry["times"] += one.times
  return sorted(entries.values(), key=lambda e: -e["bytes"] * e["times"])


def _first_lines(text: str) -> str:
  """A compiler's message without its table of buffers."""
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  return " ".join(lines[:2])
