"""What a configuration costs, from its shapes alone."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from infoxlm_jax import partitioning
from infoxlm_jax.encoder_config import EncoderConfig
from infoxlm_jax.state import TrainState


def count_parameters(params: Any) -> int:
  """Numbers in a tree of arrays, the padding of the vocabulary included."""
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))


def bytes_per_device(state: TrainState, mesh: Mesh) -> dict[str, int]:
  """Bytes of each part of the state on one device."""
  specs = partitioning.specs_of(state)

  def size(leaf: Any, spec: Any) -> int:
    parts = [
      mesh.shape[axis]
      for entry in spec
      if entry is not None
      for axis in (entry if isinstance(entry, tuple) else (entry,))
    ]
    return leaf.size * leaf.dtype.itemsize // int(np.prod(parts))

  return {
    name: sum(
      size(leaf, spec)
      for leaf, spec in zip(
        jax.tree.leaves(getattr(state, name)),
        jax.tree.leaves(
          getattr(specs, name),
          is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec),
        ),
        strict=True,
      )
    )
    for name in ("params", "key_params", "opt_state", "queue")
  }


def encode_flops(
  model: EncoderConfig, rows: int, row_length: int, layers: int
) -> int:
  """Floating-point operations of a forward pass over packed rows.

  Two for each multiply-add of the matrix products: q, k, v, output and
  feed-forward weights, and the two products of attention. Norms, softmax and
  gelu are left out, as is usual.
  """
  d, f = model.hidden_size, model.ffn_size
  per_token = 2 * (4 * d * d + 2 * d * f) + 4 * row_length * d
  return rows * row_length * layers * per_token


def step_flops(
  model: EncoderConfig,
  objectives: Mapping[str, Any],
  streams: Mapping[str, Any],
) -> dict[str, int]:
  """Operations of one update by objective; a backward pass is two forwards."""
  flops = {}
  d, v = model.hidden_size, model.padded_vocab
  for name, objective in objectives.items():
    stream = streams[objective.stream]
    shape = (stream.rows, stream.row_length)
    if objective.contrastive:
      directions = 2 if objective.directions == "both" else 1
      side = encode_flops(model, *shape, objective.layer)
      # Keys forward; queries forward and backward; logits the same.
      logits = 2 * stream.batch * (objective.queue_size + stream.batch) * d
      flops[name] = directions * (4 * side + 3 * logits)
    else:
      targets = int(objective.mask_prob * np.prod(shape))
      head = 2 * targets * d * (v + d)
      flops[name] = 3 * (encode_flops(model, *shape, model.num_layers) + head)
  return flops


def describe(
  model: EncoderConfig,
  state: TrainState,
  objectives: Mapping[str, Any],
  streams: Mapping[str, Any],
  mesh: Mesh,
) -> str:
  """The text of a dry run."""
  lines = [f"parameters        {count_parameters(state.params):,}"]
  if state.key_params is not None:
    lines.append(f"key parameters    {count_parameters(state.key_params):,}")
  lines.append(f"mesh              {dict(mesh.shape)}")
  by_part = bytes_per_device(state, mesh)
  lines.append("bytes per device  (state; activations come on top)")
  for part, size in (by_part | {"total": sum(by_part.values())}).items():
    lines.append(f"  {part:<15} {size / 2**20:,.1f} MiB")
  flops = step_flops(model, objectives, streams)
  lines.append("FLOPs per update  (matrix products, from shapes)")
  for part, number in (flops | {"total": sum(flops.values())}).items():
    lines.append(f"  {part:<15} {number / 1e9:,.2f} G")
  return "\n".join(lines)
