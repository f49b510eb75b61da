"""Masking on the device: counts, shares and slots."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives import masking
from infoxlm_jax.objectives.masked_lm import MaskedLM
from infoxlm_jax.special_ids import Ids
from infoxlm_jax.training import device_step

VOCAB = 1000
IDS = Ids(mask=VOCAB - 1, size=VOCAB)


def _rows(lengths, width, groups=1):
  """Items of the given lengths, one after the other, in rows of `width`."""
  tokens = np.full((groups, len(lengths), width), 1, np.int32)
  segments, positions = np.zeros_like(tokens), np.zeros_like(tokens)
  number = 0
  for row, row_lengths in enumerate(lengths):
    at = 0
    for length in row_lengths:
      number += 1
      here = slice(at, at + length)
      tokens[:, row, here] = 10 + np.arange(length)
      tokens[:, row, at], tokens[:, row, at + length - 1] = 0, 2
      segments[:, row, here] = number
      positions[:, row, here] = np.arange(length)
      at += length
  return {"tokens": tokens, "segments": segments, "positions": positions}


_select = jax.jit(masking.select, static_argnums=(2, 3))


def _keys(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


@pytest.fixture(scope="module")
def many():
  """One row of items of 7, 22, 62 and 30 tokens, masked 3000 times."""
  rows = _rows([[7, 22, 62, 30]], 128, groups=3000)
  return rows, np.asarray(_select(_keys(3000), rows, 0.15))


def test_count_of_each_item_is_floor_of_p_length_plus_u(many):
  rows, drawn = many
  for item, length in enumerate((7, 22, 62, 30), 1):
    counts = (drawn & (rows["segments"] == item)).sum((1, 2))
    low = int(np.floor(0.15 * length))
    assert set(counts) <= {low, low + 1}
    # The mean is p L: u is uniform (3 sigma of a fair coin is 0.03).
    assert counts.mean() == pytest.approx(0.15 * length, abs=0.03)


def test_padding_is_never_masked(many):
  rows, drawn = many
  assert not drawn[rows["segments"] == 0].any()


def test_every_position_is_as_likely_specials_too(many):
  rows, drawn = many
  for item, length in enumerate((7, 22, 62, 30), 1):
    share = drawn[:, rows["segments"][0] == item].mean(0)
    sigma = np.sqrt(0.15 * 0.85 / 3000)
    assert np.abs(share - 0.15).max() < 4.5 * sigma, (item, length)


def test_counts_are_the_released_codes():
  """On its own items: masked as often as it masks them in its two epochs."""
  numbers = oracle.load("masking_official")
  items = [numbers[f"item_{i}"] for i in range(4)]
  width = max(map(len, items))
  tokens = [
    np.pad(item, (0, width - len(item)), constant_values=oracle.PAD)
    for item in items
  ]
  draws = 500
  rows = oracle.rows(np.tile(tokens, (draws, 1)))
  drawn = np.asarray(_select(_keys(draws * 4), rows, 0.15))
  ours = drawn.reshape(draws, 4, width).sum(-1)
  for i, item in enumerate(items):
    theirs = {
      int((numbers[f"tgt_e{epoch}_{i}"] != oracle.PAD).sum())
      for epoch in (0, 1)
    }
    low = int(np.floor(0.15 * len(item)))
    assert theirs <= set(ours[:, i].tolist()) == {low, low + 1}


def test_specials_can_be_spared():
  rows = _rows([[7, 22, 62, 30]], 128, groups=200)
  drawn = np.asarray(_select(_keys(200), rows, 0.5, IDS.special))
  special = rows["tokens"] < 4
  assert drawn.any()
  assert not drawn[special].any()
  with_specials = np.asarray(_select(_keys(200), rows, 0.5))
  assert with_specials[special & (rows["segments"] > 0)].any()


def test_rare_tokens_are_drawn_more_often():
  """Draws without replacement in proportion to n^-.5, against their own sums.

  An item of four tokens with counts 1, 4, 16 and 100, of which two are drawn:
  weights 1, 1/2, 1/4 and 1/10. A token is drawn first, or second after any
  other one.
  """
  number = 20000
  rows = _rows([[4]], 6, groups=number)
  counts = np.array([1, 4, 16, 100, 0, 0], np.int32)
  rows["counts"] = np.broadcast_to(counts, rows["tokens"].shape)
  select = jax.jit(masking.select, static_argnums=(2, 3, 4))
  drawn = np.asarray(select(_keys(number), rows, 0.5, (), 0.5))[:, 0]
  assert (drawn.sum(-1) == 2).all() and not drawn[:, 4:].any()
  weights = np.array([1, 1 / 2, 1 / 4, 1 / 10])
  p = weights / weights.sum()
  for token in range(4):
    after = sum(p[o] * p[token] / (1 - p[o]) for o in range(4) if o != token)
    wanted = p[token] + after
    sigma = np.sqrt(wanted * (1 - wanted) / number)
    assert abs(drawn[:, token].mean() - wanted) < 4 * sigma


def test_counts_need_a_stream_that_has_them():
  rows = _rows([[4]], 6)
  model = EncoderConfig(VOCAB, 1, 8, 1, 8)
  with pytest.raises(InputError, match=r"frequencies = True.*'mlm'"):
    MaskedLM(frequency_power=0.5).corrupt(_keys(1), rows, model)
  with pytest.raises(InputError, match="frequency_power = -1"):
    MaskedLM(frequency_power=-1).check("mlm", model)
  rows["counts"] = np.ones_like(rows["tokens"])
  out, _ = MaskedLM(frequency_power=0.5).corrupt(_keys(1), rows, model)
  assert "counts" not in out


def test_positions_that_begin_again_do_not_divide_an_item():
  """XLM's pairs: 30 tokens, of which 4 or 5 are drawn, not 4 to 6."""
  rows = _rows([[30]], 32, groups=2000)
  plain = np.asarray(_select(_keys(2000), rows, 0.15))
  rows["positions"][..., 17:30] -= 17
  drawn = np.asarray(_select(_keys(2000), rows, 0.15))
  assert set(drawn.sum((1, 2)).tolist()) == {4, 5}
  np.testing.assert_array_equal(drawn, plain)


def test_replacement_is_80_10_10():
  tokens = np.full((8, 100, 128), 500, np.int32)
  selected = np.ones_like(tokens, bool)
  out = np.asarray(
    jax.jit(masking.corrupt, static_argnums=3)(_keys(8), tokens, selected, IDS)
  )
  count = out.size
  masked, kept = (out == VOCAB - 1).mean(), (out == 500).mean()
  random = out[(out != VOCAB - 1) & (out != 500)]
  for share, expected in (
    (masked, 0.8),
    (kept, 0.1 + 0.1 / 995),
    (len(random) / count, 0.1 - 0.1 / 995),
  ):
    sigma = np.sqrt(expected * (1 - expected) / count)
    assert share == pytest.approx(expected, abs=4 * sigma)
  # Random ids: ordinary ones only, evenly.
  assert random.min() >= 4
  assert random.max() <= VOCAB - 2
  assert random.mean() == pytest.approx((4 + VOCAB - 2) / 2, rel=0.02)


def test_random_ids_step_over_special_ids_in_between():
  """As BERT has them: <pad> first, the others somewhere inside."""
  ids = Ids(bos=6, pad=0, eos=7, unk=5, mask=9, size=12)
  tokens = np.full((8, 50, 64), 3, np.int32)
  out = np.asarray(
    jax.jit(masking.corrupt, static_argnums=3)(
      _keys(8), tokens, np.ones_like(tokens, bool), ids
    )
  )
  found, counts = np.unique(out[(out != 3) & (out != 9)], return_counts=True)
  assert found.tolist() == [1, 2, 4, 8, 10, 11]
  np.testing.assert_allclose(counts / counts.sum(), 1 / 6, atol=0.02)
  assert (out == 9).mean() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("random_mask", [False, True])
def test_random_ids_may_be_mask_where_asked(random_mask):
  """Ids 4 to 7 are ordinary, 8 is <mask>; fairseq draws from all five."""
  ids = Ids(mask=8, size=9)
  tokens = np.full((8, 100, 128), 4, np.int32)
  out = np.asarray(
    jax.jit(masking.corrupt, static_argnums=(3, 4))(
      _keys(8), tokens, np.ones_like(tokens, bool), ids, random_mask
    )
  )
  each = 0.1 / (4 + random_mask)
  shares = {4: 0.1 + each, 5: each, 6: each, 7: each, 8: 0.8}
  shares[8] += each if random_mask else 0
  assert set(np.unique(out)) == set(shares)
  for token, share in shares.items():
    sigma = np.sqrt(share * (1 - share) / out.size)
    assert (out == token).mean() == pytest.approx(share, abs=4 * sigma)


def test_unselected_tokens_stay():
  tokens = np.arange(2 * 3 * 8, dtype=np.int32).reshape(2, 3, 8) + 10
  selected = np.zeros_like(tokens, bool)
  selected[0, 1, 3] = True
  out = np.asarray(masking.corrupt(_keys(2), tokens, selected, IDS))
  np.testing.assert_array_equal(out[~selected], tokens[~selected])


def test_slots_list_positions_and_count_what_has_no_room():
  selected = jnp.array([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]) > 0
  slots = masking.slots(selected, 3)
  assert slots.place.tolist() == [[1, 3, 4], [0, 0, 0], [0, 1, 2]]
  assert slots.valid.tolist() == [[True] * 3, [False] * 3, [True] * 3]
  assert int(slots.overflow) == 2
  within = masking.within_budget(selected, 3)
  assert within.sum(axis=-1).tolist() == [3, 0, 3]


def test_default_slots_are_rarely_too_few():
  rows = _rows([[5] * 25, [125], [20] * 6], 128, groups=300)
  drawn = _select(_keys(300), rows, 0.15)
  slots = masking.slots(drawn, masking.default_slots(0.15, 128))
  assert masking.default_slots(0.15, 128) == 32
  assert int(slots.overflow) <= 5


def test_a_million_tokens_in_the_step():
  """Through what the step calls: 15 %, of these 80 : 10 : 10."""
  width, groups = 128, 8
  lengths = [[7, 22, 62, 37]] * 1000
  rows = _rows(lengths, width, groups)
  # Numbers of items begin again in each group, as the loader has them.
  first = rows["segments"].min(axis=(1, 2), keepdims=True)
  rows["segments"] -= first - 1
  rows["tokens"][:] = 500
  model = EncoderConfig(
    vocab_size=VOCAB, num_layers=1, hidden_size=8, num_heads=1, ffn_size=8
  )
  objective = MaskedLM("mlm", mask_slots=width)

  @jax.jit
  def drawn(rng):
    return device_step.corrupt_groups(
      {"mlm": objective},
      model,
      device_step.update_key(rng, 7),
      {"mlm": rows},
      0,
    )

  out, counts = drawn(jax.random.key_data(jax.random.key(0)))
  total = rows["tokens"].size
  assert total > 1e6
  terms = int(counts["mlm"]["terms"])
  assert int(counts["mlm"]["overflow"]) == 0
  sigma = np.sqrt(0.15 * 0.85 * total)
  assert abs(terms - 0.15 * total) < 3 * sigma
  slots = out["mlm"]["slots"]
  place, valid = np.asarray(slots["place"]), np.asarray(slots["valid"])
  tokens = np.asarray(out["mlm"]["tokens"])
  became = np.take_along_axis(tokens, place, axis=-1)[valid]
  assert len(became) == terms
  assert (np.asarray(slots["target"])[valid] == 500).all()
  # Of 995 ordinary ids one is the token itself.
  kept = 0.1 + 0.1 / 995
  for found, share in (
    (became == VOCAB - 1, 0.8),
    (became == 500, kept),
    ((became != 500) & (became != VOCAB - 1), 0.2 - kept),
  ):
    sigma = np.sqrt(share * (1 - share) / terms)
    assert abs(found.mean() - share) < 3 * sigma
  # What was not chosen stays.
  assert (tokens != 500).sum() == (became != 500).sum()


def test_a_group_draws_the_same_alone():
  rows = _rows([[7, 22]], 32, groups=4)
  keys = _keys(4)
  together = _select(keys, rows, 0.3)
  alone = _select(keys[2:3], {k: v[2:3] for k, v in rows.items()}, 0.3)
  np.testing.assert_array_equal(together[2], alone[0])
  assert np.asarray(together[0] != together[1]).any()
