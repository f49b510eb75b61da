"""Numbers that change with the update: learning rate and key momentum.

Each maker returns a function of an int32 step that works inside jit.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from infoxlm_jax.errors import InputError

# optax.Schedule, with types.
Schedule = Callable[[jax.Array | int], jax.Array | float]


def linear_warmup_decay(
  peak: float, warmup_steps: int, total_steps: int
) -> Schedule:
  """fairseq's polynomial decay of power 1.

  `schedule(n)` is the rate of update n + 1: the first update has rate 0 where
  there is a warm-up, the peak comes after `warmup_steps`, 0 from `total_steps`.

  Not optax.linear_schedule twice: that computes end + (start - end) * (1 - x),
  which rounds small rates away. With 10,000 steps of warm-up in 200,000 its
  first rate is .02 % off and its last .6 %; these are exact to 2e-7.

  Raises:
    InputError: the peak or the warm-up is negative.
  """
  if not peak >= 0:
    raise InputError(
      f"schedules.linear_warmup_decay: peak={peak} is no learning rate: it must"
      " be 0 or more (PEAK_RATE)."
    )
  if warmup_steps < 0:
    raise InputError(
      f"schedules.linear_warmup_decay: warmup_steps={warmup_steps} must not be"
      " negative; 0 is no warm-up (WARMUP_STEPS)."
    )

  def schedule(step: jax.Array | int) -> jax.Array:
    step = jnp.asarray(step, jnp.float32)
    up = step / max(warmup_steps, 1)
    down = (total_steps - step) / max(total_steps - warmup_steps, 1)
    factor = jnp.where(step < warmup_steps, up, jnp.maximum(down, 0.0))
    return peak * factor

  return schedule


def inverse_sqrt(peak: float, warmup_steps: int) -> Schedule:
  """Linear warm-up, then peak (warmup_steps / n)^(1/2) (Vaswani et al. 2017).

  `schedule(n)` is the rate of update n + 1: 0 in the first, the peak after
  `warmup_steps`. It has no end.

  Raises:
    InputError: there is no warm-up, from which the decay is counted.
  """
  if warmup_steps < 1:
    raise InputError(
      f"schedules.inverse_sqrt: warmup_steps={warmup_steps} must be at least 1:"
      " the rate falls with the square root of n / warmup_steps."
    )

  def schedule(step: jax.Array | int) -> jax.Array:
    part = jnp.asarray(step, jnp.float32) / warmup_steps
    return peak * jnp.minimum(part, jax.lax.rsqrt(jnp.maximum(part, 1.0)))

  return schedule


def cosine_decay(
  peak: float, warmup_steps: int, total_steps: int, floor: float = 0.0
) -> Schedule:
  """Linear warm-up, then half a cosine from `peak` to `floor`.

  Raises:
    InputError: no step is left after the warm-up.
  """
  if total_steps <= warmup_steps:
    raise InputError(
      f"schedules.cosine_decay: total_steps={total_steps} leaves nothing after"
      f" warmup_steps={warmup_steps}. Give more steps, or a shorter warm-up."
    )
  return optax.warmup_cosine_decay_schedule(
    0.0, peak, warmup_steps, total_steps, floor
  )


# The released code's four forms of --xlco_momentum. `schedule(n)` is the
# momentum after update n; 0 copies the encoder, 1 freezes the keys.


def constant(value: float) -> Schedule:
  """`value` always."""
  return optax.constant_schedule(value)


def constant_with_refresh(value: float, every: int) -> Schedule:
  """`value`, and 0 (a fresh copy) at every multiple of `every` updates."""
  return lambda step: jnp.where(jnp.asarray(step) % every == 0, 0.0, value)


def linear(
  first_step: int, last_step: int, first: float, last: float
) -> Schedule:
  """From `first` at `first_step` in a straight line to `last`, then flat.

  `first` always where the two steps are the same, as in the released code.

  Raises:
    InputError: the last step comes before the first.
  """
  if last_step < first_step:
    raise InputError(
      f"schedules.linear: last_step={last_step} comes before"
      f" first_step={first_step}. Give them in order."
    )
  return optax.linear_schedule(
    first, last, last_step - first_step, transition_begin=first_step
  )


def exponential(power: float, lowest: float, highest: float) -> Schedule:
  """1 - step^-power, kept within [lowest, highest]; `lowest` at step 0."""

  def schedule(step: jax.Array | int) -> jax.Array:
    step = jnp.maximum(jnp.asarray(step, jnp.float32), 1.0)
    return jnp.clip(1 - step**-power, lowest, highest)

  return schedule
