"""Checkpoints of format 1, whose contrast lay at the top of the tree."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from infoxlm_jax.checkpoint import checksum_file
from infoxlm_jax.checkpoint.manager import Checkpoints
from infoxlm_jax.errors import InputError
from infoxlm_jax.objectives.contrast import ContrastState
from infoxlm_jax.objectives.key_queue import Queue
from infoxlm_jax.training.state import TrainState


@struct.dataclass
class StateOfFormat1:
  """The fields that TrainState had when format 1 was written."""

  step: Any
  params: Any
  key_params: Any
  opt_state: Any
  queue: Any
  rng: Any


def _normal(seed, *shape):
  draw = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(draw, jnp.float32)


_PARAMS = {"embed": {"token": _normal(0, 8, 4)}, "heads": {}}
_QUEUE = Queue(_normal(1, 3, 2, 4), jnp.int32(5))
_COMMON = {
  "step": jnp.int32(7),
  "params": _PARAMS,
  "opt_state": ({"mu": _normal(2, 8, 4)}, jnp.int32(7)),
  "rng": jnp.asarray([3, 4], jnp.uint32),
}
# A key encoder with a projection, without one, and no contrast at all.
_CASES = {
  "projection": (
    {"embed": _PARAMS["embed"], "heads": {"contrast": {"p": _normal(3, 4, 4)}}},
    _QUEUE,
  ),
  "no projection": ({"embed": _PARAMS["embed"], "heads": {}}, _QUEUE),
  "no contrast": (None, None),
}


def _saved(folder, monkeypatch, key_params, queue):
  monkeypatch.setattr(checksum_file, "FORMAT", 1)
  with Checkpoints(folder) as checkpoints:
    old = StateOfFormat1(key_params=key_params, queue=queue, **_COMMON)
    checkpoints.save(old, {}, wait=True)
  monkeypatch.undo()


def _abstract(state):
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state
  )


@pytest.mark.parametrize("name", _CASES)
def test_format_1_comes_back_bit_for_bit(tmp_path, monkeypatch, name):
  key_params, queue = _CASES[name]
  _saved(tmp_path, monkeypatch, key_params, queue)
  own = {} if queue is None else {"any": ContrastState(key_params, queue)}
  wanted = TrainState(objective_state=own, **_COMMON)
  with Checkpoints(tmp_path) as checkpoints:
    restored = checkpoints.restore(_abstract(wanted))
  assert restored is not None
  state, _ = restored
  assert jax.tree.structure(state) == jax.tree.structure(wanted)
  jax.tree.map(np.testing.assert_array_equal, state, wanted)


def test_format_1_of_another_run_names_the_array(tmp_path, monkeypatch):
  _saved(tmp_path, monkeypatch, *_CASES["projection"])
  other = ContrastState(*_CASES["no projection"])
  wanted = TrainState(objective_state={"any": other}, **_COMMON)
  with (
    Checkpoints(tmp_path) as checkpoints,
    pytest.raises(InputError, match="key_params/heads/contrast/p is float32"),
  ):
    checkpoints.restore(_abstract(wanted))
