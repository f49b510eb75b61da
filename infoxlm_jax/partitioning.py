"""Where every array of the state lives: one table of path rules.

Mesh axes: `data` copies parameters and splits the batch; `fsdp` splits the
batch and the parameters too. A spec that does not fit an array (a dimension
that the axis does not divide) is dropped for that dimension, so any mesh works
with any shapes.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from infoxlm_jax.errors import InputError

BATCH_AXES = ("data", "fsdp")

# First match wins. Optimiser moments and key parameters end in the path of
# the parameter they belong to, so one rule places all of them. Layers have
# the layer number as their first dimension, which is never split.
RULES: tuple[tuple[str, P], ...] = (
  (r"^queue/keys$", P(None, BATCH_AXES, None)),
  (r"(embed/(token|position)|/decoder)$", P("fsdp", None)),
  (r"layers/qkv/kernel$", P(None, "fsdp", None, None, None)),
  (r"layers/attention_out/kernel$", P(None, None, None, "fsdp")),
  (r"layers/ffn_in/kernel$", P(None, "fsdp", None)),
  (r"layers/ffn_out/kernel$", P(None, None, "fsdp")),
  (r"heads/.*/kernel$", P("fsdp", None)),
  (r"heads/contrast/projection$", P("fsdp", None)),
)
REPLICATED = P()
BATCH = P(BATCH_AXES)  # first axis of every array of a batch: groups


def make_mesh(
  data: int = -1,
  fsdp: int = 1,
  devices: int | None = None,
  on: Sequence[Any] | None = None,
  abstract: int | None = None,
) -> Any:
  """A mesh over the devices of all processes.

  Args:
    data: size of the axis that copies parameters; -1 takes what is left.
    fsdp: size of the axis that splits them.
    devices: use the first so many only; None for all.
    on: devices to use instead of jax.devices(), such as descriptions of some
      that are not here.
    abstract: for shapes only, an AbstractMesh of so many devices, which need
      not be here; 0: of as many as the sizes ask for.

  Returns:
    A Mesh; an AbstractMesh where `abstract` is given.

  Raises:
    InputError: the sizes do not use the devices up.
  """
  found = list(jax.devices() if on is None else on)
  have = len(found) if abstract is None else abstract
  if abstract == 0:
    have = devices or fsdp * (max(1, len(found) // fsdp) if data < 0 else data)
  count = devices or have
  if data == -1:
    data = count // fsdp
  if data * fsdp != count or data < 1 or count > have:
    raise InputError(
      f"mesh of data={data} x fsdp={fsdp} on {count} device(s), where this run"
      f" has {have}: set make_mesh.data = -1 to take what fsdp leaves, or"
      f" numbers whose product is {count}"
    )
  types = (AxisType.Auto,) * 2
  if abstract is not None:
    return AbstractMesh((data, fsdp), BATCH_AXES, axis_types=types)
  return jax.make_mesh(
    (data, fsdp), BATCH_AXES, axis_types=types, devices=found[:count]
  )


def path_of(path: tuple[Any, ...]) -> str:
  """The name that rules, checkpoints and messages use for an array."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def specs(tree: Any, mesh: Mesh) -> Any:
  """A PartitionSpec for every array (or abstract array) of a state."""

  def spec_of(path: tuple[Any, ...], leaf: Any) -> P:
    name = path_of(path)
    for pattern, spec in RULES:
      if re.search(pattern, name) and len(spec) <= len(leaf.shape):
        return _fit(spec, leaf.shape, mesh)
    return REPLICATED

  return jax.tree_util.tree_map_with_path(spec_of, tree)


def shardings(tree: Any, mesh: Mesh) -> Any:
  """A NamedSharding for every array (or abstract array) of a state."""
  return jax.tree.map(
    lambda spec: NamedSharding(mesh, spec),
    specs(tree, mesh),
    is_leaf=lambda x: isinstance(x, P),
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Of every array of a batch: groups over all batch axes."""
  return NamedSharding(mesh, BATCH)


def global_batch(batch: Any, mesh: Mesh) -> Any:
  """Global arrays from this process's groups [local groups, ...]."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
    batch,
  )


def local_groups(mesh: Mesh, groups: int) -> range:
  """The groups of a batch that this process must build."""
  parts = batch_sharding(mesh).addressable_devices_indices_map((groups,))
  bounds = [part[0].indices(groups)[:2] for part in parts.values() if part]
  return range(min(b[0] for b in bounds), max(b[1] for b in bounds))


def _fit(spec: P, shape: tuple[int, ...], mesh: Mesh) -> P:
  def keeps(axis: Any, size: int) -> Any:
    names = axis if isinstance(axis, tuple) else (axis,)
    parts = int(np.prod([mesh.shape[name] for name in names if name]))
    return axis if parts > 1 and size % parts == 0 else None

  fitted = [keeps(axis, size) for axis, size in zip(spec, shape, strict=False)]
  return P(*fitted) if any(fitted) else REPLICATED
