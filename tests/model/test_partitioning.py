"""Meshes, and where arrays lie on them."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from infoxlm_jax.errors import InputError
from infoxlm_jax.model import partitioning
from infoxlm_jax.model.partitioning import (
  MeshShape,
  abstract_mesh,
  make_mesh,
)


def test_slices_are_the_outermost_part_of_data():
  """Devices that know of no slices: the first half is the first slice."""
  mesh = make_mesh(MeshShape(data=4, fsdp=2, slices=2))
  numbers = np.vectorize(lambda device: device.id)(mesh.devices)
  assert numbers.shape == (4, 2, 1)
  assert set(numbers[:2].ravel()) == {0, 1, 2, 3}


def test_slices_that_devices_tell():
  """Interleaved on purpose: each slice must come together."""
  devices = [
    types.SimpleNamespace(
      id=i,
      slice_index=i % 2,
      platform="cpu",
      device_kind="cpu",
      process_index=0,
    )
    for i in range(8)
  ]
  in_mesh = partitioning._over_slices((4, 1, 2), 2, devices)
  assert in_mesh.shape == (4, 1, 2)
  assert {d.slice_index for d in in_mesh[:2].ravel()} == {0}
  assert {d.slice_index for d in in_mesh[2:].ravel()} == {1}
  with pytest.raises(InputError, match="slices=4, where the devices are of 2"):
    partitioning._over_slices((4, 1, 2), 4, devices)


@pytest.mark.parametrize(
  ("sizes", "message"),
  [
    ({"data": 3, "fsdp": 2}, "data=3 x fsdp=2 x tensor=1 on 8 device"),
    ({"tensor": 3}, "tensor=3"),
    ({"data": 4, "fsdp": 2, "slices": 3}, "slices=3 does not divide data=4"),
    ({"devices": 9}, "this run has 8"),
  ],
)
def test_sizes_that_do_not_fit(sizes, message):
  with pytest.raises(InputError, match=message):
    make_mesh(MeshShape(**sizes))


def test_shapes_of_devices_that_are_not_here():
  """Without a number of devices: as many as the sizes ask for; 8 are here."""
  assert abstract_mesh(MeshShape()).axis_sizes == (8, 1, 1)
  assert abstract_mesh(MeshShape(fsdp=16)).axis_sizes == (1, 16, 1)
  assert abstract_mesh(MeshShape(data=5, fsdp=3)).axis_sizes == (5, 3, 1)
  assert abstract_mesh(MeshShape(devices=512)).axis_sizes == (512, 1, 1)
  mesh = abstract_mesh(MeshShape(fsdp=2, tensor=2), 16)
  assert dict(mesh.shape) == {"data": 4, "fsdp": 2, "tensor": 2}
  with pytest.raises(InputError, match="this run has 16"):
    abstract_mesh(MeshShape(fsdp=3), 16)


def test_specs_need_no_devices():
  sizes = MeshShape(2, 2, 2)
  here = partitioning.specs(_state(), make_mesh(sizes), zero1=True)
  shapes = partitioning.specs(_state(), abstract_mesh(sizes), zero1=True)
  assert shapes == here


def _state():
  def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)

  params = {
    "embed": {"token": shape(256, 6), "norm": {"scale": shape(6)}},
    "layers": {
      "ffn_in": {"kernel": shape(3, 6, 16), "bias": shape(3, 16)},
    },
  }
  return {"params": params, "opt_state": {"mu": params, "count": shape()}}


def test_zero1_splits_the_optimiser_alone():
  mesh = make_mesh(MeshShape(2, 2, 2))
  plain = partitioning.specs(_state(), mesh)
  split = partitioning.specs(_state(), mesh, zero1=True)
  assert split["params"] == plain["params"] == plain["opt_state"]["mu"]
  token = plain["params"]["embed"]["token"]
  assert token == P(("tensor", "fsdp"), None)
  mu = split["opt_state"]["mu"]
  assert mu["embed"]["token"] == P(("tensor", "fsdp", "data"), None)
  # 6 is not a multiple of 8, and 2 x 2 x 2 parts of 16 are.
  assert mu["layers"]["ffn_in"]["bias"] == P(None, BATCH)
  assert mu["embed"]["norm"]["scale"] == P()
  assert mu == partitioning.update_specs(_state()["params"], mesh)
  assert split["opt_state"]["count"] == P()


BATCH = partitioning.BATCH_AXES


def test_a_dimension_that_does_not_divide_stays_whole():
  mesh = make_mesh(MeshShape(1, 4, 2))
  table = {"embed": {"token": jax.ShapeDtypeStruct((6, 2), jnp.float32)}}
  # Two parts over tensor; four more do not divide three rows.
  assert partitioning.specs(table, mesh)["embed"]["token"] == P("tensor", None)
