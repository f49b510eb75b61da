"""The modules of the encoder: embeddings, a layer, the LM head.

Letters in names: B rows, T tokens of a row, Q places of a row, D hidden size,
N heads, H head size, F feed-forward size, V vocabulary (padded).
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from infoxlm_jax.model import attention, ops
from infoxlm_jax.model.config import EncoderConfig

PRODUCT = "product"  # the name, for jax.checkpoint, of what Dense and QKV give
INIT = nn.initializers.normal(0.02)  # RoBERTa: every matrix and embedding


class Embeddings(nn.Module):
  """Token + position (+ type) embedding, then layer norm and dropout."""

  config: EncoderConfig

  @nn.compact
  def __call__(
    self,
    vectors_BTD: jax.Array | None,
    positions_BT: jax.Array,
    types_BT: jax.Array | None,
    dropout_B: jax.Array | None,
  ) -> jax.Array:
    c = self.config
    if vectors_BTD is None:  # to be initialised
      # One parameter table also serves as the LM head's output matrix.
      table_VD = self.param(
        "token", token_init(c), (c.padded_vocab, c.hidden_size)
      )
      vectors_BTD = table_VD[jnp.zeros_like(positions_BT)]
    position_PD = self.param(
      "position", INIT, (c.max_positions + c.position_offset, c.hidden_size)
    )
    x_BTD = vectors_BTD + position_PD[positions_BT + c.position_offset]
    if c.type_vocab_size:
      type_SD = self.param("type", INIT, (c.type_vocab_size, c.hidden_size))
      if types_BT is not None:
        x_BTD += type_SD[types_BT]
    x_BTD = LayerNorm(c, name="norm")(x_BTD)
    return _dropout(x_BTD, c.dropout, dropout_B, 0).astype(c.dtype)


class LayerNorm(nn.Module):
  """Of the last axis, in float32."""

  config: EncoderConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    size = x.shape[-1]
    scale_D = self.param("scale", nn.initializers.ones, (size,))
    bias_D = self.param("bias", nn.initializers.zeros, (size,))
    epsilon = self.config.layer_norm_eps
    rows = x.reshape(-1, size)
    return ops.layer_norm(rows, scale_D, bias_D, epsilon).reshape(x.shape)


class Dense(nn.Module):
  """A function of x, its last `over` axes times a kernel, plus a bias."""

  config: EncoderConfig
  features: int
  over: int = 1
  of: ops.Function = ops.same

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (*x.shape[-self.over :], self.features)
    kernel = self.param("kernel", INIT, shape)
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return _affine(self.config, x, kernel, bias, self.of)


class QKV(nn.Module):
  """Queries, keys and values as one map, or some of them.

  One product gives all three, which is faster than three; `only` takes its
  part of the map where not all are needed.
  """

  config: EncoderConfig

  @nn.compact
  def __call__(
    self, x_BTD: jax.Array, only: slice = slice(None)
  ) -> tuple[jax.Array, ...]:
    c = self.config
    shape = (3, c.num_heads, c.hidden_size // c.num_heads)
    kernel_D3NH = self.param("kernel", INIT, (c.hidden_size, *shape))
    bias_3NH = self.param("bias", nn.initializers.zeros, shape)
    y = _affine(c, x_BTD, kernel_D3NH[:, only], bias_3NH[only])
    return tuple(y[:, :, i] for i in range(y.shape[2]))


class Layer(nn.Module):
  """One post-LN transformer layer: attention, add, norm; ffn, add, norm."""

  config: EncoderConfig

  @nn.compact
  def __call__(
    self,
    x_BTD: jax.Array,
    segments_BT: jax.Array,
    dropout_B: jax.Array | None,
    read_BQ: jax.Array | None = None,
  ) -> jax.Array:
    """Hidden states after the layer, at the places `read_BQ` of each row only.

    Those need all keys and values, but no other queries: exactly what the
    whole layer gives at these places, for a fraction of its work.
    """
    c = self.config
    qkv = QKV(c, name="qkv")
    if read_BQ is None:
      q_BQNH, k_BTNH, v_BTNH = qkv(x_BTD)
      kind, segments_BQ = c.attention, segments_BT
    else:
      k_BTNH, v_BTNH = qkv(x_BTD, slice(1, 3))
      x_BTD = jnp.take_along_axis(x_BTD, read_BQ[..., None], axis=1)
      segments_BQ = jnp.take_along_axis(segments_BT, read_BQ, axis=1)
      (q_BQNH,) = qkv(x_BTD, slice(0, 1))
      kind = "xla"  # few queries: nothing to save
    if c.attention_dropout and dropout_B is not None:
      weights = attention.xla_weights(q_BQNH, k_BTNH, segments_BQ, segments_BT)
      weights = _dropout(weights, c.attention_dropout, dropout_B, 1)
      mixed_BQNH = attention.mix(weights.astype(c.dtype), v_BTNH)
    else:
      mixed_BQNH = attention.attend(
        q_BQNH, k_BTNH, v_BTNH, segments_BQ, segments_BT, kind
      )
    out_BQD = Dense(c, c.hidden_size, over=2, name="attention_out")(mixed_BQNH)
    out_BQD = _dropout(out_BQD, c.dropout, dropout_B, 2)
    x_BQD = LayerNorm(c, name="attention_norm")(x_BTD + out_BQD)
    h_BQF = Dense(c, c.ffn_size, name="ffn_in")(x_BQD)
    of = ops.gelu if c.activation == "gelu" else jax.nn.relu
    out_BQD = Dense(c, c.hidden_size, of=of, name="ffn_out")(h_BQF)
    out_BQD = _dropout(out_BQD, c.dropout, dropout_B, 3)
    return LayerNorm(c, name="ffn_norm")(x_BQD + out_BQD)


class LMHead(nn.Module):
  """dense -> gelu -> layer norm (not in XLM), before the table and a bias."""

  config: EncoderConfig

  @nn.compact
  def __call__(self, x_BD: jax.Array) -> jax.Array:
    c = self.config
    x_BD = x_BD.astype(c.dtype)
    if c.architecture == "xlm":
      return x_BD
    x_BD = ops.gelu(Dense(c, c.hidden_size, name="dense")(x_BD))
    return LayerNorm(c, name="norm")(x_BD)


def token_init(config: EncoderConfig) -> Callable[..., jax.Array]:
  """Initialiser of the table of tokens; padding rows are zero."""

  def init_table(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    ids = jnp.arange(shape[0])[:, None]
    real = (ids < config.vocab_size) & (ids != config.pad_id)
    return jnp.where(real, INIT(key, shape), 0.0)

  return init_table


def _affine(
  config: EncoderConfig,
  x: jax.Array,
  kernel: jax.Array,
  bias: jax.Array,
  of: ops.Function = ops.same,
) -> jax.Array:
  """of(x) [..., *I] . kernel [*I, *O] + bias [*O] -> [..., *O].

  As one product of two matrices in config.dtype. With rows and tokens as two
  axes the numbers are the same, but the kernel's gradient is a sum over two
  axes, for which XLA's CPU compiler copies the larger side in the worst order:
  three times the time.
  """
  inputs = kernel.shape[: kernel.ndim - bias.ndim]
  batch = x.shape[: x.ndim - len(inputs)]
  matrix = kernel.reshape(math.prod(inputs), bias.size).astype(config.dtype)
  rows = x.reshape(-1, matrix.shape[0])
  y = ops.affine(rows, matrix, bias.reshape(-1), of)
  return checkpoint_name(y, PRODUCT).reshape(*batch, *bias.shape)


def fold(keys_B: jax.Array | None, data: Any) -> jax.Array | None:
  """jax.random.fold_in of every row's key, where there are any."""
  if keys_B is None:
    return None
  return jax.vmap(jax.random.fold_in, (0, None))(keys_B, data)


def _dropout(
  x: jax.Array, rate: float, keys_B: jax.Array | None, site: int
) -> jax.Array:
  # A key for every row: the mask is the same whatever mesh holds the row.
  if keys_B is None or rate == 0.0:
    return x
  draw = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))
  return jnp.where(draw(fold(keys_B, site)), x / (1 - rate), 0).astype(x.dtype)
