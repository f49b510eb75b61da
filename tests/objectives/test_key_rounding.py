"""Key parameters in float16, as the released recipe keeps them."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.objectives.contrast import Contrast
from infoxlm_jax.objectives.identity import identity

_OPTIONS = {"layer": 1, "projection": False, "queue_size": 4}


def _averaged(accept, updates=3, **options):
  """Key parameters after averages towards the query's, and what they met."""
  config, params = oracle.train_init()
  contrast = Contrast(**_OPTIONS, momentum=0.9999, **options)
  params = jax.tree.map(jnp.asarray, params)
  state = contrast.init_state(params, 4, 1)
  start = jax.device_get(state.key_params)
  query = jax.tree.map(lambda x: x + 0.01, params)
  keys = jnp.ones((1, 4, config.hidden_size))
  for number in range(1, 1 + updates):
    state, _ = contrast.update_state(
      state, keys, query, jnp.asarray(number), jnp.asarray(accept)
    )
  return start, jax.device_get(state.key_params)


def _twin(start, updates=3):
  x = np.asarray(start, np.float32)
  target = x + np.float32(0.01)
  for _ in range(updates):
    x = np.float32(1e-4) * target + np.float32(0.9999) * x
    x = x.astype(np.float16).astype(np.float32)
  return x


def test_every_average_is_rounded():
  start, found = _averaged(True, key_rounding="float16")
  for before, after in zip(
    jax.tree.leaves(start), jax.tree.leaves(found), strict=True
  ):
    np.testing.assert_array_equal(after, after.astype(np.float16))
    # Float32's rounding may tip a tie of float16's, here and there.
    twin = _twin(before)
    step = np.spacing(np.abs(twin).astype(np.float16)).astype(np.float32)
    assert np.all(np.abs(after - twin) <= step)
    assert np.mean(after == twin) > 0.99


def test_at_this_momentum_most_never_move():
  """1e-6 of a distance is below float16's spacing from .002 on."""
  start, rounded = _averaged(True, key_rounding="float16")
  _, exact = _averaged(True)
  first = start["layers"]["ffn_in"]["kernel"]
  half = first.astype(np.float16).astype(np.float32)
  assert np.mean(rounded["layers"]["ffn_in"]["kernel"] == half) > 0.9
  assert np.mean(exact["layers"]["ffn_in"]["kernel"] == first) < 0.1


def test_a_skipped_update_rounds_nothing():
  start, found = _averaged(False, key_rounding="float16")
  jax.tree.map(np.testing.assert_array_equal, found, start)


def test_it_is_part_of_the_identity_where_it_is_chosen():
  assert "key_rounding" not in identity(Contrast())
  assert "key_rounding='float16'" in identity(Contrast(key_rounding="float16"))
  with pytest.raises(InputError, match="key_rounding"):
    Contrast(**_OPTIONS, key_rounding="bfloat16").check(
      "xlco", oracle.train_init()[0]
    )
