"""Vectors of items against numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from infoxlm_jax.model.pooling import framing, members, pool, unit
from infoxlm_jax.special_ids import Ids


@pytest.mark.parametrize("pooling", ["first", "mean", "mean_all"])
def test_pooling_against_numpy(pooling):
  random = np.random.default_rng(1)
  hidden = random.normal(size=(2, 2, 6, 4)).astype(np.float32)
  segments = np.array([[[1, 1, 1, 2, 2, 0], [3, 3, 3, 3, 0, 0]]] * 2)
  positions = np.array([[[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 0, 0]]] * 2)
  special = (positions == 0) & (segments > 0)
  rows = {"segments": segments, "positions": positions, "framing": special}
  got = pool(jnp.asarray(hidden), members(rows, 4, pooling))
  assert got.shape == (2, 4, 4)
  for group in range(2):
    for item in (1, 2, 3):
      mine = segments[group] == item
      if pooling == "first":
        mine &= positions[group] == 0
      if pooling == "mean":
        mine &= ~special[group]
      np.testing.assert_allclose(
        got[group, item - 1], hidden[group][mine].mean(0), rtol=1e-5
      )
  assert not np.asarray(got)[:, 3].any()  # an item that is not there


def test_unit_has_length_one_and_zero_stays_zero():
  vectors = jnp.asarray([[3.0, 4.0], [0.0, 0.0], [0.0, -1e-3]])
  expected = [[0.6, 0.8], [0, 0], [0, -1]]
  np.testing.assert_allclose(unit(vectors), expected, rtol=1e-6)


def test_framing_is_of_special_tokens_alone():
  ids = Ids(bos=0, pad=1, eos=2, unk=3, mask=9, size=10)
  tokens = np.array([[0, 5, 9, 3, 2, 1]])
  expected = [[True, False, False, False, True, True]]
  np.testing.assert_array_equal(framing(tokens, ids), expected)
