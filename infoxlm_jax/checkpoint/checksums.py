"""Checksums of arrays that are the same on any mesh.

A checksum adds up, modulo 2^32, the bits of every element times an odd number
that depends on the element's position. It is the same on any mesh and any
number of processes, it is computed on the devices that hold the array, and
every single flipped bit changes it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infoxlm_jax.model.partitioning import path_of

_FACTORS = (0x9E3779B1, 0x85EBCA77)
_PIECE = 1 << 18  # numbers, on the host: stays in the processor's cache


def describe(tree: Any) -> dict[str, dict[str, Any]]:
  """Shape, dtype and checksum of every array of a tree.

  Numpy arrays are summed on the host, in pieces: the compiled form needs twice
  their size in addition, which large arrays do not leave.

  Args:
    tree: of jax or numpy arrays.

  Returns:
    {"shape": list of int, "dtype": name, "sum": two ints below 2^32} by the
    array's path, such as "params/embed/token".
  """
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  on_host = all(isinstance(leaf, np.ndarray) for _, leaf in leaves)
  if on_host:
    sums = [_on_host(leaf) for _, leaf in leaves]
  else:
    sums = jax.device_get(_fingerprints([leaf for _, leaf in leaves]))
  return {
    path_of(path): {
      "shape": list(leaf.shape),
      "dtype": str(leaf.dtype),
      "sum": [int(x) for x in pair],
    }
    for (path, leaf), pair in zip(leaves, sums, strict=True)
  }


@jax.jit
def _fingerprints(leaves: list[jax.Array]) -> list[jax.Array]:
  return [fingerprint(leaf) for leaf in leaves]


def not_finite(tree: Any) -> list[str]:
  """Paths of the arrays that hold a NaN or an infinity."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  finite = jax.device_get(_all_finite([leaf for _, leaf in leaves]))
  return [
    path_of(path)
    for (path, _), is_finite in zip(leaves, finite, strict=True)
    if not is_finite
  ]


@jax.jit
def _all_finite(leaves: list[jax.Array]) -> list[jax.Array]:
  return [jnp.isfinite(leaf).all() for leaf in leaves]


def _on_host(x: np.ndarray) -> list[int]:
  """The result of `fingerprint`, computed a few megabytes at a time."""
  bits = np.ascontiguousarray(x).reshape(-1)
  bits = bits.view(np.dtype(f"uint{8 * x.dtype.itemsize}"))
  sums = np.zeros(len(_FACTORS), np.uint32)
  for start in range(0, bits.size, _PIECE):
    piece = bits[start : start + _PIECE].astype(np.uint32)
    position = np.arange(start, start + piece.size).astype(np.uint32)
    for i, factor in enumerate(_FACTORS):
      factors = (position * np.uint32(factor)) | np.uint32(1)
      sums[i : i + 1] += np.sum(piece * factors, dtype=np.uint32)
  return [int(x) for x in sums]


def fingerprint(x: jax.Array) -> jax.Array:
  """The checksum of an array: uint32 [2], one sum for each of `_FACTORS`."""
  unsigned = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
  bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
  position = jnp.zeros((), jnp.uint32)
  for dim, size in enumerate(x.shape):
    # Not a reshape to one dimension, which would move sharded arrays.
    index = jax.lax.broadcasted_iota(jnp.uint32, x.shape, dim)
    position = position * jnp.uint32(size) + index
  return jnp.stack(
    [
      jnp.sum(
        bits * ((position * jnp.uint32(f)) | jnp.uint32(1)), dtype=jnp.uint32
      )
      for f in _FACTORS
    ]
  )
