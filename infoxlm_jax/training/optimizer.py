"""AdamW as fairseq and as torch compute it, and optimisers that can skip.

`update(..., accept=False)` skips an update whose loss or gradient is not
finite: the changes are zeros, and the state stays as it was, bit for bit.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from infoxlm_jax.training.schedules import Schedule


class Skipping(optax.GradientTransformationExtraArgs):
  """A transformation whose `update` takes `accept`, see the module."""


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
) -> Skipping:
  """Clipping, Adam, and decoupled weight decay times the learning rate.

  The state is Adam's alone: the learning rate follows Adam's count.

  Args:
    learning_rate: the rate of update n + 1 as a function of n.
    beta1, beta2, eps, weight_decay: as in the paper's runs by default.
    clip_norm: global gradient norm to clip to, None for no clipping.
    fairseq_eps: see scale_by_adam.
    no_decay: regular expressions of parameter paths without weight decay.
      The released code decays every parameter, biases and norms too.
  """

  def decays(params: Any) -> Any:
    def one(path: Any, _: Any) -> bool:
      name = jax.tree_util.keystr(path, simple=True, separator="/")
      return not any(re.search(pattern, name) for pattern in no_decay)

    return jax.tree_util.tree_map_with_path(one, params)

  adam = scale_by_adam(beta1, beta2, eps, fairseq_eps=fairseq_eps)
  chain = optax.chain(
    optax.identity() if clip_norm is None else clip_by_global_norm(clip_norm),
    adam,
    optax.add_decayed_weights(weight_decay, decays),
    optax.scale_by_learning_rate(learning_rate),
  )

  def update(
    grads: Any,
    state: optax.ScaleByAdamState,
    params: Any,
    *,
    accept: jax.Array | bool = True,
  ) -> tuple[Any, optax.ScaleByAdamState]:
    states = (
      optax.EmptyState(),
      state,
      optax.MaskedState(optax.EmptyState()),
      optax.ScaleByScheduleState(state.count),
    )
    changes, new = chain.update(grads, states, params, accept=accept)
    changes = jax.tree.map(lambda u: jnp.where(accept, u, 0.0), changes)
    return changes, new[1]

  return Skipping(adam.init, update)


def scale_by_adam(
  beta1: float, beta2: float, eps: float, *, fairseq_eps: bool = False
) -> Skipping:
  """Adam's direction: optax.scale_by_adam, with fairseq's epsilon and `accept`.

  `accept` chooses inside the loop that writes the moments. A wrapper around
  optax.scale_by_adam would have to keep old and new moments: on a CPU
  optax.conditionally_mask takes 4 bytes a parameter more, and three times as
  long.

  Args:
    beta1, beta2, eps: as in optax.
    fairseq_eps: add eps to sqrt(v) before the bias correction, as fairseq
      does (its effective eps starts 7 x larger), instead of after.
  """

  def update(
    grads: Any,
    state: optax.ScaleByAdamState,
    params: Any = None,
    *,
    accept: jax.Array | bool = True,
  ) -> tuple[Any, optax.ScaleByAdamState]:
    del params
    accept = jnp.asarray(accept)

    def moment(old: Any, beta: float, power: int) -> Any:
      return jax.tree.map(
        lambda m, g: jnp.where(accept, beta * m + (1 - beta) * g**power, m),
        old,
        grads,
      )

    mu, nu = moment(state.mu, beta1, 1), moment(state.nu, beta2, 2)
    count = state.count + accept.astype(jnp.int32)
    t = jnp.maximum(count, 1).astype(jnp.float32)
    correct1, correct2 = 1 - beta1**t, 1 - beta2**t

    def direction(m: jax.Array, v: jax.Array) -> jax.Array:
      if fairseq_eps:
        return jnp.sqrt(correct2) / correct1 * m / (jnp.sqrt(v) + eps)
      return m / correct1 / (jnp.sqrt(v / correct2) + eps)

    directions = jax.tree.map(direction, mu, nu)
    return directions, optax.ScaleByAdamState(count, mu, nu)

  return Skipping(optax.scale_by_adam().init, update)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
  """torch.nn.utils.clip_grad_norm_: times min(1, max_norm / (norm + 1e-6)).

  optax.clip_by_global_norm has no 1e-6.
  """

  def clip(grads: Any, _: Any) -> Any:
    factor = jnp.minimum(1.0, max_norm / (optax.global_norm(grads) + 1e-6))
    return optax.tree.scale(factor, grads)

  return optax.stateless(clip)


def skipping(transformation: optax.GradientTransformation) -> Skipping:
  """Any transformation of optax as one that takes `accept`.

  Its state stays its own: optax.conditionally_mask would add a counter.
  """
  if isinstance(transformation, Skipping):
    return transformation
  masked = optax.conditionally_mask(
    transformation, lambda _, accept: accept, forward_extra_args=True
  )

  def update(
    grads: Any, state: Any, params: Any, *, accept: jax.Array | bool = True
  ) -> tuple[Any, Any]:
    counted = optax.ConditionallyMaskState(jnp.zeros((), jnp.int32), state)
    changes, new = masked.update(grads, counted, params, accept=accept)
    return changes, new.inner_state

  return Skipping(transformation.init, update)


def updates_applied(opt_state: Any, otherwise: jax.Array) -> jax.Array:
  """The optimizer's own count of updates, by which its schedule goes.

  Args:
    opt_state: its state, which skipped updates leave alone.
    otherwise: for an optimizer that keeps no count.
  """
  counts = optax.tree_utils.tree_get_all_with_path(opt_state, "count")
  return counts[0][1] if counts else otherwise
