"""Machines that a step can be compiled for without having them.

A target is named v5e:4x4 (a TPU slice of that shape), 2*v5e:4x4 (two of them,
which the data-center network joins) or cuda:h100:8 (eight GPUs of a node;
2*cuda:h100:8 are two nodes).
"""

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from infoxlm_jax.analysis.chips import CHIPS, Chip
from infoxlm_jax.errors import InputError

_NAME = re.compile(r"(?:(\d+)\*)?(?:cuda:)?(\w+):(\d+(?:x\d+)*)")

# Properties that XLA needs to compile for a GPU that is not here. Values from
# NVIDIA's programming guide and OpenXLA's device descriptions.
_HOPPER = {
  "shared_memory_per_core": 233472,
  "shared_memory_per_block_optin": 232448,
  "core_count": 132,
  "fpus_per_core": 128,
  "l2_cache_size": 52428800,
  "clock_rate_ghz": 1.98,
}
_GPUS: dict[str, tuple[str, int, dict[str, float]]] = {
  "h100": ("NVIDIA H100 80GB HBM3", 9, _HOPPER),
  "h200": ("NVIDIA H200", 9, _HOPPER),
  "a100": (
    "NVIDIA A100-SXM4-80GB",
    8,
    {
      "shared_memory_per_core": 167936,
      "shared_memory_per_block_optin": 166912,
      "core_count": 108,
      "fpus_per_core": 64,
      "l2_cache_size": 41943040,
      "clock_rate_ghz": 1.41,
    },
  ),
}
_ALL_GPUS = {
  "threads_per_block_limit": 1024,
  "threads_per_warp": 32,
  "threads_per_core_limit": 2048,
  "shared_memory_per_block": 49152,
  "registers_per_core_limit": 65536,
  "registers_per_block_limit": 65536,
  "block_dim_limit_x": 2147483647,
  "block_dim_limit_y": 65535,
  "block_dim_limit_z": 65535,
}


@dataclasses.dataclass(frozen=True)
class Target:
  """A machine that a step can be compiled for.

  Attributes:
    name: as it was given.
    chip: what it is made of.
    shape: of a slice, in chips; of a node, the number of its GPUs.
    slices: slices or nodes.
  """

  name: str
  chip: Chip
  shape: tuple[int, ...]
  slices: int = 1

  @property
  def count(self) -> int:
    """Devices."""
    return self.slices * math.prod(self.shape)


def parse(name: str) -> Target:
  """Parses the name of a target, without importing jax.

  Raises:
    InputError: another form, or a chip that chips.py does not know.
  """
  match = _NAME.fullmatch(name)
  if not match:
    raise InputError(
      f"{name!r} names no machine: give a chip and a shape, such as v5e:4x4,"
      " 2*v5e:4x4 (two slices) or cuda:h100:8"
    )
  slices, kind, numbers = match.groups()
  if kind not in CHIPS:
    near = difflib.get_close_matches(kind, CHIPS, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(
      f"{name!r}: no chip {kind!r} is known, of {', '.join(CHIPS)}{hint}"
    )
  chip = CHIPS[kind]
  shape = tuple(map(int, numbers.split("x")))
  if len(shape) != chip.dimensions or (chip.platform == "cuda") != (
    "cuda:" in name
  ):
    example = {1: f"cuda:{kind}:8", 2: f"{kind}:4x4", 3: f"{kind}:2x2x4"}
    raise InputError(
      f"{name!r}: give {kind}'s shape as {example[chip.dimensions]}"
    )
  return Target(name, chip, shape, int(slices or 1))


def devices(target: Target) -> Sequence[Any]:
  """Returns descriptions of the target's devices; only compiling uses them.

  Raises:
    InputError: the compiler for them is not installed, or it does not know
      the shape.
  """
  if target.chip.platform == "tpu":
    return _tpu_devices(target)
  return _cuda_devices(target)


def _tpu_devices(target: Target) -> Sequence[Any]:
  # libtpu looks for the machine that it is on: for none.
  for name, value in (
    ("TPU_SKIP_MDS_QUERY", "1"),
    ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
    ("TPU_WORKER_HOSTNAMES", "localhost"),
    # Two compiles at a time are no two users of one TPU.
    ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
  ):
    os.environ.setdefault(name, value)
  # A host has 2 x 2 chips, or what there is of a smaller slice.
  host = tuple(min(2, n) for n in target.shape[:2]) + (1,)
  options: dict[str, Any] = {"chips_per_host_bounds": host}
  if target.chip.name == "v4":
    options["chip_config_name"] = "megacore"  # a chip's cores as one device
  if target.slices > 1:
    options["num_slices"] = target.slices
  shape = "x".join(map(str, target.shape))
  return _described(
    target,
    "libtpu, which compiles for TPUs, is not installed: pip install -e"
    " '.[tpu-compile]'",
    platform="tpu",
    topology_name=f"{target.chip.name}:{shape}",
    **options,
  )


def _cuda_devices(target: Target) -> Sequence[Any]:
  return _described(
    target,
    "jax's CUDA plugin, which compiles for GPUs, is not installed: pip install"
    " -e '.[cuda]'",
    platform="cuda",
    topology=f"{target.slices}x1x{target.shape[0]}",
    target_config=gpu_description(target.chip),
  )


def gpu_description(chip: Chip) -> str:
  """XLA's description of a GPU: a GpuTargetConfigProto as text."""
  name, capability, own = _GPUS[chip.name]
  facts = {
    **_ALL_GPUS,
    **own,
    "memory_bandwidth": int(chip.memory_rate),
    "device_memory_size": chip.memory,
  }
  lines = "\n".join(f"  {key}: {value}" for key, value in facts.items())
  return (
    f"gpu_device_info {{\n{lines}\n"
    f"  cuda_compute_capability {{ major: {capability} }}\n}}\n"
    'platform_name: "CUDA"\n'
    "dnn_version_info { major: 9 minor: 10 }\n"
    f'device_description_str: "{name}"\n'
  )


def _described(target: Target, missing: str, **options: Any) -> Sequence[Any]:
  # Here, for parse() needs no jax.
  from jax.experimental import topologies

  try:
    return topologies.get_topology_desc(**options).devices
  except (NotImplementedError, RuntimeError) as error:
    text = str(error).partition("\n")[0]
    if "not installed" in text or "not implemented" in text:
      raise InputError(f"{target.name}: {missing}") from None
    raise InputError(
      f"{target.name}: the compiler knows no such machine ({text})"
    ) from None
