"""Pooling: one vector of a text, or of a packed item, from hidden states.

Letters: G groups, n items of a group, R rows of a group, T tokens, D vector
size.
"""

import dataclasses
import difflib
import operator
from typing import Any

import jax
import jax.numpy as jnp

from infoxlm_jax.errors import InputError
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.special_ids import Ids

POOLINGS = ("mean", "mean_all", "first")


@dataclasses.dataclass(frozen=True)
class Reading:
  """Options of turning a text into a vector.

  Attributes:
    layer: 1 is the first layer, 0 the embedding output, None the last.
    pooling: "mean" of the tokens without `<s>` and `</s>` (zeros where there
      are no others), "mean_all" with them, or "first", the vector of `<s>`.
    prefix: put before every text, such as "query: " for e5.
    normalize: scale vectors to length 1.
    max_length: longest text in tokens, `<s>` and `</s>` included; None: as
      many as the model has positions.
    batch_tokens: tokens that each device encodes at a time.
    batch_size: the most texts that each device encodes at a time; None: as
      many as batch_tokens holds.
  """

  layer: int | None = None
  pooling: str = "mean"
  prefix: str = ""
  normalize: bool = False
  max_length: int | None = None
  batch_tokens: int = 4096
  batch_size: int | None = None

  def checked_for(self, model: EncoderConfig) -> tuple[int, int]:
    """The layer and the longest text in tokens, for this model.

    Raises:
      InputError: the model has no such layer or too few positions, or an
        option is of another type or none of its values.
    """
    if not isinstance(self.prefix, str):
      raise InputError(f"prefix = {self.prefix!r}: give text, '' for none")
    if self.normalize not in (False, True):
      raise InputError(f"normalize = {self.normalize!r}: give True or False")
    if self.pooling not in POOLINGS:
      close = difflib.get_close_matches(self.pooling, POOLINGS, 1)
      hint = f": did you mean {close[0]!r}?" if close else ""
      raise InputError(
        f"pooling {self.pooling!r} is none of {', '.join(POOLINGS)}{hint}"
      )
    for name in ("batch_tokens", "batch_size"):
      value = getattr(self, name)
      if value is not None and _whole(name, value) < 1:
        raise InputError(f"{name} = {value}: give at least 1")
    layer = model.num_layers
    if self.layer is not None:
      layer = _whole("layer", self.layer)
    if not 0 <= layer <= model.num_layers:
      raise InputError(
        f"layer {layer}: the model has {model.num_layers} layers; 0 is the"
        " embedding output"
      )
    length = limit = model.max_positions
    if self.max_length is not None:
      length = _whole("max_length", self.max_length)
    if not 2 <= length <= limit:
      raise InputError(
        f"max_length = {length}: the model has {limit} positions, and a text"
        " has at least <s> and </s>"
      )
    return layer, length


def _whole(name: str, value: Any) -> int:
  """A whole number of Python or numpy; InputError for 2.0, "2" and True."""
  if not isinstance(value, bool):
    try:
      return operator.index(value)
    except TypeError:
      pass
  raise InputError(
    f"{name} = {value!r} ({type(value).__name__}): give a whole number"
  )


def framing(tokens: jax.Array, ids: Ids) -> jax.Array:
  """Whether each token is <s>, </s> or padding, which "mean" leaves out."""
  return (tokens == ids.bos) | (tokens == ids.eos) | (tokens == ids.pad)


def members(rows: Any, num_items: int, pooling: str) -> jax.Array:
  """1 where a token counts in an item's vector, else 0: [G, n, R, T] float32.

  Args:
    rows: "segments" and, as the pooling needs them, "positions" or "framing"
      (of the tokens before masking), each [G, R, T]. The n-th item of a group
      has segment n + 1.
    num_items: n.
    pooling: as in Reading.

  Raises:
    ValueError: another pooling.
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
  """Mean of the hidden states of each item's members: [G, n, D] float32.

  An item without members gets zeros. This is a matrix product inside each
  group: a group has few items, so it is cheaper than a scatter, and it needs
  nothing from another device.
  """
  sum_GnD = jnp.einsum(
    "gnrt,grtd->gnd",
    members_GnRT.astype(hidden_GRTD.dtype),
    hidden_GRTD,
    preferred_element_type=jnp.float32,
  )
  count_Gn = jnp.sum(members_GnRT, axis=(-2, -1))
  return sum_GnD / jnp.maximum(count_Gn, 1.0)[..., None]


def first_tokens(
  hidden_GRTD: jax.Array, segments_GRT: jax.Array, num_items: int
) -> jax.Array:
  """The hidden state of each packed item's first token [G, n, D].

  Found by segments, since positions may begin again within an item.
  """
  groups = segments_GRT.shape[0]
  flat = segments_GRT.reshape(groups, -1)
  item_n = 1 + jnp.arange(num_items)
  first_Gn = jnp.argmax(flat[:, None] == item_n[:, None], axis=-1)
  hidden = hidden_GRTD.reshape(groups, flat.shape[-1], -1)
  return jnp.take_along_axis(hidden, first_Gn[..., None], axis=1)


def unit(x: jax.Array) -> jax.Array:
  """x at length 1 along its last axis; zero stays zero."""
  square = jnp.sum(x * x, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
