"""The encoder: post-LN transformer, packed rows, LM head.

XLM-R, BERT and XLM are one program; config.py lists what differs.

Letters in names: B rows, T tokens of a row, Q places of a row, D hidden size,
V vocabulary (padded), L layers.

A parameter tree is a plain dict:

  {"embed": {...}, "layers": {... each leaf [L, ...]}, "heads": {...}}

Layers are stacked, so that "the first k layers" is a slice of every leaf and
all layers share one compiled body.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from infoxlm_jax.model import embedding
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.layers import (
  PRODUCT,
  Embeddings,
  Layer,
  LMHead,
  fold,
  token_init,
)

Params = Mapping[str, Any]
Rows = Mapping[str, jax.Array]  # tokens, segments, positions: [..., T]

_REMAT = {
  "full": jax.checkpoint_policies.nothing_saveable,
  # Products with parameters; those of attention, T x T a head, are too large.
  "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT),
}


def init(key: jax.Array, config: EncoderConfig) -> dict[str, Any]:
  """Random parameters: N(0, .02) matrices, zero biases and padding row."""
  embed_key, layer_key = jax.random.split(key)
  row = jnp.zeros((1, 1), jnp.int32)
  x_BTD = jnp.zeros((1, 1, config.hidden_size), config.dtype)
  embed = Embeddings(config).init(embed_key, None, row, row, None)

  def init_layer(key: jax.Array) -> Any:
    # The parameters are the same; the kernels take no rows of one token.
    plain = dataclasses.replace(config, attention="xla")
    return Layer(plain).init(key, x_BTD, row, None)["params"]

  return {
    "embed": embed["params"],
    "layers": jax.vmap(init_layer)(
      jax.random.split(layer_key, config.num_layers)
    ),
  }


def init_lm_head(key: jax.Array, config: EncoderConfig) -> dict[str, Any]:
  """Parameters of the masked-LM head, without the matrix if it is tied."""
  x_BD = jnp.zeros((1, config.hidden_size))
  head = dict(LMHead(config).init(key, x_BD).get("params", {}))
  head["bias"] = jnp.zeros((config.padded_vocab,))
  if not config.tied:
    shape = (config.padded_vocab, config.hidden_size)
    head["decoder"] = token_init(config)(jax.random.fold_in(key, 1), shape)
  return head


def lm_features(
  head: Params, x_BD: jax.Array, config: EncoderConfig
) -> jax.Array:
  """The LM head's vectors [B, D] before its table, in config.dtype."""
  params = {k: v for k, v in head.items() if k in ("dense", "norm")}
  features: Any = LMHead(config).apply({"params": params}, x_BD)
  return features


def lm_table(params: Params, head: Params) -> jax.Array:
  """The LM head's output matrix [padded_vocab, D]."""
  table: jax.Array = head.get("decoder", params["embed"]["token"])
  return table


def lm_logits(
  head: Params, token_VD: jax.Array, x_BD: jax.Array, config: EncoderConfig
) -> jax.Array:
  """Float32 logits [B, padded_vocab] of hidden vectors [B, D]."""
  table_VD = head.get("decoder", token_VD).astype(config.dtype)
  logits_BV = jnp.dot(
    lm_features(head, x_BD, config),
    table_VD.T,
    preferred_element_type=jnp.float32,
  )
  # The padding of the vocabulary never gets probability.
  real_V = jnp.arange(config.padded_vocab) < config.vocab_size
  return jnp.where(real_V, logits_BV + head["bias"], -1e30)


def encode(
  params: Params,
  rows: Rows,
  config: EncoderConfig,
  *,
  num_layers: int | None = None,
  read: jax.Array | None = None,
  collect: Callable[[jax.Array], Any] | None = None,
  lookup: Callable[[jax.Array, jax.Array], jax.Array] = embedding.lookup,
  unshard: Callable[[Any], Any] = lambda layer: layer,
) -> Any:
  """Runs the encoder over packed rows.

  Args:
    params: "embed" and "layers"; the layers may be only the first ones.
    rows: int32 [..., T] arrays: "tokens"; "segments", 0 at padding and a
      different number for every item of a row (items do not see each other);
      "positions", from 0 in every item. Optional: "types", ids of segments
      or of XLM's languages (without them segment 0, and no language);
      "vectors", the tokens' rows of the table [..., T, D], where they were
      looked up already; "dropout_keys", a PRNG key for every row [...] (none:
      no dropout).
    config: the encoder's shapes.
    num_layers: stop after this many layers (default: all in `params`).
    read: places of each row [..., Q] that are wanted; the last layer computes
      no others.
    collect: a function of hidden states [..., T, D]. If given, the result is
      its values for the embedding output and every layer, stacked on a new
      first axis [num_layers + 1, ...], instead of the last hidden states.
    lookup: (table, ids) -> vectors.
    unshard: applied to the parameters of each layer just before its use.

  Returns:
    Hidden states [..., T, D], or [..., Q, D] with `read`, in config.dtype; the
    values of `collect` if it is given.
  """
  assert read is None or collect is None
  shape = rows["tokens"].shape
  flat = {
    k: v.reshape(-1, shape[-1]) for k, v in _id_rows(rows, config).items()
  }
  segments_BT = flat["segments"]
  keys_B = rows.get("dropout_keys")
  if keys_B is not None:
    keys_B = keys_B.reshape(-1)
  layers = params["layers"]
  if num_layers is not None:
    layers = jax.tree.map(lambda leaf: leaf[:num_layers], layers)
  depth = jax.tree.leaves(layers)[0].shape[0]

  def unflatten(x_BTD: jax.Array) -> jax.Array:
    return x_BTD.reshape(*shape[:-1], *x_BTD.shape[-2:])

  def apply(x_BTD: Any, layer: Any, index: Any, read_BQ: Any = None) -> Any:
    return Layer(config).apply(
      {"params": unshard(layer)},
      x_BTD,
      segments_BT,
      fold(keys_B, index + 1),
      read_BQ,
    )

  if config.remat != "none":
    apply = jax.checkpoint(apply, policy=_REMAT[config.remat])

  def body(x_BTD: Any, layer_and_index: Any) -> tuple[Any, Any]:
    x_BTD = apply(x_BTD, *layer_and_index)
    return x_BTD, None if collect is None else collect(unflatten(x_BTD))

  vectors = rows.get("vectors")
  if vectors is None:
    vectors = lookup(params["embed"]["token"], flat["tokens"])
  x_BTD: Any = Embeddings(config).apply(
    {"params": {k: v for k, v in params["embed"].items() if k != "token"}},
    vectors.reshape(*segments_BT.shape, -1),
    flat["positions"],
    flat.get("types"),
    fold(keys_B, 0),
  )
  first = x_BTD
  whole = depth if read is None else depth - 1
  x_BTD, collected = jax.lax.scan(
    body,
    x_BTD,
    (jax.tree.map(lambda leaf: leaf[:whole], layers), jnp.arange(whole)),
    unroll=max(1, min(config.unroll, whole)),
  )
  if read is not None:
    last = jax.tree.map(lambda leaf: leaf[-1], layers)
    x_BTD = apply(x_BTD, last, whole, read.reshape(-1, read.shape[-1]))
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
