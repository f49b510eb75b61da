"""The modules of the encoder: embeddings, a layer, the LM head.

Letters in names: B rows, T tokens of a row, Q places of a row, D hidden size,
N heads, H head size, F feed-forward size, V vocabulary (padded).
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from infoxlm_jax import attention
from infoxlm_jax.encoder_config import EncoderConfig

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
    x_BTD = _layer_norm(c, "norm")(x_BTD)
    return _dropout(x_BTD, c.dropout, dropout_B, 0).astype(c.dtype)


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
    kernel = kernel_D3NH[:, only].astype(c.dtype)
    y = jax.lax.dot_general(x_BTD, kernel, (((2,), (0,)), ((), ())))
    y += bias_3NH[only].astype(c.dtype)
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
    out_BQD = nn.DenseGeneral(
      c.hidden_size,
      axis=(-2, -1),
      dtype=c.dtype,
      kernel_init=INIT,
      name="attention_out",
    )(mixed_BQNH)
    out_BQD = _dropout(out_BQD, c.dropout, dropout_B, 2)
    x_BQD = _layer_norm(c, "attention_norm")(x_BTD + out_BQD).astype(c.dtype)
    h_BQF = _dense(c, c.ffn_size, "ffn_in")(x_BQD)
    h_BQF = _gelu(h_BQF) if c.activation == "gelu" else nn.relu(h_BQF)
    out_BQD = _dense(c, c.hidden_size, "ffn_out")(h_BQF)
    out_BQD = _dropout(out_BQD, c.dropout, dropout_B, 3)
    return _layer_norm(c, "ffn_norm")(x_BQD + out_BQD).astype(c.dtype)


class LMHead(nn.Module):
  """dense -> gelu -> layer norm (not in XLM), before the table and a bias."""

  config: EncoderConfig

  @nn.compact
  def __call__(self, x_BD: jax.Array) -> jax.Array:
    c = self.config
    x_BD = x_BD.astype(c.dtype)
    if c.architecture == "xlm":
      return x_BD
    x_BD = _gelu(_dense(c, c.hidden_size, "dense")(x_BD))
    return _layer_norm(c, "norm")(x_BD).astype(c.dtype)


def token_init(config: EncoderConfig) -> Callable[..., jax.Array]:
  """Initialiser of the table of tokens; padding rows are zero."""

  def init_table(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    ids = jnp.arange(shape[0])[:, None]
    real = (ids < config.vocab_size) & (ids != config.pad_id)
    return jnp.where(real, INIT(key, shape), 0.0)

  return init_table


def _dense(config: EncoderConfig, features: int, name: str) -> nn.Dense:
  return nn.Dense(features, dtype=config.dtype, kernel_init=INIT, name=name)


def _layer_norm(config: EncoderConfig, name: str) -> nn.LayerNorm:
  return nn.LayerNorm(config.layer_norm_eps, dtype=jnp.float32, name=name)


def _gelu(x: jax.Array) -> jax.Array:
  # The exact form in float32, as fairseq computes it. By erf: jax.nn.gelu's
  # erfc costs twice the time on a CPU and is the same to rounding.
  y = x.astype(jnp.float32)
  return (0.5 * y * (1 + jax.lax.erf(y * 0.5**0.5))).astype(x.dtype)


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
