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
from infoxlm_jax.objectives.contrast import ContrastState
from infoxlm_jax.training.state import TrainState, count_parameters

PARTS = ("params", "key_params", "opt_state", "queue")


def parameters(state: TrainState) -> dict[str, int]:
  """Numbers of trained parameters, and of the key encoder's."""
  return {
    "parameters": count_parameters(state.params),
    "key_parameters": count_parameters(key_params(state)),
  }


def key_params(state: TrainState) -> dict[str, Any]:
  """Parameters of the key encoders, by the objective's name."""
  return {
    name: own.key_params
    for name, own in state.objective_state.items()
    if isinstance(own, ContrastState)
  }


def state_bytes(state: TrainState) -> dict[str, int]:
  """Bytes of each part of the state on one device.

  Args:
    state: abstract or real; its arrays' shardings say what a device holds.
  """
  sizes = dict.fromkeys(PARTS, 0)
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    part, *below = path_of(path).split("/")
    if part == "objective_state":  # objective_state/<name>/<part>/...
      part = below[1]
    if below:
      sizes[part] = sizes.get(part, 0) + _bytes_on_device(leaf)
  return sizes


def temporary_bytes(
  model: EncoderConfig,
  state: TrainState,
  objectives: Mapping[str, Any],
  streams: Mapping[str, Any],
  mesh: Mapping[str, int],
  microbatches: int,
) -> dict[str, int]:
  """Estimates the bytes that a step needs besides the state, on one device.

  gradients: float32, of parameters as a device computes with them (layers
  sharded, the rest gathered over fsdp); twice with gradient accumulation: the
  sum and the next microbatch's gradients.
  copies: parameters and key parameters in the dtype of the computation, and
  sharded parameters that are gathered.
  kept: activations of all layers kept for the backward pass, according to
  EncoderConfig.remat.
  layer: activations of one layer during its backward pass.
  softmax: logits over vocabulary and queue, and their gradient.

  Compilers reuse memory between these and add buffers of their own;
  docs/scale.md compares the estimate with compiled programs.

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
    cost = objective.cost(model, stream, devices, microbatches)
    softmax = max(softmax, 2 * 4 * cost.logits)
    kept += cost.layers * tokens * _kept_per_token(model, stream.row_length)
    length: Any = stream.row_length if cost.joins_rows else name
    tokens_by_length[length] = tokens_by_length.get(length, 0) + tokens
  row_length = max(streams[o.stream].row_length for o in objectives.values())
  layer = max(tokens_by_length.values()) * _layer_per_token(model, row_length)
  gradients = copies = 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
    own, used = _own_and_used(path, leaf, mesh)
    gradients += 4 * used
    copies += size * used if size < 4 or used > own else 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(key_params(state)):
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
  """Elements of a parameter that a device holds, and that it computes with."""
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


def step_flops(
  model: EncoderConfig,
  objectives: Mapping[str, Any],
  streams: Mapping[str, Any],
) -> dict[str, int]:
  """FLOPs of one update, by objective.

  A backward pass counts as two forward passes. Recomputation by remat and
  padding of targets and items are not counted. Every row is taken to have the
  average number of items.
  """
  return {
    name: objective.cost(model, streams[objective.stream], 1, 1).flops
    for name, objective in objectives.items()
  }
