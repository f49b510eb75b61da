"""Checksums of arrays that are the same on any mesh.

A fingerprint is a sum modulo 2^32 of the array's bits times an odd number
that depends on the position, so it is the same on any mesh and any number of
processes, is computed where the array lives, and every single flipped bit
changes it.
"""

from typing import Any

import jax
import jax.numpy as jnp

from infoxlm_jax.partitioning import path_of


def describe(tree: Any) -> dict[str, dict[str, Any]]:
  """Shape, dtype and fingerprint of every array, by path."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  sums = jax.device_get(_fingerprints([leaf for _, leaf in leaves]))
  return {
    path_of(path): {
      "shape": list(leaf.shape),
      "dtype": str(leaf.dtype),
      "sum": [int(x) for x in found],
    }
    for (path, leaf), found in zip(leaves, sums, strict=True)
  }


@jax.jit
def _fingerprints(leaves: list[jax.Array]) -> list[jax.Array]:
  return [fingerprint(leaf) for leaf in leaves]


def fingerprint(x: jax.Array) -> jax.Array:
  """Two sums [2] uint32 of bits times odd numbers made of the position."""
  unsigned = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
  bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
  position = jnp.zeros((), jnp.uint32)
  for dim, size in enumerate(x.shape):
    # Not a reshape to one dimension, which would move sharded arrays.
    index = jax.lax.broadcasted_iota(jnp.uint32, x.shape, dim)
    position = position * jnp.uint32(size) + index
  factors = (jnp.uint32(0x9E3779B1), jnp.uint32(0x85EBCA77))
  return jnp.stack(
    [
      jnp.sum(bits * ((position * f) | jnp.uint32(1)), dtype=jnp.uint32)
      for f in factors
    ]
  )
