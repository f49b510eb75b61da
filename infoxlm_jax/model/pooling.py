"""What is read of an encoder as the vector of a text."""

import dataclasses
import difflib
from typing import Any

import jax
import jax.numpy as jnp

from infoxlm_jax.errors import InputError
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.special_ids import Ids

POOLINGS = ("mean", "mean_all", "first")


@dataclasses.dataclass(frozen=True)
class Reading:
  """How a text becomes a vector.

  Attributes:
    layer: 1 is the first layer, 0 the embedding output, None the last.
    pooling: "mean" of the tokens without `<s>` and `</s>` (zeros where there
      are no others), "mean_all" with them, or "first", the vector of `<s>`.
    prefix: put before every text, such as "query: " for e5.
    normalize: scale vectors to length 1.
    max_length: longest text in tokens, `<s>` and `</s>` included; None: what
      the model has positions for.
    batch_tokens: computed at a time on each device.
  """

  layer: int | None = None
  pooling: str = "mean"
  prefix: str = ""
  normalize: bool = False
  max_length: int | None = None
  batch_tokens: int = 4096

  def checked_for(self, model: EncoderConfig) -> tuple[int, int]:
    """(layer, longest text in tokens) that this means for a model.

    Raises:
      InputError: a layer, pooling, length or batch that there is not.
    """
    if self.pooling not in POOLINGS:
      close = difflib.get_close_matches(self.pooling, POOLINGS, 1)
      hint = f": did you mean {close[0]!r}?" if close else ""
      raise InputError(
        f"pooling {self.pooling!r} is none of {', '.join(POOLINGS)}{hint}"
      )
    if self.batch_tokens < 1:
      raise InputError(f"batch_tokens = {self.batch_tokens}: give at least 1")
    layer = model.num_layers if self.layer is None else self.layer
    if not 0 <= layer <= model.num_layers:
      raise InputError(
        f"layer {layer}: the model has {model.num_layers} layers; 0 is the"
        " embedding output"
      )
    limit = model.max_positions
    length = limit if self.max_length is None else self.max_length
    if not 2 <= length <= limit:
      raise InputError(
        f"max_length = {length}: the model has {limit} positions, and a text"
        " has at least <s> and </s>"
      )
    return layer, length


def framing(tokens: jax.Array, ids: Ids) -> jax.Array:
  """Where <s>, </s> and padding stand, which "mean" leaves out: bool."""
  return (tokens == ids.bos) | (tokens == ids.eos) | (tokens == ids.pad)


def members(rows: Any, num_items: int, pooling: str) -> jax.Array:
  """Which tokens an item's vector is the mean of: 0 or 1, [G, n, R, T].

  Args:
    rows: "segments", "positions" and "framing" (of the tokens before
      masking), [G, R, T].
    num_items: n.
    pooling: see Contrast.
  """
  segments_GRT = rows["segments"]
  if pooling == "first":
    counts_GRT = rows["positions"] == 0
  elif pooling == "mean":
    counts_GRT = ~rows["framing"]
  elif pooling == "mean_all":
    counts_GRT = jnp.ones_like(segments_GRT, bool)
  else:
    raise ValueError(f"pooling={pooling!r} is not first, mean or mean_all")
  item_n = 1 + jnp.arange(num_items)
  mine_GnRT = segments_GRT[:, None] == item_n[:, None, None]
  return (mine_GnRT & counts_GRT[:, None]).astype(jnp.float32)


def pool(hidden_GRTD: jax.Array, members_GnRT: jax.Array) -> jax.Array:
  """The mean of each item's members, float32 [G, n, D].

  A product inside the group: its items are few, so it is cheaper than
  scatters, and it never leaves the group's device.
  """
  sum_GnD = jnp.einsum(
    "gnrt,grtd->gnd",
    members_GnRT.astype(hidden_GRTD.dtype),
    hidden_GRTD,
    preferred_element_type=jnp.float32,
  )
  count_Gn = jnp.sum(members_GnRT, axis=(-2, -1))
  return sum_GnD / jnp.maximum(count_Gn, 1.0)[..., None]


def unit(x: jax.Array) -> jax.Array:
  """x at length 1 along its last axis; zero stays zero."""
  square = jnp.sum(x * x, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
