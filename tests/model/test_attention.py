"""Every way to attend is the same, under packing and padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.model import attention

ROWS, LENGTH, HEADS, SIZE = 2, 128, 2, 64


def _inputs():
  random = np.random.default_rng(0)
  shape = (ROWS, LENGTH, HEADS, SIZE)
  q, k, v = (random.normal(size=shape).astype("f4") for _ in range(3))
  segments = np.zeros((ROWS, LENGTH), np.int32)
  segments[0, :50], segments[0, 50:120] = 1, 2  # then padding
  segments[1, :] = 7
  return q, k, v, segments


def _numpy(q, k, v, segments):
  out = np.zeros(v.shape)
  for row in range(ROWS):
    for head in range(HEADS):
      logits = q[row, :, head] @ k[row, :, head].T / np.sqrt(SIZE)
      logits[segments[row][:, None] != segments[row][None]] = -np.inf
      weights = np.exp(logits - logits.max(1, keepdims=True))
      weights /= weights.sum(1, keepdims=True)
      out[row, :, head] = weights @ v[row, :, head]
  return out


def test_the_reference_is_softmax_within_an_item():
  q, k, v, segments = _inputs()
  mixed = attention.attend(q, k, v, segments, segments)
  np.testing.assert_allclose(mixed, _numpy(q, k, v, segments), atol=2e-6)
  some = np.array([[3, 60], [0, 127]])
  picked = attention.attend(
    np.take_along_axis(q, some[:, :, None, None], 1),
    k,
    v,
    np.take_along_axis(segments, some, 1),
    segments,
  )
  np.testing.assert_allclose(
    picked, np.take_along_axis(mixed, some[:, :, None, None], 1), atol=2e-6
  )


def test_dropout_of_the_weights():
  """Weights at 0 but the first token's, at one: its value for all queries."""
  q, k, v, segments = _inputs()
  one = np.zeros(LENGTH, np.float32)
  one[0] = 1.0
  mixed = attention.attend(
    q,
    k,
    v,
    segments,
    segments,
    dropout=lambda w: jnp.broadcast_to(one, w.shape),
  )
  np.testing.assert_array_equal(mixed, np.broadcast_to(v[:, :1], v.shape))


def test_its_gradient_is_the_automatic_one():
  """Dropout of nothing takes the path that is differentiated automatically."""
  q, k, v, segments = _inputs()
  some = np.array([[3, 60], [0, 127]])
  few = np.take_along_axis(q, some[:, :, None, None], 1)
  few_segments = np.take_along_axis(segments, some, 1)
  for asking, mine in ((q, segments), (few, few_segments)):

    def automatic(q, k, v, mine=mine):
      return attention.attend(q, k, v, mine, segments, dropout=lambda w: w)

    def by_hand(q, k, v, mine=mine):
      return attention.attend(q, k, v, mine, segments)

    wanted, pull = jax.vjp(automatic, asking, k, v)
    grad = np.random.default_rng(1).normal(size=wanted.shape).astype("f4")
    mixed, own_pull = jax.vjp(by_hand, asking, k, v)
    np.testing.assert_allclose(mixed, wanted, atol=2e-6)
    for a, b in zip(own_pull(grad), pull(grad), strict=True):
      np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(b).max())


def test_the_kernel_for_tpus_and_its_gradient():
  """Interpreted here; a run compares on its own device before it starts."""
  q, k, v, segments = _inputs()
  real = (segments > 0)[..., None, None]

  def total(attend):
    def value(q, k, v):
      out = attend(q, k, v)
      return jnp.sum(jnp.where(real, out, 0) ** 2), out

    both = jax.value_and_grad(value, argnums=(0, 1, 2), has_aux=True)
    (_, out), grads = both(q, k, v)
    return jnp.where(real, out, 0), grads

  mine, my_grads = total(
    lambda q, k, v: attention.splash(
      q, k, v, segments, segments, interpret=True
    )
  )
  theirs, their_grads = total(
    lambda q, k, v: attention.attend(q, k, v, segments, segments)
  )
  np.testing.assert_allclose(mine, theirs, atol=1e-5)
  for a, b in zip(my_grads, their_grads, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_run_is_told_before_it_starts():
  attention.check("xla", HEADS, SIZE, LENGTH, "float32")
  with pytest.raises(InputError, match="'cudnn' does not run on cpu"):
    attention.check("cudnn", HEADS, SIZE, LENGTH, "bfloat16")


def test_a_kernel_that_ignores_the_mask_is_refused(monkeypatch):
  def all_see_all(q, k, v, *segments):
    ones = jnp.ones(q.shape[:2], jnp.int32)
    return attention.attend(q, k, v, ones, ones)

  monkeypatch.setattr(attention, "splash", all_see_all)
  with pytest.raises(InputError, match="values differ"):
    attention.check("splash", HEADS, SIZE, LENGTH, "float32")
  monkeypatch.setattr(attention, "splash", attention.attend)
  attention.check("splash", HEADS, SIZE, LENGTH, "float32")


def test_another_kind_is_named():
  q, k, v, segments = _inputs()
  with pytest.raises(InputError, match="attention = 'flash'"):
    attention.attend(q, k, v, segments, segments, "flash")
