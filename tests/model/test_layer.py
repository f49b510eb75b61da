"""Parts of a layer: values and gradients against float64 by numpy."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infoxlm_jax.model import layers

RNG = np.random.default_rng(0)
EPSILON = 1e-5


def draw(*shape: int) -> np.ndarray:
  return RNG.normal(size=shape)


def numeric(function, inputs, cotangent, at):
  """Central differences of sum(cotangent * function) by one input, float64."""
  grad = np.zeros_like(inputs[at])
  for place in np.ndindex(grad.shape):
    ends = []
    for step in (1e-5, -1e-5):
      moved = [x.copy() for x in inputs]
      moved[at][place] += step
      ends.append(np.sum(cotangent * function(*moved)))
    grad[place] = (ends[0] - ends[1]) / 2e-5
  return grad


def norm(x, scale, bias):
  layer = nn.LayerNorm(EPSILON, x.dtype)
  return layer.apply({"params": {"scale": scale, "bias": bias}}, x)


def affine(x, kernel, bias):
  return layers.affine(x, kernel, bias, x.dtype)


def twin_gelu(x):
  return 0.5 * x * np.vectorize(math.erfc)(-x / np.sqrt(2))


def twin_norm(x, scale, bias):
  centred = x - x.mean(-1, keepdims=True)
  deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
  return centred / deviation * scale + bias


CASES = {
  "gelu": (layers.gelu, twin_gelu, (draw(5, 4) * 3,)),
  "layer norm": (norm, twin_norm, (draw(5, 8) + 2, draw(8), draw(8))),
  "affine": (
    affine,
    lambda x, kernel, bias: x @ kernel + bias,
    (draw(2, 3, 4), draw(4, 3), draw(3)),
  ),
  "affine, several axes in": (
    affine,
    lambda x, kernel, bias: np.einsum("btnh,nhd->btd", x, kernel) + bias,
    (draw(2, 3, 2, 2), draw(2, 2, 3), draw(3)),
  ),
  "affine, several axes out": (
    affine,
    lambda x, kernel, bias: np.einsum("btd,dnh->btnh", x, kernel) + bias,
    (draw(2, 3, 4), draw(4, 2, 3), draw(2, 3)),
  ),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case):
  function, twin, inputs = CASES[case]
  low = [jnp.asarray(x, jnp.float32) for x in inputs]
  expected = twin(*inputs)
  cotangent = draw(*expected.shape)

  @jax.jit
  def both(*low):
    out, pull = jax.vjp(function, *low)
    return out, pull(jnp.asarray(cotangent, jnp.float32))

  out, grads = both(*low)
  np.testing.assert_allclose(out, expected, rtol=2e-6, atol=2e-6)
  for at, grad in enumerate(grads):
    slope = numeric(twin, inputs, cotangent, at)
    scale = np.abs(slope).max()
    np.testing.assert_allclose(grad, slope, rtol=0, atol=5e-6 * scale)


def test_bfloat16_inside_is_float32():
  """Norm and gelu of bfloat16 are rounded once, at the end."""
  x = jnp.asarray(draw(6, 8), jnp.bfloat16)
  ones, zeros = jnp.ones(8), jnp.zeros(8)
  exact = np.asarray(x, np.float64)
  for result, expected in (
    (norm(x, ones, zeros), twin_norm(exact, 1.0, 0.0)),
    (layers.gelu(x), twin_gelu(exact)),
  ):
    assert result.dtype == jnp.bfloat16
    # Half of the last of 8 bits; two roundings would be more somewhere.
    np.testing.assert_allclose(
      np.asarray(result, np.float64), expected, rtol=2**-8, atol=1e-6
    )


def test_gradients_of_biases_are_summed_in_float32():
  """A sum of bfloat16 over the rows of a batch would lose most of them."""
  x, kernel = jnp.ones((64, 4), jnp.bfloat16), jnp.ones((4, 2))

  def gradient(bias):
    out, pull = jax.vjp(lambda b: affine(x, kernel, b), bias)
    assert out.dtype == jnp.bfloat16
    return pull(out)

  # On CPUs XLA sums in float32 whatever the program says: so its text.
  program = str(jax.make_jaxpr(gradient)(jnp.zeros(2)))
  sums = [line for line in program.splitlines() if "reduce_sum" in line]
  assert sums
  assert all(":f32[" in line.partition("=")[0] for line in sums), sums
