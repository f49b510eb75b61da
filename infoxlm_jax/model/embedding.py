"""The table of token vectors: the input embedding and the output matrix.

One [vocabulary, D] table is the encoder's input embedding and the masked-LM
head's output matrix, and at base size two thirds of all parameters. Both uses
are in this file, so that the table may be split by rows over a mesh axis and
that its gradient is one buffer, written once.

Inside a shard_map, `axis` names the mesh axis that splits the table: a device
holds rows [n * V / parts, (n + 1) * V / parts). Ids and vectors are gathered
over the axis and sums are scattered back, so what moves is the size of the
batch, never of the vocabulary.

Letters: B vectors, V rows of this device's part of the table, D vector size.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_NEVER = -1e30  # the logit of what is not a token


def lookup(
  table_VD: jax.Array, ids: jax.Array, axis: str | None = None
) -> jax.Array:
  """Vectors [..., D] of ids [...], each device its own ids."""
  if axis is None:
    return table_VD[ids]
  row_B, mine_B = _rows_here(ids, table_VD.shape[0], axis)
  part_BD = jnp.where(mine_B[:, None], table_VD[row_B], 0)
  own_BD = jax.lax.psum_scatter(part_BD, axis, tiled=True)
  return own_BD.reshape(*ids.shape, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def tied_lookup(
  table_VD: jax.Array, ids: jax.Array, axis: str | None = None
) -> tuple[jax.Array, jax.Array]:
  """`lookup`, and the table, which all other uses must take from here.

  So the gradient of the lookup is added into the gradient of the other uses
  in place. Differentiated apart, every lookup would make a gradient of the
  table's size, nearly all zeros, and a sum of these.
  """
  return lookup(table_VD, ids, axis), table_VD


def _tied_lookup_forward(
  table_VD: jax.Array, ids: jax.Array, axis: str | None
) -> tuple[Any, jax.Array]:
  return tied_lookup(table_VD, ids, axis), ids


def _tied_lookup_backward(
  axis: str | None, ids: jax.Array, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, None]:
  grad, table_grad_VD = cotangents
  grad_BD = grad.reshape(-1, grad.shape[-1])
  if axis is None:
    return table_grad_VD.at[ids.reshape(-1)].add(grad_BD), None
  grad_BD = jax.lax.all_gather(grad_BD, axis, tiled=True)
  row_B, mine_B = _rows_here(ids, table_grad_VD.shape[0], axis)
  grad_BD = jnp.where(mine_B[:, None], grad_BD, 0)
  return table_grad_VD.at[row_B].add(grad_BD), None


tied_lookup.defvjp(_tied_lookup_forward, _tied_lookup_backward)


class Targets(NamedTuple):
  """The tokens to predict from B vectors."""

  token: jax.Array  # [B] int32
  weight: jax.Array  # [B] float32, factor of each term; 0: not a target


Piece = tuple[jax.Array, Targets]  # vectors [B, D] and their targets


class Scores(NamedTuple):
  """Losses of predictions; `sum` alone has a gradient."""

  sum: jax.Array  # [] of weight * nll
  nll: jax.Array  # [B] -log p(target), nats
  hit: jax.Array  # [B] bool, no token is likelier than the target


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def score(
  x_BD: jax.Array,
  table_VD: jax.Array,
  bias_V: jax.Array,
  targets: Targets,
  vocab_size: int,
  chunk: int,
  axis: str | None = None,
) -> Scores:
  """-log softmax over the vocabulary of x . table + bias, at the targets.

  The gradient is computed with the loss, chunk by chunk: at most `chunk` rows
  of logits exist at one time, and none is computed twice.

  Args:
    x_BD: in the dtype of the matrix products.
    table_VD: this device's rows, float32.
    bias_V: theirs.
    targets: of this device's vectors.
    vocab_size: real rows of the whole table; those from there on are padding
      and never get probability.
    chunk: vectors of this device that are scored at one time.
    axis: the mesh axis that splits the table.
  """

  def one(total: jax.Array, piece: Piece) -> tuple[jax.Array, Any]:
    scored = _score_chunk(*piece, table_VD, bias_V, vocab_size, axis)
    return total + scored.sum, (scored.nll, scored.hit)

  pieces = (x_BD, targets)
  total, (nll_B, hit_B) = _in_chunks(one, jnp.zeros(()), pieces, chunk)
  return Scores(total, nll_B, hit_B)


def _score_forward(
  x_BD: jax.Array,
  table_VD: jax.Array,
  bias_V: jax.Array,
  targets: Targets,
  vocab_size: int,
  chunk: int,
  axis: str | None,
) -> tuple[Scores, Any]:
  def one(carry: Any, piece: Piece) -> tuple[Any, Any]:
    total, grads = carry
    scored = _score_chunk(*piece, table_VD, bias_V, vocab_size, axis)
    x_grad_BD, *rest = _grad_chunk(*piece, scored, table_VD, axis)
    grads = jax.tree.map(jnp.add, grads, tuple(rest))
    return (total + scored.sum, grads), (scored.nll, scored.hit, x_grad_BD)

  zeros = (jnp.zeros(table_VD.shape), jnp.zeros(bias_V.shape))
  (total, grads), (nll_B, hit_B, x_grad_BD) = _in_chunks(
    one, (jnp.zeros(()), zeros), (x_BD, targets), chunk
  )
  return Scores(total, nll_B, hit_B), (x_grad_BD, *grads)


def _score_backward(
  vocab_size: int, chunk: int, axis: str | None, grads: Any, cotangent: Scores
) -> tuple[Any, ...]:
  del vocab_size, chunk, axis
  scaled = jax.tree.map(lambda g: (cotangent.sum * g).astype(g.dtype), grads)
  return (*scaled, None)


score.defvjp(_score_forward, _score_backward)


class _Chunk(NamedTuple):
  """A chunk's scores, and the arrays that its gradient needs.

  Where the table is split, the logits are of all devices' vectors A against
  this device's rows V; else A is B.
  """

  sum: jax.Array
  nll: jax.Array  # [B]
  hit: jax.Array  # [B]
  logits: jax.Array  # [A, V]
  log_mass: jax.Array  # [A]
  x: jax.Array  # [A, D]
  weight: jax.Array  # [A]
  row: jax.Array  # [A] of the target in this part
  here: jax.Array  # [A] bool, whether it is in this part


def _score_chunk(
  x_BD: jax.Array,
  targets: Targets,
  table_VD: jax.Array,
  bias_V: jax.Array,
  vocab_size: int,
  axis: str | None,
) -> _Chunk:
  rows = table_VD.shape[0]
  x_AD, weight_A, first = x_BD, targets.weight, jnp.zeros((), jnp.int32)
  row_A, here_A = targets.token, jnp.ones(targets.token.shape, bool)
  if axis is not None:
    x_AD, weight_A = jax.lax.all_gather((x_BD, weight_A), axis, tiled=True)
    row_A, here_A = _rows_here(targets.token, rows, axis)
    first = jax.lax.axis_index(axis) * rows
  logits_AV = _dot(x_AD, table_VD.astype(x_AD.dtype).T) + bias_V
  real_V = first + jnp.arange(rows) < vocab_size
  logits_AV = jnp.where(real_V, logits_AV, _NEVER)
  top_A = jnp.max(logits_AV, axis=-1)
  chosen_A = jnp.take_along_axis(logits_AV, row_A[:, None], 1)[:, 0]
  chosen_A = jnp.where(here_A, chosen_A, 0.0)
  if axis is not None:
    top_A = jax.lax.pmax(top_A, axis)
    chosen_A = jax.lax.psum(chosen_A, axis)
  mass_A = jnp.sum(jnp.exp(logits_AV - top_A[:, None]), axis=-1)
  if axis is not None:
    mass_A = jax.lax.psum(mass_A, axis)
  log_mass_A = jnp.log(mass_A) + top_A
  nll_B, hit_B = log_mass_A - chosen_A, chosen_A >= top_A
  if axis is not None:
    own = jax.lax.axis_index(axis) * x_BD.shape[0]
    nll_B, hit_B = (
      jax.lax.dynamic_slice_in_dim(x, own, x_BD.shape[0])
      for x in (nll_B, hit_B)
    )
  total = jnp.sum(targets.weight * nll_B)
  return _Chunk(
    total,
    nll_B,
    hit_B,
    logits_AV,
    log_mass_A,
    x_AD,
    weight_A,
    row_A,
    here_A,
  )


def _grad_chunk(
  x_BD: jax.Array,
  targets: Targets,
  chunk: _Chunk,
  table_VD: jax.Array,
  axis: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Gradients of the chunk's sum by x [B, D], table [V, D], bias [V]."""
  del targets
  dtype = x_BD.dtype
  is_target_AV = jnp.arange(table_VD.shape[0]) == chunk.row[:, None]
  is_target_AV &= chunk.here[:, None]
  grad_AV = jnp.exp(chunk.logits - chunk.log_mass[:, None]) - is_target_AV
  grad_AV *= chunk.weight[:, None]
  low_AV = grad_AV.astype(dtype)
  x_grad_AD = _dot(low_AV, table_VD.astype(dtype))
  if axis is not None:
    x_grad_AD = jax.lax.psum_scatter(x_grad_AD, axis, tiled=True)
  return (
    x_grad_AD.astype(dtype),
    _dot(low_AV.T, chunk.x),
    # A product: on CPUs a sum over rows takes fifty times as long.
    _dot(jnp.ones(grad_AV.shape[:1]), grad_AV),
  )


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _rows_here(
  ids: jax.Array, rows: int, axis: str
) -> tuple[jax.Array, jax.Array]:
  """Of all devices' ids [A]: the row in this part of the table, if it is here.

  Row 0 where the second result is false.
  """
  all_A = jax.lax.all_gather(ids.reshape(-1), axis, tiled=True)
  row_A = all_A - jax.lax.axis_index(axis) * rows
  here_A = (row_A >= 0) & (row_A < rows)
  return jnp.where(here_A, row_A, 0), here_A


def _in_chunks(
  one: Callable[[Any, Any], tuple[Any, Any]],
  carry: Any,
  arrays: Any,
  chunk: int,
) -> tuple[Any, Any]:
  """lax.scan of `one` over chunks of the arrays' first axis.

  The last chunk is padded with zeros, and so has targets of weight 0.
  """
  size = jax.tree.leaves(arrays)[0].shape[0]
  if size <= chunk:
    return one(carry, arrays)
  pad = -size % chunk

  def chunked(x: jax.Array) -> jax.Array:
    x = jnp.pad(x, [(0, pad)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(-1, chunk, *x.shape[1:])

  carry, results = jax.lax.scan(one, carry, jax.tree.map(chunked, arrays))
  return carry, jax.tree.map(
    lambda x: x.reshape(-1, *x.shape[2:])[:size], results
  )
