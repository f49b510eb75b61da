"""Products, norm and gelu: values and gradients against float64 by numpy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infoxlm_jax.model import ops

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


def twin_gelu(x):
  return 0.5 * x * np.vectorize(math.erfc)(-x / np.sqrt(2))


def twin_norm(x, scale, bias):
  centred = x - x.mean(-1, keepdims=True)
  deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
  return centred / deviation * scale + bias


CASES = {
  "gelu": (ops.gelu, twin_gelu, (draw(5, 4) * 3,)),
  "layer norm": (
    functools.partial(ops.layer_norm, epsilon=EPSILON),
    twin_norm,
    (draw(5, 8) + 2, draw(8), draw(8)),
  ),
  "affine": (
    functools.partial(ops.affine, of=ops.same),
    lambda x, kernel, bias: x @ kernel + bias,
    (draw(5, 4), draw(4, 3), draw(3)),
  ),
  "affine of gelu": (
    functools.partial(ops.affine, of=ops.gelu),
    lambda x, kernel, bias: twin_gelu(x) @ kernel + bias,
    (draw(5, 4), draw(4, 3), draw(3)),
  ),
  "sum of rows": (
    lambda x: ops.sum_rows(x) + 0 * x[0],
    lambda x: x.sum(0),
    (draw(7, 3),),
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
    by_hand = numeric(twin, inputs, cotangent, at)
    scale = np.abs(by_hand).max()
    np.testing.assert_allclose(grad, by_hand, rtol=0, atol=5e-6 * scale)


def test_a_product_keeps_its_input_and_not_the_function_of_it():
  x, kernel = jnp.ones((64, 32)), jnp.ones((32, 16))
  _, pull = jax.vjp(
    functools.partial(ops.affine, of=ops.gelu), x, kernel, jnp.ones(16)
  )
  kept = sorted(leaf.shape for leaf in jax.tree.leaves(pull))
  assert kept == [(32, 16), (64, 32)]


def test_bfloat16_results_have_its_dtype_and_parameters_float32():
  x = jnp.asarray(draw(6, 8), jnp.bfloat16)
  scale, bias = jnp.ones(8), jnp.zeros(8)

  def norm(*args):
    return ops.layer_norm(*args, EPSILON)

  out, pull = jax.vjp(norm, x, scale, bias)
  by_x, by_scale, by_bias = pull(jnp.ones_like(out))
  assert out.dtype == by_x.dtype == jnp.bfloat16
  assert by_scale.dtype == by_bias.dtype == jnp.float32
  expected = twin_norm(np.asarray(x, np.float64), 1.0, 0.0)
  np.testing.assert_allclose(out, expected, atol=2e-2)
