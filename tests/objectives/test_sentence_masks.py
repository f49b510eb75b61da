"""Masks drawn for each sentence, which are joined afterwards."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from small_corpus import build

from infoxlm_jax.data.streams import ContrastStream
from infoxlm_jax.model import encoder
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.pooling import POOLINGS
from infoxlm_jax.objectives import masking
from infoxlm_jax.objectives.contrast import Contrast
from infoxlm_jax.special_ids import Ids

BIG = EncoderConfig(
  vocab_size=4000, num_layers=1, hidden_size=8, num_heads=1, ffn_size=8
)
GROUPS, ROWS = 32, 64
TOKENS = 8  # of a sentence, and <s> and </s>


@pytest.fixture(autouse=True)
def _compile_fast():
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


def corrupted(objective, seed, groups, rows, config):
  """Contrast.corrupt, compiled."""
  keys = jax.random.split(jax.random.key(seed), groups)
  return jax.jit(lambda keys, rows: objective.corrupt(keys, rows, config))(
    keys, rows
  )


@pytest.fixture(scope="module")
def sides():
  """2,048 items of two sentences of 8 tokens, whose starts are kept."""
  sentence = [0, *range(100, 100 + TOKENS), 2]
  item = np.array([*sentence, *sentence, 1, 1], np.int32)
  real = item != 1
  starts = np.zeros(len(item), np.int32)
  starts[[0, 10]] = 1
  one = {
    "tokens": item,
    "segments": real.astype(np.int32),
    "positions": np.where(real, np.arange(len(item)), 0).astype(np.int32),
    "starts": starts,
  }
  rows = {k: np.tile(v, (GROUPS, ROWS, 1)) for k, v in one.items()}
  # Items of a group are numbered; here that a row has one is what counts.
  rows["segments"] = rows["segments"] * np.arange(1, ROWS + 1)[:, None]
  return {
    "query": rows,
    "key": rows,
    "items": np.zeros((GROUPS, ROWS), np.int32),
  }


def within(counts, shares):
  """Counts of outcomes against their shares, by the binomial error."""
  number = sum(counts)
  for got, share in zip(counts, shares, strict=True):
    sigma = np.sqrt(number * share * (1 - share))
    assert abs(got - number * share) < 4 * sigma, (counts, shares)


def test_counts_are_the_released_codes(sides):
  """m = floor(.15 * 10 + u) of each sentence: 1 or 2, at .5 each.

  So an item has 2, 3 or 4 at .25, .5, .25. Drawn for the joined item of 19
  tokens it would be 2 or 3, at .15 and .85.
  """
  rows = sides["query"]
  segments = masking.sentence_segments(rows["segments"], rows["starts"])
  drawn = np.asarray(
    jax.jit(masking.select, static_argnums=2)(
      jax.random.split(jax.random.key(0), GROUPS),
      {"tokens": rows["tokens"], "segments": segments},
      0.15,
    )
  )
  counts = drawn.sum(-1).reshape(-1)
  assert set(counts) == {2, 3, 4}
  within([(counts == n).sum() for n in (2, 3, 4)], [0.25, 0.5, 0.25])
  first = drawn[..., :10].sum(-1).reshape(-1)
  within([(first == n).sum() for n in (1, 2)], [0.5, 0.5])
  # Every position alike, the second <s> as well: 1.5 of 10.
  for place in range(20):
    within([drawn[..., place].sum(), (~drawn[..., place]).sum()], [0.15, 0.85])


def test_a_masked_start_stays_and_another_is_left_out(sides):
  """The joint has a token where it is masked or replaced: .15 * .9 = 13.5 %.

  (13.9 % in a sample that the released code drew.)
  """
  out, counts = corrupted(Contrast(layer=1), 1, GROUPS, sides, BIG)
  assert counts["terms"] == GROUPS * ROWS
  stays = []
  for side in ("query", "key"):
    assert "starts" not in out[side]
    rows = {k: np.asarray(v) for k, v in out[side].items()}
    at_joint = rows["segments"][..., 10] > 0
    stays.append(at_joint)
    tokens = rows["tokens"][..., 10]
    assert (tokens[~at_joint] == 1).all() and (tokens[at_joint] != 0).all()
    masked = (tokens[at_joint] == BIG.ids.mask).sum()
    within([masked, at_joint.sum() - masked], [8 / 9, 1 / 9])
    # Of sentences every other token is still there, numbered without a gap.
    real = rows["segments"] > 0
    assert (real.sum(-1) == 19 + at_joint).all()
    count_up = np.cumsum(real, -1) - 1
    assert (rows["positions"] == np.where(real, count_up, 0)).all()
    assert (rows["positions"][~real] == 0).all()
  extra = np.concatenate(stays)
  within([extra.sum(), (~extra).sum()], [0.135, 0.865])
  # The two sides are masked independently.
  both = stays[0] & stays[1]
  within([both.sum(), (~both).sum()], [0.135**2, 1 - 0.135**2])


class FakeStore:
  ids = Ids(mask=100, size=101)
  folder = "fake"
  pair_counts = {("en", "fr"): 16}  # noqa: RUF012

  def read_pairs(self, pair, indices):
    lengths = [(1 + r % 3, 1 + r % 4) for r in map(int, indices)]
    return [
      (
        np.arange(5 + 5 * r, 5 + 5 * r + a, dtype=np.int32) % 95 + 5,
        np.arange(9 + 5 * r, 9 + 5 * r + b, dtype=np.int32) % 95 + 5,
      )
      for r, (a, b) in zip(map(int, indices), lengths, strict=True)
    ]


def stream(late, packed, length=32):
  return ContrastStream(
    batch=8,
    rows=4 if packed else 8,
    row_length=length,
    mixup="disjoint",
    padded=not packed,
    join_after_masking=late,
  )


@pytest.fixture(scope="module")
def model():
  config, params = oracle.model("xlmr_mlm")
  params["heads"]["contrast"] = {"projection": np.eye(32, dtype=np.float32)}
  params = jax.tree.map(jnp.asarray, params)
  encode = functools.partial(encoder.encode, config=config)
  return config, params, jax.jit(encode)


@pytest.mark.parametrize("packed", [True, False])
def test_a_row_without_the_joint_is_encoded_alike(model, packed):
  """Each item's hidden states, with joints left out and with masked ones.

  The expected ones are of rows that hold the item alone, its tokens one after
  the other.
  """
  config, params, encode = model
  arrays, _ = build(stream(True, packed), FakeStore(), 1, 0, 0, 1)
  batch = jax.tree.map(lambda x: jnp.asarray(x)[None], arrays)
  out, _ = corrupted(Contrast(layer=2, mask_prob=0.4), 3, 1, batch, config)
  left_out = 0
  for side in ("query", "key"):
    rows = {k: np.asarray(v)[0] for k, v in out[side].items()}
    hidden = np.asarray(encode(params, jax.tree.map(jnp.asarray, rows)))
    alone = {
      "tokens": np.full((8, 32), 1, np.int32),
      "segments": np.zeros((8, 32), np.int32),
      "positions": np.zeros((8, 32), np.int32),
    }
    for n in range(8):
      tokens = rows["tokens"][rows["segments"] == n + 1]
      alone["tokens"][n, : len(tokens)] = tokens
      alone["segments"][n, : len(tokens)] = 1
      alone["positions"][n, : len(tokens)] = np.arange(len(tokens))
      left_out += (arrays[side]["segments"] == n + 1).sum() - len(tokens)
    expected = np.asarray(encode(params, alone))
    for n in range(8):
      ours = hidden[rows["segments"] == n + 1]
      np.testing.assert_allclose(ours, expected[n, : len(ours)], atol=1e-6)
  assert 0 < left_out < 16  # some are left out, some were masked and stay


def test_without_masks_all_vectors_are_those_of_joined_sentences(model):
  config, params, _ = model
  store, encode = FakeStore(), functools.partial(encoder.encode, config=config)
  late, early = (
    jax.tree.map(
      lambda x: jnp.asarray(x)[None],
      build(stream(option, True), store, 1, 0, 0, 1)[0],
    )
    for option in (True, False)
  )

  @jax.jit
  def vectors(rows):
    out = []
    for pooling in POOLINGS:
      own = Contrast(layer=2, mask_prob=0.0, pooling=pooling)
      drawn, _ = own.corrupt(None, rows, config)
      out.append(own.keys(params, encode, drawn))
    return jnp.stack(out)

  ours, theirs = vectors(late), vectors(early)
  assert ours.shape == (3, 1, 8, 32)
  assert float(jnp.abs(ours[0] - ours[1]).max()) > 0.1
  np.testing.assert_allclose(ours, theirs, atol=1e-6)
