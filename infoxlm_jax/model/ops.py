"""Products, norms and gelu of rows of vectors, with gradients by hand.

Automatic differentiation gives the same numbers to rounding, but keeps more
for the backward pass, and sums over rows in slow ways on CPUs.

Letters: R rows, D vector size, I and O vector sizes of a product. Norms and
gelu are computed in float32; results have the dtype of x.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Function = Callable[[jax.Array], jax.Array]


def _wide(x: jax.Array) -> jax.Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def sum_rows(x_RD: jax.Array) -> jax.Array:
  """Sum over the rows [D], float32."""

  def by_product(x_RD: jax.Array) -> jax.Array:
    return jnp.ones((1, x_RD.shape[0]), x_RD.dtype) @ x_RD

  def by_sum(x_RD: jax.Array) -> jax.Array:
    return jnp.sum(x_RD, axis=0, keepdims=True)

  x_RD = _wide(x_RD)
  # On CPUs XLA walks columns, up to fifty times slower than a product.
  total: jax.Array = jax.lax.platform_dependent(
    x_RD, cpu=by_product, default=by_sum
  )
  return total[0]


def same(x: jax.Array) -> jax.Array:
  """x."""
  return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def affine(
  x_RI: jax.Array, kernel_IO: jax.Array, bias_O: jax.Array, of: Function
) -> jax.Array:
  """of(x) . kernel + bias [R, O]; x is kept, `of` is computed again.

  `of` works on every number alone, and is cheap beside the product.
  """
  return of(x_RI) @ kernel_IO + bias_O.astype(x_RI.dtype)


def _affine_forward(
  x_RI: jax.Array, kernel_IO: jax.Array, bias_O: jax.Array, of: Function
) -> Any:
  return affine(x_RI, kernel_IO, bias_O, of), (x_RI, kernel_IO)


def _affine_backward(of: Function, kept: Any, grad_RO: jax.Array) -> Any:
  x_RI, kernel_IO = kept
  x_RI = _after(x_RI, grad_RO)
  value_RI, pull = jax.vjp(of, x_RI)
  # Contracted over rows as they are: neither side is transposed in memory.
  by_kernel_IO = jax.lax.dot_general(
    value_RI, grad_RO, (((0,), (0,)), ((), ()))
  )
  (by_x_RI,) = pull(grad_RO @ kernel_IO.T)
  return by_x_RI, by_kernel_IO, sum_rows(grad_RO)


def _after(x_RI: jax.Array, grad_RO: jax.Array) -> jax.Array:
  """x, for what is not to be computed before `grad` is there.

  Whatever depends on x alone would be computed in the forward pass and kept.
  XLA's CPU compiler drops barriers before it orders operations; an operation
  that is nothing but this dependence it keeps, for 0 times nan is nan.
  """

  def add_nothing(x_RI: jax.Array, grad_RO: jax.Array) -> jax.Array:
    return x_RI + 0 * grad_RO[:1, :1]

  def bar(x_RI: jax.Array, grad_RO: jax.Array) -> jax.Array:
    return jax.lax.optimization_barrier((x_RI, grad_RO))[0]

  after_RI: jax.Array = jax.lax.platform_dependent(
    x_RI, grad_RO, cpu=add_nothing, default=bar
  )
  return after_RI


affine.defvjp(_affine_forward, _affine_backward)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
  """x times the normal distribution's Phi(x), by erf: as fairseq computes it.

  jax.nn.gelu's erfc costs twice the time on a CPU and is the same to rounding.
  """
  y = _wide(x)
  return (y * _phi(y)).astype(x.dtype)


def _phi(y: jax.Array) -> jax.Array:
  return 0.5 + 0.5 * jax.lax.erf(y * 0.5**0.5)


def _gelu_forward(x: jax.Array) -> Any:
  return gelu(x), x


def _gelu_backward(x: jax.Array, grad: jax.Array) -> Any:
  y = _wide(x)
  density = jnp.exp(-0.5 * y * y) * (2 * jnp.pi) ** -0.5
  return (((_phi(y) + y * density) * grad).astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


@jax.custom_vjp
def layer_norm(
  x_RD: jax.Array, scale_D: jax.Array, bias_D: jax.Array, epsilon: float
) -> jax.Array:
  """Rows less their mean, over their deviation, times scale, plus bias."""
  return _layer_norm_forward(x_RD, scale_D, bias_D, epsilon)[0]


def _layer_norm_forward(
  x_RD: jax.Array, scale_D: jax.Array, bias_D: jax.Array, epsilon: float
) -> Any:
  y_RD = _wide(x_RD)
  mean_R = jnp.mean(y_RD, axis=-1, keepdims=True)
  square_R = jnp.mean(y_RD * y_RD, axis=-1, keepdims=True)
  variance_R = jnp.maximum(square_R - mean_R * mean_R, 0)
  factor_R = jax.lax.rsqrt(variance_R + epsilon)
  out_RD = (y_RD - mean_R) * (factor_R * scale_D) + bias_D
  return out_RD.astype(x_RD.dtype), (x_RD, mean_R, factor_R, scale_D)


def _layer_norm_backward(kept: Any, grad_RD: jax.Array) -> Any:
  x_RD, mean_R, factor_R, scale_D = kept
  grad_RD = _wide(grad_RD)
  normed_RD = (_wide(x_RD) - mean_R) * factor_R
  inner_RD = grad_RD * scale_D
  # What moves the mean, or the length, has no effect.
  along_mean_R = jnp.mean(inner_RD, axis=-1, keepdims=True)
  along_R = jnp.mean(inner_RD * normed_RD, axis=-1, keepdims=True)
  x_grad_RD = factor_R * (inner_RD - along_mean_R - normed_RD * along_R)
  return (
    x_grad_RD.astype(x_RD.dtype),
    sum_rows(grad_RD * normed_RD),
    sum_rows(grad_RD),
    None,
  )


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)
