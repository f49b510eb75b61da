"""Parameters and gradients across devices, inside a shard_map.

A layer's parameters cross devices just before their use, and their gradients
cross back; embeddings and heads cross once an update, and all gradients once,
after the loop over microbatches.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from infoxlm_jax.model import embedding, encoder
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.partitioning import BATCH_AXES, VOCAB_AXIS, axes_of

Encode = Callable[..., Any]
Tree = Any  # nested dicts of arrays


def shard_map(
  function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
  """jax.shard_map without checking which values differ between devices.

  With that check, differentiation would sum gradients over devices at every
  use of a parameter, inside the loops; without it, a gradient is this device's
  own until `reduce_gradients`. All collectives under the gradient are gathers
  and scatters, whose transposes are each other.
  """
  return jax.shard_map(
    function,
    mesh=mesh,
    in_specs=in_specs,
    out_specs=out_specs,
    check_vma=False,
  )


def vocab_axis(specs: Tree) -> str | None:
  """The axis that the table of tokens stays split over, if any."""
  entry = (*specs["embed"]["token"], None)[0]
  return VOCAB_AXIS if VOCAB_AXIS in axes_of(entry) else None


def encode_with(model: EncoderConfig, specs: Tree) -> Encode:
  """encoder.encode that gathers each layer's fsdp parts when it gets there.

  Args:
    model: the encoder's shapes.
    specs: of the parameters that it will be given.
  """

  def unshard(layer: Tree) -> Tree:
    # The layer axis is gone inside the scan.
    return jax.tree.map(
      lambda x, spec: _gather(x, P(*spec[1:])), layer, specs["layers"]
    )

  return functools.partial(
    encoder.encode,
    config=model,
    unshard=unshard,
    lookup=functools.partial(embedding.lookup, axis=vocab_axis(specs)),
  )


def whole_outer(params: Tree, specs: Tree) -> Tree:
  """Gathers embeddings and heads; layers stay split until they are used.

  What `tensor` splits stays split.
  """
  outer = {
    name: jax.tree.map(_gather, part, specs[name])
    for name, part in params.items()
    if name != "layers"
  }
  return outer | {"layers": params["layers"]}


def reduce_gradients(grads: Tree, specs: Tree, targets: Tree) -> Tree:
  """Sums gradients over devices, each left where its update is computed.

  Args:
    grads: of this device's groups, by parameters as the loss saw them: the
      layers' as they are split, others whole but for `tensor`.
    specs: of the parameters.
    targets: of the sums: as `specs`, or split further.
  """

  def reduce(path: tuple[Any, ...], g: jax.Array, spec: P, target: P) -> Any:
    # Layers were scattered inside their scan.
    done = {a for e in spec for a in axes_of(e)}
    if path[0].key != "layers":
      done &= {VOCAB_AXIS}
    for dim, entry in enumerate(target):
      for axis in axes_of(entry):
        if axis not in done:
          g = _scatter(g, axis, dim)
          done.add(axis)
    rest = [a for a in BATCH_AXES if a not in done]
    rest = [a for a in rest if jax.lax.axis_size(a) > 1]
    return jax.lax.psum(g, tuple(rest)) if rest else g

  return jax.tree_util.tree_map_with_path(reduce, grads, specs, targets)


def _gather(x: jax.Array, spec: P) -> jax.Array:
  for dim, entry in enumerate(spec):
    # The axis that was split last varies fastest: it is gathered first.
    for axis in reversed(axes_of(entry)):
      if axis != VOCAB_AXIS:
        x = _gather_dim(x, axis, dim)
  return x


def _gather_dim(x: jax.Array, axis: str, dim: int) -> jax.Array:
  """Gathers a dimension as one of a matrix.

  Of arrays of more dimensions, XLA makes the scatter of the gradient an
  all-reduce and a slice, twice the traffic.
  """
  shape = x.shape
  whole = jax.lax.all_gather(
    _as_matrix(x, dim), axis, axis=min(dim, 1), tiled=True
  )
  parts = jax.lax.axis_size(axis)
  return whole.reshape(*shape[:dim], shape[dim] * parts, *shape[dim + 1 :])


def _scatter(x: jax.Array, axis: str, dim: int) -> jax.Array:
  """Sums over the axis and keeps this device's part of a dimension."""
  shape = x.shape
  part = jax.lax.psum_scatter(
    _as_matrix(x, dim), axis, scatter_dimension=min(dim, 1), tiled=True
  )
  parts = jax.lax.axis_size(axis)
  return part.reshape(*shape[:dim], shape[dim] // parts, *shape[dim + 1 :])


def _as_matrix(x: jax.Array, dim: int) -> jax.Array:
  """A view [before, dim and after] in which `dim` leads, or stands first."""
  before = int(np.prod(x.shape[:dim]))
  return x.reshape(before, -1) if dim else x.reshape(x.shape[0], -1)
