"""The tree of a state as a checkpoint stores it, in either format.

Format 2 is today's state. In format 1 a run had at most one contrast, and its
key_params and queue were at the top of the tree; they are now at
objective_state/<name>/.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax

from infoxlm_jax.checkpoint.checksum_file import ChecksumList
from infoxlm_jax.errors import InputError
from infoxlm_jax.model.partitioning import path_of

_OWN = re.compile(r"^objective_state/[^/]+/")
_TOP = ("key_params", "queue")  # in format 1; None without a contrast


class Layout:
  """The paths at which a checkpoint stores the arrays of a state.

  Args:
    sums: the checkpoint's checksums.json.
    abstract: shapes, dtypes and shardings of the state to restore.

  Attributes:
    arrays: shape, dtype and checksum of each array that is stored, by its
      path in today's state.
  """

  def __init__(self, sums: ChecksumList, abstract: Any):
    paths = [
      path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(abstract)
    ]
    self._is_old = sums.format == 1
    self._stored_path = {
      path: _OWN.sub("", path) if self._is_old else path for path in paths
    }
    today = {stored: path for path, stored in self._stored_path.items()}
    self.arrays: dict[str, Any] = {
      today.get(path, path): entry for path, entry in sums.arrays.items()
    }

  def to_stored(self, state: Any) -> Any:
    """Puts a state's leaves into the tree that the checkpoint stores."""
    if not self._is_old:
      return state
    # As subtrees, not leaf by leaf: orbax compares empty dicts, too.
    own = {
      field.name: getattr(objective, field.name)
      for objective in state.objective_state.values()
      for field in dataclasses.fields(objective)
    }
    return {
      **dict.fromkeys(_TOP),
      **own,
      "step": state.step,
      "params": state.params,
      "opt_state": state.opt_state,
      "rng": state.rng,
    }

  def from_stored(self, stored: Any, state: Any) -> Any:
    """Puts the leaves of a stored tree into the tree of `state`."""
    if not self._is_old:
      return stored
    leaves = {
      path_of(path): leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(stored)
    }
    return jax.tree_util.tree_map_with_path(
      lambda path, _: leaves[self._stored_path[path_of(path)]], state
    )


def in_stored_shapes(
  abstract: Any, stored: Mapping[str, Any], resizable: Collection[str]
) -> Any:
  """The abstract state, with resizable arrays in their stored shapes.

  Args:
    abstract: shapes, dtypes and shardings of a state.
    stored: shape, dtype and checksum of each stored array, by path.
    resizable: paths of arrays that may be stored in another shape, as long as
      the last dimension is the same. They are restored replicated.
  """

  def stored_shape(path: Any, leaf: Any) -> Any:
    name = path_of(path)
    entry = stored.get(name)
    if name not in resizable or entry is None:
      return leaf
    shape = tuple(entry["shape"])
    if shape == leaf.shape or shape[-1] != leaf.shape[-1]:
      return leaf
    replicated = jax.sharding.NamedSharding(
      leaf.sharding.mesh, jax.sharding.PartitionSpec()
    )
    return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=replicated)

  return jax.tree_util.tree_map_with_path(stored_shape, abstract)


def check_same_arrays(
  abstract: Any, stored: Mapping[str, Any], where: Any
) -> None:
  """Compares the arrays of a checkpoint with those that a run has.

  Args:
    abstract: shapes and dtypes of the run's state.
    stored: shape, dtype and checksum of each stored array, by path.
    where: the checkpoint, for messages.

  Raises:
    InputError: an array is missing, is additional, or has another shape or
      dtype; the message names it.
  """
  wanted = {
    path_of(path): [list(leaf.shape), str(leaf.dtype)]
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
  }
  for name in wanted | dict(stored):
    entry = stored.get(name)
    have = entry and [entry["shape"], entry["dtype"]]
    if wanted.get(name) != have:
      raise InputError(
        f"{where}: {name} is {_in_words(have)} in the checkpoint and"
        f" {_in_words(wanted.get(name))} in this run's configuration; it"
        " belongs to another model or optimiser"
      )


def _in_words(shape_and_dtype: Sequence[Any] | None) -> str:
  if shape_and_dtype is None:
    return "absent"
  shape, dtype = shape_and_dtype
  return f"{dtype}{shape}"
