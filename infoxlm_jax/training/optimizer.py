"""Adam as fairseq and as torch have it, torch's clipping, and the EMA.

An update that must not count (its loss is not finite) is a question to the
optimiser: `update(..., accept=False)` gives changes of zero and the state as
it was. Adam answers by its coefficients, in the same pass over memory.
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
  """Clip, Adam, decoupled weight decay times the rate.

  optax's parts chained give the same; here moments are written once and the
  change is computed from what was written, two thirds of the memory traffic
  on a CPU.

  Args:
    learning_rate: the rate of update n + 1 as a function of n.
    beta1, beta2, eps, weight_decay: as in the paper's runs by default.
    clip_norm: global gradient norm to clip to, None for no clipping.
    fairseq_eps: add eps to sqrt(v) before the bias correction, as fairseq
      does (its effective eps starts 7 x larger), instead of after.
    no_decay: regular expressions of parameter paths without weight decay.
      The released code decays every parameter, biases and norms too.
  """

  def init(params: Any) -> optax.ScaleByAdamState:
    def zeros() -> Any:
      return jax.tree.map(jnp.zeros_like, params)

    return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros(), zeros())

  def update(
    grads: Any, state: Any, params: Any, *, accept: jax.Array | bool = True
  ) -> tuple[Any, Any]:
    accept = jnp.asarray(accept)
    scale = 1.0 if clip_norm is None else clip_factor(grads, clip_norm)

    def moment(old: Any, beta: float, power: int) -> Any:
      keep = jnp.where(accept, beta, 1.0)
      take = jnp.where(accept, 1 - beta, 0.0)

      def one(m: jax.Array, g: jax.Array) -> jax.Array:
        # A bad gradient may be nan, which no coefficient would hide.
        return keep * m + take * jnp.where(accept, g * scale, 0.0) ** power

      return jax.tree.map(one, old, grads)

    mu, nu = _written((moment(state.mu, beta1, 1), moment(state.nu, beta2, 2)))
    count = state.count + accept.astype(jnp.int32)
    t = jnp.maximum(count, 1).astype(jnp.float32)
    correct1, correct2 = 1 - beta1**t, 1 - beta2**t
    rate = jnp.where(accept, learning_rate(state.count), 0.0)

    def change(path: Any, p: jax.Array, m: jax.Array, v: jax.Array) -> Any:
      if fairseq_eps:
        step = jnp.sqrt(correct2) / correct1 * m / (jnp.sqrt(v) + eps)
      else:
        step = m / correct1 / (jnp.sqrt(v / correct2) + eps)
      name = jax.tree_util.keystr(path, simple=True, separator="/")
      decays = not any(re.search(pattern, name) for pattern in no_decay)
      return -rate * (step + weight_decay * p if decays else step)

    changes = jax.tree_util.tree_map_with_path(change, params, mu, nu)
    return changes, optax.ScaleByAdamState(count, mu, nu)

  return Skipping(init, update)


def skipping(transformation: optax.GradientTransformation) -> Skipping:
  """Any transformation of optax as one that takes `accept`."""
  if isinstance(transformation, Skipping):
    return transformation
  inner = optax.with_extra_args_support(transformation)

  def update(
    grads: Any, state: Any, params: Any, *, accept: jax.Array | bool = True
  ) -> tuple[Any, Any]:
    changes, new = inner.update(grads, state, params)

    def if_accepted(yes: Any, no: Any) -> Any:
      return jax.tree.map(lambda y, n: jnp.where(accept, y, n), yes, no)

    zeros = jax.tree.map(jnp.zeros_like, changes)
    return if_accepted(changes, zeros), if_accepted(new, state)

  return Skipping(inner.init, update)


def updates_applied(opt_state: Any, otherwise: jax.Array) -> jax.Array:
  """The optimizer's own count of updates, by which its schedule goes.

  Args:
    opt_state: its state, which skipped updates leave alone.
    otherwise: for an optimizer that keeps no count.
  """
  counts = optax.tree_utils.tree_get_all_with_path(opt_state, "count")
  return counts[0][1] if counts else otherwise


def clip_factor(grads: Any, max_norm: float) -> jax.Array:
  """torch.nn.utils.clip_grad_norm_: min(1, max / (norm + 1e-6))."""
  return jnp.minimum(1.0, max_norm / (optax.global_norm(grads) + 1e-6))


def _written(tree: Any) -> Any:
  """The tree, in memory before anything reads it: on CPUs only.

  XLA would compute it again in every loop that reads it, from copies of what
  it replaces. Compilers of other devices join these loops into one.
  """
  return jax.lax.platform_dependent(
    tree, cpu=jax.lax.optimization_barrier, default=lambda tree: tree
  )


def move_average(average: Any, new: Any, momentum: jax.Array) -> Any:
  """momentum * average + (1 - momentum) * new, in float32.

  In float16 or bfloat16 an average at .9999 never moves: a change of 1e-4 of
  a weight's distance is below its precision.
  """
  return jax.tree.map(
    lambda a, n: momentum * a + (1 - momentum) * n, average, new
  )
