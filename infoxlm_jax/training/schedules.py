"""Numbers that change with the update: learning rate and key momentum.

Each maker returns a function of an int32 step that works inside jit.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Schedule = Callable[[jax.Array | int], jax.Array]


def linear_warmup_decay(
  peak: float, warmup_steps: int, total_steps: int
) -> Schedule:
  """fairseq's polynomial decay of power 1.

  `schedule(n)` is the rate of update n + 1: the first update has rate 0 where
  there is a warm-up, the peak comes after `warmup_steps`, 0 from `total_steps`.
  """

  def schedule(step: jax.Array | int) -> jax.Array:
    step = jnp.asarray(step, jnp.float32)
    up = step / max(warmup_steps, 1)
    down = (total_steps - step) / max(total_steps - warmup_steps, 1)
    factor = jnp.where(step < warmup_steps, up, jnp.maximum(down, 0.0))
    return peak * factor

  return schedule


def cosine_decay(
  peak: float, warmup_steps: int, total_steps: int, floor: float = 0.0
) -> Schedule:
  """Linear warm-up, then half a cosine from `peak` to `floor`."""

  def schedule(step: jax.Array | int) -> jax.Array:
    step = jnp.asarray(step, jnp.float32)
    up = step / max(warmup_steps, 1)
    done = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    wave = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0.0, 1.0)))
    return jnp.where(
      step < warmup_steps, peak * up, floor + (peak - floor) * wave
    )

  return schedule


# The released code's four forms of --xlco_momentum. `schedule(n)` is the
# momentum after update n; 0 copies the encoder, 1 freezes the keys.


def constant(value: float) -> Schedule:
  """`value` always."""
  return lambda step: jnp.asarray(value, jnp.float32)


def constant_with_refresh(value: float, every: int) -> Schedule:
  """`value`, and 0 (a fresh copy) at every multiple of `every` updates."""
  return lambda step: jnp.where(jnp.asarray(step) % every == 0, 0.0, value)


def linear(
  first_step: int, last_step: int, first: float, last: float
) -> Schedule:
  """From `first` at `first_step` in a straight line to `last`, then flat."""

  def schedule(step: jax.Array | int) -> jax.Array:
    done = (jnp.asarray(step, jnp.float32) - first_step) / (
      last_step - first_step
    )
    return first + (last - first) * jnp.clip(done, 0.0, 1.0)

  return schedule


def exponential(power: float, lowest: float, highest: float) -> Schedule:
  """1 - step^-power, kept within [lowest, highest]; `lowest` at step 0."""

  def schedule(step: jax.Array | int) -> jax.Array:
    step = jnp.maximum(jnp.asarray(step, jnp.float32), 1.0)
    return jnp.clip(1 - step**-power, lowest, highest)

  return schedule
