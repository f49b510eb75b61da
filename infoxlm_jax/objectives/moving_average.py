"""The moving average that a momentum encoder is."""

from typing import Any

import jax
import optax


def move_average(average: Any, new: Any, momentum: jax.Array) -> Any:
  """momentum * average + (1 - momentum) * new, in float32.

  In float16 or bfloat16 an average at .9999 never moves: a change of 1e-4 of
  a weight's distance is below its precision.
  """
  # The roles exchanged, since incremental_update takes 1 - momentum: rounded
  # there, momentum itself is exact here.
  return optax.incremental_update(average, new, momentum)
