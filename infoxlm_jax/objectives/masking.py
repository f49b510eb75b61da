"""Token masking on the device, drawn for every item of packed rows.

The rule is the released InfoXLM code's: of an item of L tokens,
m = floor(p L + u) positions, u ~ U[0, 1), drawn without replacement; each
becomes <mask> (80 %), a random ordinary token (10 %) or stays (10 %).

Letters: G groups, R rows of a group, T tokens of a row, P mask slots of a row.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from infoxlm_jax.special_ids import Ids


class Slots(NamedTuple):
  """Masked positions of every row in a fixed number of slots."""

  place: jax.Array  # [..., P] position in the row; 0 where not valid
  valid: jax.Array  # [..., P] bool
  overflow: jax.Array  # [] how many targets found no slot


def select(
  keys_G: jax.Array,
  rows: dict[str, jax.Array],
  prob: float,
  spared: Sequence[int] = (),
  power: float = 0.0,
) -> jax.Array:
  """Draws the positions to mask: bool [G, R, T].

  Args:
    keys_G: a PRNG key for every group, so that the draw does not depend on
      how groups are spread over devices.
    rows: tokens, segments [G, R, T], and counts where there is a power.
    prob: share of each item's tokens.
    spared: ids that are never masked (the released code spares none, not
      even <s> and </s>).
    power: an item's positions are drawn one after the other with
      probabilities in proportion to counts^-power of those that are left;
      0: all alike.
  """
  names = ("tokens", "segments", *(("counts",) if power else ()))
  return jax.vmap(
    lambda key, own: _select_group(key, own, prob, spared, power)
  )(keys_G, {name: rows[name] for name in names})


def _select_group(
  key: jax.Array,
  rows: dict[str, jax.Array],
  prob: float,
  spared: Sequence[int],
  power: float,
) -> jax.Array:
  tokens_RT, segments_RT = rows["tokens"], rows["segments"]
  score_key, count_key = jax.random.split(key)
  score_RT = jax.random.uniform(score_key, tokens_RT.shape)
  if power:
    # The smallest of exponential times with rates w are a draw without
    # replacement in proportion to w (Efraimidis and Spirakis 2006).
    counts_RT = jnp.maximum(rows["counts"], 1).astype(jnp.float32)
    score_RT = -jnp.log1p(-score_RT) * counts_RT**power
  eligible_RT = segments_RT > 0
  for spared_id in spared:
    eligible_RT &= tokens_RT != spared_id
  # Rank of each token's score among the eligible tokens of its own item, by
  # comparing all pairs of the row: no sort, no scatter, any packing.
  same_RTT = segments_RT[:, :, None] == segments_RT[:, None, :]
  same_RTT &= eligible_RT[:, None, :]
  mine, other = score_RT[:, :, None], score_RT[:, None, :]
  t = jnp.arange(tokens_RT.shape[-1])
  earlier = (other < mine) | ((other == mine) & (t[None, :] < t[:, None]))
  rank_RT = jnp.sum(same_RTT & earlier, axis=-1)
  length_RT = jnp.sum(same_RTT, axis=-1)
  # One uniform number an item: the one drawn at its first token. Positions do
  # not tell where that is, for in XLM's pairs they begin again.
  u_RT = jax.random.uniform(count_key, tokens_RT.shape)
  new_RT = segments_RT != jnp.roll(segments_RT, 1, axis=-1)
  new_RT |= t == 0
  start_RT = jax.lax.cummax(jnp.where(new_RT, t, 0), axis=1)
  u_RT = jnp.take_along_axis(u_RT, start_RT, axis=-1)
  count_RT = jnp.floor(prob * length_RT + u_RT)
  return eligible_RT & (rank_RT < count_RT)


def corrupt(
  keys_G: jax.Array,
  tokens: jax.Array,
  selected: jax.Array,
  ids: Ids,
  random_mask: bool = False,
) -> jax.Array:
  """Replaces selected tokens [G, R, T]: 80 % <mask>, 10 % random, 10 % kept.

  Random tokens are uniform over the ordinary ids, those that are not special,
  and <mask> where `random_mask`: fairseq spares its first four ids only.
  """
  never = [i for i in ids.special if not (random_mask and i == ids.mask)]

  def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    how_key, what_key = jax.random.split(key)
    how = jax.random.uniform(how_key, tokens.shape[1:])
    num_ordinary = ids.size - len(never)
    what = jax.random.randint(what_key, tokens.shape[1:], 0, num_ordinary)
    for special in never:  # in rising order: step over each
      what += what >= special
    return how, what

  how, random_tokens = jax.vmap(draw)(keys_G)
  replaced = jnp.where(
    how < 0.8, ids.mask, jnp.where(how < 0.9, random_tokens, tokens)
  )
  return jnp.where(selected, replaced, tokens)


def sentence_segments(segments: jax.Array, starts: jax.Array) -> jax.Array:
  """A number for every sentence of packed rows; 0 for padding [..., T].

  Args:
    segments: of the items.
    starts: 1 at the first token of every sentence of an item, else 0.
  """
  return jnp.where(segments > 0, jnp.cumsum(starts, axis=-1), 0)


def join_sentences(
  rows: dict[str, jax.Array], starts: jax.Array, ids: Ids
) -> dict[str, jax.Array]:
  """Leaves out the `<s>` between the sentences of an item, once masks are in.

  The released code masks sentences and then joins them: it leaves out the first
  token of a second sentence where that is still <s>, and keeps it where masking
  made something else of it. Here its place becomes padding within the item, and
  later tokens of the item move down by a position, so that the item is encoded
  as if the place were not there.

  Args:
    rows: tokens (masked), segments, positions [..., T].
    starts: as sentence_segments takes them.
    ids: of the tokenizer; <s> and padding are used.

  Returns:
    The three arrays anew.
  """
  positions = rows["positions"]
  out = (starts > 0) & (positions > 0) & (rows["tokens"] == ids.bos)
  count = jnp.cumsum(out.astype(positions.dtype), axis=-1)
  # Of those, the ones before the token's own item.
  at_item = jnp.where(positions == 0, count, 0)
  before = jax.lax.cummax(at_item, axis=at_item.ndim - 1)
  return {
    "tokens": jnp.where(out, ids.pad, rows["tokens"]),
    "segments": jnp.where(out, 0, rows["segments"]),
    "positions": jnp.where(out, 0, positions - (count - before)),
  }


def slots(selected: jax.Array, num_slots: int) -> Slots:
  """Lists the selected positions of each row [..., T] in `num_slots` slots."""
  width = selected.shape[-1]
  index = jnp.where(selected, jnp.arange(width), width)
  index = jnp.sort(index, axis=-1)[..., :num_slots]
  valid = index < width
  overflow = jnp.sum(selected) - jnp.sum(valid)
  return Slots(jnp.where(valid, index, 0), valid, overflow)


def within_budget(selected: jax.Array, num_slots: int) -> jax.Array:
  """The first `num_slots` selected positions of each row [..., T]."""
  return selected & (jnp.cumsum(selected, axis=-1) <= num_slots)


def default_slots(prob: float, row_length: int) -> int:
  """Slots of a row: the expected number and eight, to a multiple of eight.

  A row's count is p T within one for every item in it, up or down; more than
  eight over is rare, and counted where it happens.
  """
  return min(row_length, -(-(int(prob * row_length) + 8) // 8) * 8)
