"""The encoder: post-LN transformer, packed rows, LM head.

XLM-R, BERT and XLM are one program; encoder_config.py has what differs.

Letters in names: B rows, T tokens of a row, D hidden size, N heads, H head
size, F feed-forward size, V vocabulary (padded), L layers.

A parameter tree is a plain dict:

  {"embed": {...}, "layers": {... each leaf [L, ...]}, "heads": {...}}

Layers are stacked, so that "the first k layers" is a slice of every leaf and
one compiled body serves them all.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from infoxlm_jax.encoder_config import EncoderConfig

Params = Mapping[str, Any]
Rows = Mapping[str, jax.Array]  # tokens, segments, positions: [..., T]

_INIT = nn.initializers.normal(0.02)  # RoBERTa: every matrix and embedding

_REMAT = {
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Embeddings(nn.Module):
  """Token + position (+ type) embedding, then layer norm and dropout."""

  config: EncoderConfig

  @nn.compact
  def __call__(
    self,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    types_BT: jax.Array | None,
    dropout_B: jax.Array | None,
  ) -> jax.Array:
    c = self.config
    # One parameter table also serves as the LM head's output matrix.
    token_VD = self.param(
      "token", _token_init(c), (c.padded_vocab, c.hidden_size)
    )
    position_PD = self.param(
      "position", _INIT, (c.max_positions + c.position_offset, c.hidden_size)
    )
    x_BTD = token_VD[tokens_BT] + position_PD[positions_BT + c.position_offset]
    if c.type_vocab_size:
      type_SD = self.param("type", _INIT, (c.type_vocab_size, c.hidden_size))
      if types_BT is not None:
        x_BTD += type_SD[types_BT]
    x_BTD = _layer_norm(c, "norm")(x_BTD)
    return _dropout(x_BTD, c.dropout, dropout_B, 0).astype(c.dtype)


class Layer(nn.Module):
  """One post-LN transformer layer: attention, add, norm; ffn, add, norm."""

  config: EncoderConfig

  @nn.compact
  def __call__(
    self, x_BTD: jax.Array, mask_BTT: jax.Array, dropout_B: jax.Array | None
  ) -> jax.Array:
    c = self.config
    head_size = c.hidden_size // c.num_heads
    # q, k and v in one product: three times fewer, larger matrix products.
    qkv = nn.DenseGeneral(
      (3, c.num_heads, head_size), dtype=c.dtype, kernel_init=_INIT, name="qkv"
    )(x_BTD)
    q_BTNH, k_BTNH, v_BTNH = (qkv[..., i, :, :] for i in range(3))
    logits_BNTT = jnp.einsum("btnh,bsnh->bnts", q_BTNH, k_BTNH)
    logits_BNTT = logits_BNTT.astype(jnp.float32) * head_size**-0.5
    logits_BNTT = jnp.where(mask_BTT[:, None], logits_BNTT, -1e30)
    weights_BNTT = jax.nn.softmax(logits_BNTT).astype(c.dtype)
    weights_BNTT = _dropout(weights_BNTT, c.attention_dropout, dropout_B, 1)
    mixed_BTNH = jnp.einsum("bnts,bsnh->btnh", weights_BNTT, v_BTNH)
    out_BTD = nn.DenseGeneral(
      c.hidden_size,
      axis=(-2, -1),
      dtype=c.dtype,
      kernel_init=_INIT,
      name="attention_out",
    )(mixed_BTNH)
    out_BTD = _dropout(out_BTD, c.dropout, dropout_B, 2)
    x_BTD = _layer_norm(c, "attention_norm")(x_BTD + out_BTD).astype(c.dtype)
    h_BTF = _dense(c, c.ffn_size, "ffn_in")(x_BTD)
    h_BTF = _gelu(h_BTF) if c.activation == "gelu" else nn.relu(h_BTF)
    out_BTD = _dense(c, c.hidden_size, "ffn_out")(h_BTF)
    out_BTD = _dropout(out_BTD, c.dropout, dropout_B, 3)
    return _layer_norm(c, "ffn_norm")(x_BTD + out_BTD).astype(c.dtype)


class LMHead(nn.Module):
  """dense -> gelu -> layer norm (not in XLM); then a table and a bias."""

  config: EncoderConfig

  @nn.compact
  def __call__(self, x_BD: jax.Array, token_VD: jax.Array) -> jax.Array:
    c = self.config
    x_BD = x_BD.astype(c.dtype)
    if c.architecture != "xlm":
      x_BD = _gelu(_dense(c, c.hidden_size, "dense")(x_BD))
      x_BD = _layer_norm(c, "norm")(x_BD).astype(c.dtype)
    if not c.tied:
      token_VD = self.param("decoder", _token_init(c), token_VD.shape)
    bias_V = self.param("bias", nn.initializers.zeros, (c.padded_vocab,))
    logits_BV = jnp.dot(
      x_BD, token_VD.astype(c.dtype).T, preferred_element_type=jnp.float32
    )
    # The padding of the vocabulary never gets probability.
    real_V = jnp.arange(c.padded_vocab) < c.vocab_size
    return jnp.where(real_V, logits_BV + bias_V, -1e30)


def init(key: jax.Array, config: EncoderConfig) -> dict[str, Any]:
  """Random parameters: N(0, .02) matrices, zero biases and padding row."""
  embed_key, layer_key = jax.random.split(key)
  row = jnp.zeros((1, 1), jnp.int32)
  x_BTD = jnp.zeros((1, 1, config.hidden_size), config.dtype)
  mask_BTT = jnp.ones((1, 1, 1), bool)

  def init_layer(key: jax.Array) -> Any:
    return Layer(config).init(key, x_BTD, mask_BTT, None)["params"]

  return {
    "embed": Embeddings(config).init(embed_key, row, row, row, None)["params"],
    "layers": jax.vmap(init_layer)(
      jax.random.split(layer_key, config.num_layers)
    ),
  }


def init_lm_head(key: jax.Array, config: EncoderConfig) -> dict[str, Any]:
  """Parameters of the masked-LM head, without the matrix if it is tied."""
  x_BD = jnp.zeros((1, config.hidden_size))
  token_VD = jnp.zeros((config.padded_vocab, config.hidden_size))
  return LMHead(config).init(key, x_BD, token_VD)["params"]


def lm_logits(
  head: Params, token_VD: jax.Array, x_BD: jax.Array, config: EncoderConfig
) -> jax.Array:
  """Float32 logits [B, padded_vocab] of hidden vectors [B, D]."""
  logits: Any = LMHead(config).apply({"params": head}, x_BD, token_VD)
  return logits


def encode(
  params: Params,
  rows: Rows,
  config: EncoderConfig,
  *,
  num_layers: int | None = None,
  collect: Callable[[jax.Array], Any] | None = None,
  unshard: Callable[[Any], Any] = lambda layer: layer,
) -> Any:
  """Runs the encoder over packed rows.

  Args:
    params: "embed" and "layers"; the layers may be only the first ones.
    rows: int32 [..., T] arrays: "tokens"; "segments", 0 at padding and a
      different number for every item of a row (items do not see each other);
      "positions", from 0 in every item. Optional: "types", ids of segments
      or of XLM's languages (without them segment 0, and no language);
      "dropout_keys", a PRNG key for every row [...] (none: no dropout).
    config: the encoder's shapes.
    num_layers: stop after this many layers (default: all in `params`).
    collect: a function of hidden states [..., T, D]. If given, the result is
      its values for the embedding output and every layer, stacked on a new
      first axis [num_layers + 1, ...], instead of the last hidden states.
    unshard: applied to the parameters of each layer just before its use.

  Returns:
    Hidden states [..., T, D] in config.dtype, or what `collect` gave.
  """
  shape = rows["tokens"].shape
  flat = {
    k: v.reshape(-1, shape[-1]) for k, v in _id_rows(rows, config).items()
  }
  keys_B = rows.get("dropout_keys")
  if keys_B is not None:
    keys_B = keys_B.reshape(-1)
  mask_BTT = flat["segments"][:, :, None] == flat["segments"][:, None, :]
  layers = params["layers"]
  if num_layers is not None:
    layers = jax.tree.map(lambda leaf: leaf[:num_layers], layers)
  depth = jax.tree.leaves(layers)[0].shape[0]

  def unflatten(x_BTD: jax.Array) -> jax.Array:
    return x_BTD.reshape(*shape, x_BTD.shape[-1])

  def body(x_BTD: Any, layer_and_index: Any) -> tuple[Any, Any]:
    layer, index = layer_and_index
    layer_keys_B = _fold(keys_B, index + 1)
    x_BTD = Layer(config).apply(
      {"params": unshard(layer)}, x_BTD, mask_BTT, layer_keys_B
    )
    return x_BTD, None if collect is None else collect(unflatten(x_BTD))

  if config.remat != "none":
    body = jax.checkpoint(body, policy=_REMAT[config.remat])
  x_BTD: Any = Embeddings(config).apply(
    {"params": params["embed"]},
    flat["tokens"],
    flat["positions"],
    flat.get("types"),
    _fold(keys_B, 0),
  )
  first = x_BTD
  x_BTD, collected = jax.lax.scan(
    body,
    x_BTD,
    (layers, jnp.arange(depth)),
    unroll=min(config.unroll, depth),
  )
  if collect is None:
    return unflatten(x_BTD)
  return jax.tree.map(
    lambda first, rest: jnp.concatenate([first[None], rest]),
    collect(unflatten(first)),
    collected,
  )


def _id_rows(rows: Rows, config: EncoderConfig) -> dict[str, jax.Array]:
  ids = {name: rows[name] for name in ("tokens", "segments", "positions")}
  if "types" in rows:
    ids["types"] = rows["types"]
  elif config.architecture != "xlm":
    ids["types"] = jnp.zeros_like(rows["tokens"])
  return ids


def _token_init(config: EncoderConfig) -> Callable[..., jax.Array]:
  def init_table(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    ids = jnp.arange(shape[0])[:, None]
    real = (ids < config.vocab_size) & (ids != config.pad_id)
    return jnp.where(real, _INIT(key, shape), 0.0)

  return init_table


def _dense(config: EncoderConfig, features: int, name: str) -> nn.Dense:
  return nn.Dense(features, dtype=config.dtype, kernel_init=_INIT, name=name)


def _layer_norm(config: EncoderConfig, name: str) -> nn.LayerNorm:
  return nn.LayerNorm(config.layer_norm_eps, dtype=jnp.float32, name=name)


def _gelu(x: jax.Array) -> jax.Array:
  # The exact form in float32, as fairseq computes it. By erf: jax.nn.gelu's
  # erfc costs twice the time on a CPU and is the same to rounding.
  y = x.astype(jnp.float32)
  return (0.5 * y * (1 + jax.lax.erf(y * 0.5**0.5))).astype(x.dtype)


def _fold(keys_B: jax.Array | None, data: Any) -> jax.Array | None:
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
  return jnp.where(draw(_fold(keys_B, site)), x / (1 - rate), 0).astype(x.dtype)
