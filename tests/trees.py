"""Comparisons of pytrees, such as parameters and their gradients."""

from typing import Any

import jax
import numpy as np


def assert_close(got: Any, expected: Any, rtol: float, atol: float) -> None:
  """Trees of one structure, which have leaves, leaf by leaf."""
  assert jax.tree.leaves(expected)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
    got,
    expected,
  )
