"""Checkpoints that are whole or absent, and never wrong in silence.

orbax writes a folder a step and renames it when it is complete. It does not
notice a flipped bit in the arrays, so every array's fingerprint is stored
beside them and compared after a restore. A fingerprint is a sum modulo 2^32
of the array's bits times a number that depends on the position, so it is the
same on any mesh and any number of processes, is computed where the array
lives, and every single flipped bit changes it.
"""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.partitioning import path_of

FORMAT = 1
_CHECKSUMS = "checksums.json"
_policy = ocp.checkpoint_managers


class Damaged(Exception):
  """A stored checkpoint is not what was saved."""


class FilesHandler(ocp.CheckpointHandler):
  """Small files that belong to a checkpoint, written with it or not at all."""

  def save(self, directory: epath.Path, args: "SaveFiles") -> None:
    if jax.process_index() == 0:
      for name, content in args.files.items():
        (directory / name).write_bytes(content)

  def restore(self, directory: epath.Path, args: Any = None) -> dict[str, bytes]:
    del args
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@ocp.args.register_with_handler(FilesHandler, for_save=True)
@dataclasses.dataclass
class SaveFiles(ocp.args.CheckpointArgs):
  files: Mapping[str, bytes]


@ocp.args.register_with_handler(FilesHandler, for_restore=True)
@dataclasses.dataclass
class RestoreFiles(ocp.args.CheckpointArgs):
  pass


class Checkpoints:
  """The checkpoints of one run: <folder>/<step>/{state,files}.

  Args:
    folder: made if missing.
    keep_latest: how many newest ones to keep.
    keep_best: how many best ones (by the metric given to save) to keep
      besides. Two rules, because one rule evicts the newest.
  """

  def __init__(
    self, folder: str | Path, keep_latest: int = 3, keep_best: int = 1
  ):
    self.folder = Path(folder)
    policies = [_policy.LatestN(keep_latest)]
    if keep_best:
      policies.append(
        _policy.BestN(
          get_metric_fn=lambda metrics: metrics["best"],
          n=keep_best,
          keep_checkpoints_without_metrics=False,
        )
      )
    try:
      self._manager = ocp.CheckpointManager(
        epath.Path(os.path.abspath(self.folder)),
        options=ocp.CheckpointManagerOptions(
          preservation_policy=_policy.AnyPreservationPolicy(policies),
          cleanup_tmp_directories=True,
        ),
        item_handlers={
          "state": ocp.StandardCheckpointHandler(),
          "files": FilesHandler(),
        },
      )
    except OSError as error:
      raise InputError(f"{folder}: cannot be used for checkpoints: {error}") from None

  def steps(self) -> list[int]:
    return sorted(self._manager.all_steps())

  def save(
    self,
    state: Any,
    files: Mapping[str, bytes],
    *,
    metric: float | None = None,
    wait: bool = False,
  ) -> None:
    """Saves state at step state.step, in the background unless `wait`.

    Args:
      state: a TrainState of arrays.
      files: small files by name, stored with their hashes.
      metric: higher is better; never NaN (then give None).
      wait: return only when it is on disk.

    Raises:
      StorageError: this save, or an earlier one in the background, failed.
    """
    step = int(state.step)
    sums = {
      "format": FORMAT,
      "arrays": describe(state),
      "files": {k: hashlib.sha256(v).hexdigest() for k, v in files.items()},
    }
    files = dict(files) | {_CHECKSUMS: json.dumps(sums, indent=1).encode()}
    finite = metric is not None and np.isfinite(metric)
    try:
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state), files=SaveFiles(files)
        ),
        metrics={"best": float(metric)} if finite else None,
        force=True,
      )
      if wait:
        self._manager.wait_until_finished()
      self._manager.check_for_errors()
    except Exception as error:  # orbax wraps storage failures in its own
      raise StorageError(
        f"{self.folder}: checkpoint {step} could not be written: {error}"
      ) from error

  def restore(self, abstract: Any) -> tuple[Any, dict[str, bytes]] | None:
    """The newest checkpoint that is what was saved, or None if there is none.

    Args:
      abstract: the state's shapes, dtypes and shardings. A queue may be
        stored in another shape (another batch size): it comes back in the
        stored shape, for negatives.reslot.

    Raises:
      InputError: the arrays are of another model, or all are damaged.
    """
    steps = self.steps()
    for step in reversed(steps):
      try:
        return self._restore_step(step, abstract)
      except Damaged as damage:
        logging.warning("%s; trying the one before it", damage)
    if steps:
      raise InputError(
        f"{self.folder}: none of the checkpoints {steps} is intact; the"
        " messages above name what is damaged"
      )
    return None

  def read_files(self, step: int) -> dict[str, bytes]:
    """The small files of one checkpoint, verified."""
    where = f"{self.folder / str(step)}"
    try:
      files = self._manager.restore(
        step, args=ocp.args.Composite(files=RestoreFiles())
      )["files"]
      sums = json.loads(files.pop(_CHECKSUMS))
    except Exception as error:
      raise Damaged(f"{where}: its files cannot be read: {error}") from error
    if sums.get("format") != FORMAT:
      raise InputError(
        f"{where}: checkpoint format {sums.get('format')}, this version reads"
        f" {FORMAT}"
      )
    for name, digest in sums["files"].items():
      if hashlib.sha256(files.get(name, b"")).hexdigest() != digest:
        raise Damaged(f"{where}: {name} is not what was saved")
    return files | {_CHECKSUMS: json.dumps(sums).encode()}

  def _restore_step(self, step: int, abstract: Any):
    where = f"{self.folder / str(step)}"
    files = self.read_files(step)
    stored = json.loads(files.pop(_CHECKSUMS))["arrays"]
    abstract = _with_stored_queue(abstract, stored)
    wanted = {
      path_of(path): [list(leaf.shape), str(leaf.dtype)]
      for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
    }
    for name in wanted | stored:
      have = stored.get(name, {})
      found = [have.get("shape"), have.get("dtype")]
      if wanted.get(name) != found:
        raise InputError(
          f"{where}: {name} is {found} in the checkpoint and"
          f" {wanted.get(name)} in this run's configuration; it belongs to"
          " another model or optimiser"
        )
    try:
      state = self._manager.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)),
      )["state"]
    except Exception as error:
      raise Damaged(f"{where}: cannot be read: {error}") from error
    bad = [
      name
      for name, found in describe(state).items()
      if found["sum"] != stored[name]["sum"]
    ]
    if bad:
      raise Damaged(
        f"{where}: array {', '.join(bad[:3])} is not what was saved (its"
        " checksum differs)"
      )
    return state, files

  def wait(self) -> None:
    """Returns when all saves are on disk; raises what went wrong in them."""
    try:
      self._manager.wait_until_finished()
    except Exception as error:
      raise StorageError(
        f"{self.folder}: a checkpoint could not be written: {error}"
      ) from error

  def close(self) -> None:
    self._manager.close()


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
  return [_fingerprint(leaf) for leaf in leaves]


def _fingerprint(x: jax.Array) -> jax.Array:
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


def _with_stored_queue(abstract: Any, stored: Mapping[str, Any]) -> Any:
  found = stored.get("queue/keys")
  if getattr(abstract, "queue", None) is None or found is None:
    return abstract
  keys = abstract.queue.keys
  shape = tuple(found["shape"])
  if shape == keys.shape or shape[-1] != keys.shape[-1]:
    return abstract
  mesh = keys.sharding.mesh
  whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  keys = jax.ShapeDtypeStruct(shape, keys.dtype, sharding=whole)
  return abstract.replace(queue=abstract.queue.replace(keys=keys))
