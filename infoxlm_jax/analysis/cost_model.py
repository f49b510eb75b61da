"""Memory and FLOPs of a configuration, from its shapes alone.

Letters: B rows of a microbatch on one device, T tokens of a row, D hidden
size, F feed-forward size, N heads, V vocabulary (padded), L layers.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.partitioning import path_of
from infoxlm_jax.objectives import masking
from infoxlm_jax.training.program import count_parameters
from infoxlm_jax.training.state import TrainState

PARTS = ("params", "key_params", "opt_state", "queue")


def parameters(state: TrainState) -> dict[str, int]:
  """Numbers of trained parameters, and of the key encoder's."""
  return {
    "parameters": count_parameters(state.params),
    "key_parameters": count_parameters(state.key_params),
  }


def state_bytes(state: TrainState) -> dict[str, int]:
  """Bytes of each part of the state on one device.

  Args:
    state: abstract or real; its arrays' shardings say what a device holds.
  """
  return {
    name: sum(map(_bytes_on_device, jax.tree.leaves(getattr(state, name))))
    for name in PARTS
  }


def temporary_bytes(
  model: EncoderConfig,
  state: TrainState,
  objectives: Mapping[str, Any],
  streams: Mapping[str, Any],
  mesh: Mapping[str, int],
  microbatches: int,
) -> dict[str, int]:
  """An estimate of what a step needs besides the state, on one device.

  gradients: float32, of parameters as a device computes with them (layers as
  they are split, the rest gathered over fsdp); twice with microbatches: their
  sum and the next part of it.
  copies: parameters and key parameters in the dtype of the computation, and
  what is split and is needed whole.
  kept: what the backward pass needs of every layer, by EncoderConfig.remat.
  layer: what one layer needs while it is computed backward.
  softmax: logits over vocabulary and queue, and their gradient.

  Compilers share room between these and add their own; docs/scale.md compares
  with compiled programs.

  Args:
    model, objectives, streams: of the run.
    state: abstract, with shardings.
    mesh: sizes of the axes.
    microbatches: pieces of a device's groups.
  """
  size = np.dtype(model.dtype).itemsize
  devices = math.prod(mesh.values())
  kept, softmax = 0, 0
  # Rows of one length may go through the encoder together.
  tokens_by_length: dict[Any, int] = {}
  for name, objective in objectives.items():
    stream = streams[objective.stream]
    rows = -(-stream.rows // (devices * microbatches))
    tokens = rows * stream.row_length
    depth = model.num_layers
    length: Any = stream.row_length
    if objective.contrastive:
      depth, length = objective.layer, name
      items = -(-stream.batch // microbatches)  # all devices' queries meet here
      keys = -(-objective.queue_size // devices)
      softmax = max(softmax, 2 * 4 * items * (keys + stream.batch // devices))
    else:
      slots = objective.mask_slots or masking.default_slots(
        objective.mask_prob, stream.row_length
      )
      targets = min(rows * slots, objective.logits_chunk)
      softmax = max(softmax, 2 * 4 * targets * model.padded_vocab)
    kept += depth * tokens * _kept_per_token(model, stream.row_length)
    tokens_by_length[length] = tokens_by_length.get(length, 0) + tokens
  row_length = max(streams[o.stream].row_length for o in objectives.values())
  layer = max(tokens_by_length.values()) * _layer_per_token(model, row_length)
  gradients = copies = 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
    own, used = _own_and_used(path, leaf, mesh)
    gradients += 4 * used
    copies += size * used if size < 4 or used > own else 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(state.key_params):
    own, used = _own_and_used(path, leaf, mesh)
    copies += size * used if used > own else 0
  return {
    "gradients": gradients * (2 if microbatches > 1 else 1),
    "copies": copies,
    "kept": kept,
    "layer": layer,
    "softmax": softmax,
  }


def _own_and_used(
  path: Any, leaf: Any, mesh: Mapping[str, int]
) -> tuple[int, int]:
  """Numbers of a parameter that a device holds, and computes with."""
  own = math.prod(_shape_on_device(leaf))
  names = jax.tree.leaves(tuple(leaf.sharding.spec))
  gathered = "fsdp" in names and not path_of(path).startswith("layers/")
  return own, own * mesh["fsdp"] if gathered else own


def _kept_per_token(model: EncoderConfig, row_length: int) -> int:
  size = np.dtype(model.dtype).itemsize
  d, f = model.hidden_size, model.ffn_size
  if model.remat == "full":
    return size * d  # the layer's input
  if model.remat == "dots":
    # and what matrix products without batch dimensions give: q k v, the
    # attention's output, both of the feed-forward part.
    return size * (d + 3 * d + d + f + d)
  # and q k v, the softmax's weights, what is mixed by them, both sums and the
  # first norm's result, the feed-forward part before gelu.
  return size * (d + 3 * d + d + 2 * d + d + f + model.num_heads * row_length)


def _layer_per_token(model: EncoderConfig, row_length: int) -> int:
  """Inputs of the products, of the norms (float32), of gelu and of softmax."""
  size = np.dtype(model.dtype).itemsize
  d, f = model.hidden_size, model.ffn_size
  weights = model.num_heads * row_length * (4 + size)
  return size * (6 * d + 2 * f) + 4 * 2 * d + weights


def _shape_on_device(leaf: Any) -> tuple[int, ...]:
  sharding = getattr(leaf, "sharding", None)
  if sharding is None:
    return tuple(leaf.shape)
  return tuple(sharding.shard_shape(leaf.shape))


def _bytes_on_device(leaf: Any) -> int:
  return math.prod(_shape_on_device(leaf)) * leaf.dtype.itemsize


def encode_flops(
  model: EncoderConfig,
  rows: int,
  row_length: int,
  layers: int,
  read: int | None = None,
) -> int:
  """Floating-point operations of a forward pass over packed rows.

  Two for each multiply-add of the matrix products: q, k, v, output and
  feed-forward weights, and the two products of attention. Norms, softmax and
  gelu are left out, as is usual. The last layer has keys and values of all
  tokens, and the rest at `read` places of a row only (None: all).
  """
  d, f = model.hidden_size, model.ffn_size
  keys_and_values = 2 * 2 * d * d
  others = 2 * (2 * d * d + 2 * d * f) + 4 * row_length * d
  whole = (layers - 1) * row_length * (keys_and_values + others)
  places = row_length if read is None else read
  return rows * (whole + row_length * keys_and_values + places * others)


def step_flops(
  model: EncoderConfig,
  objectives: Mapping[str, Any],
  streams: Mapping[str, Any],
) -> dict[str, int]:
  """Operations of one update by objective; a backward pass is two forwards.

  What remat computes again is not counted, nor places without a target or an
  item. A row is taken to begin as many items as it has on average.
  """
  flops = {}
  d, v = model.hidden_size, model.padded_vocab
  for name, objective in objectives.items():
    stream = streams[objective.stream]
    shape = (stream.rows, stream.row_length)
    if objective.contrastive:
      directions = 2 if objective.directions == "both" else 1
      read = None
      if objective.pooling == "first":
        read = min(math.ceil(stream.batch / stream.rows), stream.row_length)
      side = encode_flops(model, *shape, objective.layer, read)
      # Keys forward; queries forward and backward; logits the same.
      logits = 2 * stream.batch * (objective.queue_size + stream.batch) * d
      flops[name] = directions * (4 * side + 3 * logits)
    else:
      slots = objective.mask_slots or masking.default_slots(
        objective.mask_prob, stream.row_length
      )
      head = 2 * stream.rows * slots * d * (v + d)
      layers = encode_flops(model, *shape, model.num_layers, slots)
      flops[name] = 3 * (layers + head)
  return flops
