"""The modules of the encoder: embeddings, a transformer layer, the LM head.

Letters in names: B rows, T tokens of a row, Q queries of a row (all tokens or
some), D hidden size, N heads, H head size, F feed-forward size, V vocabulary
(padded), P positions, S types.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from infoxlm_jax.model.attention import attend
from infoxlm_jax.model.config import EncoderConfig

PRODUCT = "product"  # jax.checkpoint's name for what Dense and QKV give
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
    x_BTD = nn.LayerNorm(c.layer_norm_eps, jnp.float32, name="norm")(x_BTD)
    return dropout(x_BTD, c.dropout, dropout_B, 0).astype(c.dtype)


class Layer(nn.Module):
  """A post-LN transformer layer (Vaswani et al., 2017, figure 1, left)."""

  config: EncoderConfig

  @nn.compact
  def __call__(
    self,
    x_BTD: jax.Array,
    segments_BT: jax.Array,
    dropout_B: jax.Array | None,
    read_BQ: jax.Array | None = None,
  ) -> jax.Array:
    """Hidden states after the layer [B, Q, D], in config.dtype.

    Args:
      x_BTD: hidden states before it, in config.dtype.
      segments_BT: the item that each token belongs to; attention stays inside
        an item.
      dropout_B: a PRNG key for every row; None: no dropout.
      read_BQ: places of each row whose hidden states are wanted; None: all.
        These need the keys and values of all tokens, but neither queries nor
        the feed-forward network of the others.
    """
    c = self.config
    norm = functools.partial(nn.LayerNorm, c.layer_norm_eps, c.dtype)
    activation = gelu if c.activation == "gelu" else jax.nn.relu

    def drop(x: jax.Array, site: int) -> jax.Array:
      return dropout(x, c.dropout, dropout_B, site)

    def drop_weights(weights_BNQT: jax.Array) -> jax.Array:
      return dropout(weights_BNQT, c.attention_dropout, dropout_B, 1)

    x_BQD, segments_BQ, kind = x_BTD, segments_BT, c.attention
    if read_BQ is not None:
      x_BQD = jnp.take_along_axis(x_BTD, read_BQ[..., None], axis=1)
      segments_BQ = jnp.take_along_axis(segments_BT, read_BQ, axis=1)
      kind = "xla"  # few queries: the kernels save nothing
    drops_weights = bool(c.attention_dropout) and dropout_B is not None
    if drops_weights:
      kind = "xla"  # the kernels drop no weights

    # Multi-head attention, add and norm.
    q_BQNH, k_BTNH, v_BTNH = QKV(c, name="qkv")(x_BQD, x_BTD)
    y_BQNH = attend(
      q_BQNH,
      k_BTNH,
      v_BTNH,
      segments_BQ,
      segments_BT,
      kind,
      drop_weights if drops_weights else None,
    )
    y_BQD = Dense(c, c.hidden_size, inputs=2, name="attention_out")(y_BQNH)
    x_BQD = norm(name="attention_norm")(x_BQD + drop(y_BQD, 2))

    # Feed-forward network, add and norm.
    h_BQF = activation(Dense(c, c.ffn_size, name="ffn_in")(x_BQD))
    y_BQD = Dense(c, c.hidden_size, name="ffn_out")(h_BQF)
    return norm(name="ffn_norm")(x_BQD + drop(y_BQD, 3))


class QKV(nn.Module):
  """Queries, keys and values by one kernel [D, 3, N, H]."""

  config: EncoderConfig

  @nn.compact
  def __call__(
    self, x_BQD: jax.Array, x_BTD: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries [B, Q, N, H] of x_BQD; keys and values [B, T, N, H] of x_BTD."""
    c = self.config
    shape = (3, c.num_heads, c.hidden_size // c.num_heads)
    kernel_D3NH = self.param("kernel", INIT, (c.hidden_size, *shape))
    bias_3NH = self.param("bias", nn.initializers.zeros, shape)

    def project(x: jax.Array, part: slice) -> list[jax.Array]:
      y = affine(x, kernel_D3NH[:, part], bias_3NH[part], c.dtype)
      return [y[:, :, i] for i in range(y.shape[2])]

    if x_BQD is x_BTD:  # one product, which is faster than three
      q_BQNH, k_BTNH, v_BTNH = project(x_BTD, slice(3))
    else:
      (q_BQNH,) = project(x_BQD, slice(1))
      k_BTNH, v_BTNH = project(x_BTD, slice(1, 3))
    return q_BQNH, k_BTNH, v_BTNH


class Dense(nn.Module):
  """The last `inputs` axes of x times a kernel, plus a bias."""

  config: EncoderConfig
  features: int
  inputs: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (*x.shape[-self.inputs :], self.features)
    kernel = self.param("kernel", INIT, shape)
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return affine(x, kernel, bias, self.config.dtype)


class LMHead(nn.Module):
  """dense -> gelu -> layer norm (not in XLM), before the table and a bias."""

  config: EncoderConfig

  @nn.compact
  def __call__(self, x_BD: jax.Array) -> jax.Array:
    c = self.config
    x_BD = x_BD.astype(c.dtype)
    if c.architecture == "xlm":
      return x_BD
    x_BD = gelu(Dense(c, c.hidden_size, name="dense")(x_BD))
    return nn.LayerNorm(c.layer_norm_eps, c.dtype, name="norm")(x_BD)


def affine(
  x: jax.Array, kernel: jax.Array, bias: jax.Array, dtype: str
) -> jax.Array:
  """x [..., *I] . kernel [*I, *O] + bias [*O] -> [..., *O], in dtype.

  Rows and tokens become one axis first. The numbers are the same without, but
  the kernel's gradient would be a sum over two axes, for which XLA's CPU
  compiler copies the larger side in the worst order: three times the time.
  """
  inputs = kernel.shape[: kernel.ndim - bias.ndim]
  batch = x.shape[: x.ndim - len(inputs)]
  matrix = kernel.reshape(math.prod(inputs), bias.size).astype(dtype)
  # The bias, and so its gradient, a sum over all rows, is float32.
  y = x.reshape(-1, matrix.shape[0]) @ matrix + bias.reshape(-1)
  y = checkpoint_name(y.astype(dtype), PRODUCT)
  return y.reshape(*batch, *bias.shape)


def gelu(x: jax.Array) -> jax.Array:
  """x Phi(x), Phi by erf in float32, as fairseq computes it.

  jax.nn.gelu(approximate=False) is the same to rounding, but its erfc takes
  twice the time on a CPU.
  """
  y = x.astype(jnp.float32)
  return (y * (0.5 + 0.5 * jax.lax.erf(y * 0.5**0.5))).astype(x.dtype)


def token_init(config: EncoderConfig) -> Callable[..., jax.Array]:
  """Initialiser of the table of tokens; padding rows are zero."""

  def init_table(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    ids = jnp.arange(shape[0])[:, None]
    real = (ids < config.vocab_size) & (ids != config.pad_id)
    return jnp.where(real, INIT(key, shape), 0.0)

  return init_table


def fold(keys_B: jax.Array | None, data: Any) -> jax.Array | None:
  """jax.random.fold_in of every row's key, where there are any."""
  if keys_B is None:
    return None
  return jax.vmap(jax.random.fold_in, (0, None))(keys_B, data)


def dropout(
  x: jax.Array, rate: float, keys_B: jax.Array | None, site: int
) -> jax.Array:
  """x [B, ...] with a share `rate` of its numbers at 0, the others scaled up.

  A row's mask depends on its key and the site alone, so it is the same on
  whatever mesh the row is. Without keys: x.
  """
  if keys_B is None or rate == 0.0:
    return x
  draw = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))
  return jnp.where(draw(fold(keys_B, site)), x / (1 - rate), 0).astype(x.dtype)
