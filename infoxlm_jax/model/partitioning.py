"""Where every array of the state lives: one table of path rules.

Mesh axes, all of which split the batch:

  data    copies the parameters
  fsdp    splits them, and gathers a layer just before its use
  tensor  splits the vocabulary: the table of tokens, its logits and their sums

With `zero1` what the optimiser keeps, and its work, is split over all axes
that its parameter is copied over. A spec that does not fit an array (a
dimension that the axes do not divide) is dropped for that dimension, so any
mesh works with any shapes.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from infoxlm_jax.errors import InputError

BATCH_AXES = ("data", "fsdp", "tensor")
_AUTO = (AxisType.Auto,) * len(BATCH_AXES)
VOCAB_AXIS = "tensor"

# First match wins. Optimiser moments and key parameters end in the path of
# the parameter they belong to, so one rule places all of them. Layers have
# the layer number as their first dimension, which is never split.
_VOCABULARY = (VOCAB_AXIS, "fsdp")
RULES: tuple[tuple[str, P], ...] = (
  (r"queue/keys$", P(None, BATCH_AXES, None)),
  (r"(embed/token|/decoder)$", P(_VOCABULARY, None)),
  (r"masked_lm/bias$", P(_VOCABULARY)),
  (r"embed/position$", P("fsdp", None)),
  (r"layers/qkv/kernel$", P(None, "fsdp", None, None, None)),
  (r"layers/attention_out/kernel$", P(None, None, None, "fsdp")),
  (r"layers/ffn_in/kernel$", P(None, "fsdp", None)),
  (r"layers/ffn_out/kernel$", P(None, None, "fsdp")),
  (r"heads/.*/kernel$", P("fsdp", None)),
  (r"heads/.*/projection$", P("fsdp", None)),
)
REPLICATED = P()
BATCH = P(BATCH_AXES)  # first axis of every array of a batch: groups


@dataclasses.dataclass(frozen=True)
class MeshShape:
  """Sizes of a mesh, for devices that are here or not.

  Attributes:
    data: size of the axis that copies parameters; -1 takes what is left.
    fsdp: size of the axis that splits them.
    tensor: size of the axis that splits the vocabulary.
    slices: parts that only a slower network connects (TPU slices, nodes of
      GPUs): `data` goes over them first, the other axes stay within one.
    devices: use the first so many only; None for all.
  """

  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  slices: int = 1
  devices: int | None = None

  def sizes(self, available: int) -> tuple[int, int, int]:
    """Sizes of BATCH_AXES where so many devices are available.

    Raises:
      InputError: the sizes do not use the devices up.
    """
    count = self.devices or available
    inner = self.fsdp * self.tensor
    data = count // max(inner, 1) if self.data == -1 else self.data
    if (
      data * inner != count
      or min(data, self.fsdp, self.tensor) < 1
      or count > available
    ):
      raise InputError(
        f"mesh of data={data} x fsdp={self.fsdp} x tensor={self.tensor} on"
        f" {count} device(s), where this run has {available}: set"
        " MeshShape.data = -1 to take what the others leave, or numbers whose"
        f" product is {count}"
      )
    if self.slices < 1 or data % self.slices:
      raise InputError(
        f"MeshShape.slices={self.slices} does not divide data={data}: the"
        " copies of the parameters go over the slices"
      )
    return data, self.fsdp, self.tensor


ALL_DEVICES = MeshShape()


def make_mesh(
  shape: MeshShape = ALL_DEVICES, devices: Sequence[Any] | None = None
) -> Mesh:
  """A mesh over the devices of all processes.

  Args:
    shape: sizes of the axes.
    devices: those to use instead of jax.devices(), such as descriptions of
      some that are not here.

  Raises:
    InputError: the sizes do not use the devices up, or ask for other slices
      than the devices have; or JAX_PLATFORMS names devices that are not here.
  """
  devices = list(_all_devices() if devices is None else devices)
  sizes = shape.sizes(len(devices))
  devices = devices[: math.prod(sizes)]
  if shape.slices == 1:
    return jax.make_mesh(sizes, BATCH_AXES, axis_types=_AUTO, devices=devices)
  return Mesh(_over_slices(sizes, shape.slices, devices), BATCH_AXES, _AUTO)


def _all_devices() -> Sequence[Any]:
  try:
    return jax.devices()
  except (RuntimeError, AssertionError) as error:
    platforms = getattr(jax.config, "jax_platforms", None)
    if not platforms:
      raise
    # Without a GPU jax fails on an assertion without words.
    reason = str(error).strip().partition("\n")[0] or "there is none"
    raise InputError(
      f"JAX_PLATFORMS={platforms}: jax can use no such device here ({reason})."
      " Unset it, and jax takes the best device that it finds; or install jax's"
      " package for the device (docs/install.md)"
    ) from None


def abstract_mesh(
  shape: MeshShape = ALL_DEVICES, available: int | None = None
) -> AbstractMesh:
  """The mesh of devices that need not be here; enough for shapes and specs.

  Args:
    shape: sizes of the axes.
    available: how many devices there are; None: as many as the shape asks
      for.

  Raises:
    InputError: the sizes do not use the devices up.
  """
  if available is None:
    inner = shape.fsdp * shape.tensor
    data = max(1, jax.device_count() // inner) if shape.data < 0 else shape.data
    available = shape.devices or data * inner
  return AbstractMesh(shape.sizes(available), BATCH_AXES, axis_types=_AUTO)


def _over_slices(
  sizes: tuple[int, ...], slices: int, devices: Sequence[Any]
) -> np.ndarray:
  numbers = {getattr(device, "slice_index", None) for device in devices}
  if len(numbers) == 1:  # devices that know of no slices: equal runs of them
    return np.array(devices).reshape(sizes)
  if len(numbers) != slices:
    raise InputError(
      f"MeshShape.slices={slices}, where the devices are of {len(numbers)}"
      " slices"
    )
  inside = (sizes[0] // slices, *sizes[1:])
  across = (slices, *(1,) * (len(sizes) - 1))
  return mesh_utils.create_hybrid_device_mesh(inside, across, devices)


def path_of(path: tuple[Any, ...]) -> str:
  """The name that rules, checkpoints and messages use for an array."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def specs(tree: Any, mesh: Mesh, zero1: bool = False) -> Any:
  """A PartitionSpec for every array (or abstract array) of a state.

  Args:
    tree: a state, or parameters.
    mesh: from make_mesh.
    zero1: split "opt_state" as update_specs does.
  """

  def spec_of(path: tuple[Any, ...], leaf: Any) -> P:
    name = path_of(path)
    spec = _rule(name, leaf.shape, mesh)
    if zero1 and name.startswith("opt_state/"):
      return _split_further(spec, leaf.shape, mesh)
    return spec

  return jax.tree_util.tree_map_with_path(spec_of, tree)


def update_specs(params: Any, mesh: Mesh) -> Any:
  """Where gradients and updates of parameters are computed under zero1."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: _split_further(
      _rule(path_of(path), leaf.shape, mesh), leaf.shape, mesh
    ),
    params,
  )


def specs_of(tree: Any) -> Any:
  """The PartitionSpecs of arrays (or abstract arrays) that are laid out."""
  return jax.tree.map(lambda leaf: leaf.sharding.spec, tree)


def shardings(tree: Any, mesh: Mesh, zero1: bool = False) -> Any:
  """A NamedSharding for every array (or abstract array) of a state."""
  return named(specs(tree, mesh, zero1), mesh)


def named(specs: Any, mesh: Mesh) -> Any:
  """A NamedSharding for every PartitionSpec."""
  return jax.tree.map(
    lambda spec: NamedSharding(mesh, spec),
    specs,
    is_leaf=lambda x: isinstance(x, P),
  )


def axes_of(entry: Any) -> tuple[str, ...]:
  """The mesh axes that an entry of a PartitionSpec names."""
  if entry is None:
    return ()
  return entry if isinstance(entry, tuple) else (entry,)


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


def _rule(name: str, shape: tuple[int, ...], mesh: Mesh) -> P:
  for pattern, spec in RULES:
    if re.search(pattern, name) and len(spec) <= len(shape):
      return _fit(spec, shape, mesh)
  return REPLICATED


def _fit(spec: P, shape: tuple[int, ...], mesh: Mesh) -> P:
  """The spec without axes of size 1 and those that do not divide."""

  def fitted(entry: Any, size: int) -> Any:
    kept: tuple[str, ...] = ()
    for axis in axes_of(entry):
      parts = mesh.shape[axis]
      if parts > 1 and size % parts == 0:
        kept, size = (*kept, axis), size // parts
    return kept if len(kept) > 1 else kept[0] if kept else None

  entries = [fitted(e, size) for e, size in zip(spec, shape, strict=False)]
  return P(*entries) if any(entries) else REPLICATED


def _split_further(spec: P, shape: tuple[int, ...], mesh: Mesh) -> P:
  """Splits one dimension over all axes that copy the array, if one divides."""
  entries = [*spec, *[None] * (len(shape) - len(spec))]
  used = {axis for entry in entries for axis in axes_of(entry)}
  free = [a for a in BATCH_AXES if a not in used and mesh.shape[a] > 1]
  # A dimension that is split already is split on, so that what is gathered
  # and scattered stays in one piece; else the largest.
  order = sorted(range(len(shape)), key=lambda i: (not entries[i], -shape[i]))
  for dim in order:
    axes = (*axes_of(entries[dim]), *free)
    if free and shape[dim] % int(np.prod([mesh.shape[a] for a in axes])) == 0:
      entries[dim] = axes if len(axes) > 1 else axes[0]
      return P(*entries)
  return spec
