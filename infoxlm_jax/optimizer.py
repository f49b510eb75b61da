"""Adam as fairseq and as torch have it, torch's clipping, and the EMA."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from infoxlm_jax.schedules import Schedule


def adamw(
  learning_rate: Schedule,
  *,
  beta1: float = 0.9,
  beta2: float = 0.98,
  eps: float = 1e-6,
  weight_decay: float = 0.01,
  clip_norm: float | None = 1.0,
  fairseq_eps: bool = False,
  no_decay: Sequence[str] = (),
) -> optax.GradientTransformation:
  """Clip, Adam, decoupled weight decay times the rate.

  Args:
    learning_rate: the rate of update n + 1 as a function of n.
    beta1, beta2, eps, weight_decay: as in the paper's runs by default.
    clip_norm: global gradient norm to clip to, None for no clipping.
    fairseq_eps: add eps to sqrt(v) before the bias correction, as fairseq
      does (its effective eps starts 7 x larger), instead of after.
    no_decay: regular expressions of parameter paths without weight decay.
      The released code decays every parameter, biases and norms too.
  """

  def decayed(params: Any) -> Any:
    def keep(path: Any, _: Any) -> bool:
      name = jax.tree_util.keystr(path, simple=True, separator="/")
      return not any(re.search(pattern, name) for pattern in no_decay)

    return jax.tree_util.tree_map_with_path(keep, params)

  parts = [] if clip_norm is None else [clip_as_torch(clip_norm)]
  if fairseq_eps:
    parts.append(scale_by_fairseq_adam(beta1, beta2, eps))
  else:
    parts.append(optax.scale_by_adam(beta1, beta2, eps))
  if weight_decay:
    parts.append(optax.add_decayed_weights(weight_decay, decayed))
  return optax.chain(*parts, optax.scale_by_learning_rate(learning_rate))


def clip_as_torch(max_norm: float) -> optax.GradientTransformation:
  """torch.nn.utils.clip_grad_norm_: times min(1, max / (norm + 1e-6))."""

  def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    del params
    scale = jnp.minimum(1.0, max_norm / (optax.global_norm(updates) + 1e-6))
    return jax.tree.map(lambda g: g * scale, updates), state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def scale_by_fairseq_adam(
  beta1: float, beta2: float, eps: float
) -> optax.GradientTransformation:
  """sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps), t from 1."""

  def init(params: Any) -> optax.ScaleByAdamState:
    def zeros() -> Any:
      return jax.tree.map(jnp.zeros_like, params)

    return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros(), zeros())

  def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    del params
    count = state.count + 1
    t = count.astype(jnp.float32)
    mu = jax.tree.map(
      lambda m, g: beta1 * m + (1 - beta1) * g, state.mu, updates
    )
    nu = jax.tree.map(
      lambda v, g: beta2 * v + (1 - beta2) * g * g, state.nu, updates
    )
    size = jnp.sqrt(1 - beta2**t) / (1 - beta1**t)
    updates = jax.tree.map(lambda m, v: size * m / (jnp.sqrt(v) + eps), mu, nu)
    return updates, optax.ScaleByAdamState(count, mu, nu)

  return optax.GradientTransformation(init, update)


def move_average(average: Any, new: Any, momentum: jax.Array) -> Any:
  """momentum * average + (1 - momentum) * new, in float32.

  In float16 or bfloat16 an average at .9999 never moves: a change of 1e-4 of
  a weight's distance is below its precision.
  """
  return jax.tree.map(
    lambda a, n: momentum * a + (1 - momentum) * n, average, new
  )
