"""Collectives and loops of compiled programs, as XLA writes them."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from infoxlm_jax.analysis import hlo, hlo_groups

MESH = {"data": 4, "fsdp": 2}


@pytest.fixture(scope="module")
def mesh():
  return jax.make_mesh(
    tuple(MESH.values()), tuple(MESH), axis_types=(AxisType.Auto,) * 2
  )


def _compiled(function, mesh, *shapes, out):
  sharded = jax.shard_map(
    function,
    mesh=mesh,
    in_specs=tuple(P() for _ in shapes),
    out_specs=out,
    check_vma=False,
  )
  arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return jax.jit(sharded).lower(*arrays).compile().as_text()


def test_known_collectives_of_a_real_program(mesh):
  """Two loops, one in the other, and one collective of each kind."""

  def inner(total, x):
    return total + jax.lax.psum(x, "data"), None

  def outer(total, x):
    return total + jax.lax.scan(inner, jnp.zeros((16, 16)), x)[0], None

  def function(xs, row):
    total = jax.lax.scan(outer, jnp.zeros((16, 16)), xs)[0]
    whole = jax.lax.all_gather(row, "fsdp", tiled=True)
    part = jax.lax.psum_scatter(
      jnp.outer(row, row), ("data", "fsdp"), tiled=True
    )
    turned = jax.lax.ppermute(row, "data", [(i, (i + 1) % 4) for i in range(4)])
    return total, whole, part, turned

  text = _compiled(function, mesh, (3, 5, 16, 16), (32,), out=(P(),) * 4)
  by_kind = {one.kind: one for one in hlo.collectives(text)}
  assert len(by_kind) == len(hlo.collectives(text)) == 4
  size = 4 * 16 * 16
  summed = by_kind["all-reduce"]
  assert (summed.bytes, summed.loops, summed.times) == (size, (3, 5), 15)
  assert hlo.axes_of(summed.groups, MESH) == ("data",)
  gathered = by_kind["all-gather"]
  assert (gathered.bytes, gathered.in_loop) == (4 * 2 * 32, False)
  assert hlo.axes_of(gathered.groups, MESH) == ("fsdp",)
  # What it takes, not the eighth that it gives.
  scattered = by_kind["reduce-scatter"]
  assert (scattered.bytes, scattered.times) == (4 * 32 * 32, 1)
  assert hlo.axes_of(scattered.groups, MESH) == ("data", "fsdp")
  turned = by_kind["collective-permute"]
  assert turned.bytes == 4 * 32
  assert hlo.axes_of(turned.groups, MESH) == ("data",)


def test_control_a_program_without_any(mesh):
  text = _compiled(lambda x: x @ x, mesh, (16, 16), out=P())
  assert hlo.collectives(text) == []


# Cut from programs compiled for a TPU: no trip counts, and one all-gather as a
# fusion that starts it, one that carries it on and one that ends it.
TPU = """\
%condition.1 (p: (s32[], f32[8])) -> pred[] {
  %constant.7 = s32[]{:T(128)} constant(12)
  %p = (s32[]{:T(128)}, f32[8]{0:T(256)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %constant.7), direction=LT
}

%fused_computation.1 (p: bf16[8,64]) -> (bf16[32,64], u32[]) {
  %p = bf16[8,64]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.1 = bf16[32,64]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=1, \
replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %custom-call.1 = (bf16[32,64]{1,0}, u32[]{:S(2)}) custom-call(\
%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (p: bf16[8,64], q: u32[]) -> (bf16[32,64], u32[]) {
  %p = bf16[8,64]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %q = u32[]{:S(2)} parameter(1)
  %all-gather.2 = bf16[32,64]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=1, \
replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %tuple.1 = (bf16[32,64]{1,0}, u32[]{:S(2)}) tuple(%all-gather.2, %q)
}

%fused_computation.2 (p: bf16[8,64], q: u32[]) -> bf16[32,64] {
  %p = bf16[8,64]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %q = u32[]{:S(2)} parameter(1)
  %all-gather.3 = bf16[32,64]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=1, \
replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %custom-call.2 = bf16[32,64]{1,0} custom-call(%all-gather.3, %q), \
custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.1 (p: f32[64]) -> f32[16] {
  %p = f32[64]{0:T(256)} parameter(0)
  %all-reduce.1 = f32[64]{0:T(256)} all-reduce(%p), channel_id=2, \
replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%add
  %id = u32[]{:T(128)} partition-id()
  ROOT %slice = f32[16]{0:T(256)} dynamic-slice(%all-reduce.1, %id)
}

%body.1 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %start = (bf16[32,64]{1,0}, u32[]{:S(2)}) fusion(%x), kind=kCustom, \
calls=%fused_computation.1
  %on = (bf16[32,64]{1,0}, u32[]{:S(2)}) fusion(%x), kind=kCustom, \
calls=%async_collective_fusion.1
  %done = bf16[32,64]{1,0} fusion(%x, %u), kind=kCustom, \
calls=%fused_computation.2
  ROOT %tuple.2 = (s32[]{:T(128)}, f32[8]{0:T(256)}) tuple(%i, %f)
}

ENTRY %main.1 (p: f32[8]) -> f32[8] {
  %while.1 = (s32[]{:T(128)}, f32[8]{0:T(256)}) while(%tuple), \
condition=%condition.1, body=%body.1, metadata={op_name="jit(f)/while"}
  %all-reduce.2 = (f32[], f32[64]{0:T(256)}, /*index=2*/bf16[8,64]{1,0}) \
all-reduce(%a, %b, %c), channel_id=3, replica_groups={}, to_apply=%add, \
metadata={op_name="jit(f)/psum"}
  ROOT %fusion.9 = f32[16]{0:T(256)} fusion(%b), kind=kCustom, \
calls=%all-reduce-scatter.1
}
"""


def test_programs_of_a_tpu():
  gathered, summed, scattered = hlo.collectives(TPU)
  assert (gathered.kind, gathered.bytes) == ("all-gather", 2 * 32 * 64)
  assert (gathered.loops, gathered.times) == ((12,), 12)
  assert summed.kind == "all-reduce" and summed.name == "jit(f)/psum"
  assert (summed.bytes, summed.largest) == (4 + 4 * 64 + 2 * 8 * 64, 1024)
  assert summed.groups == () and not summed.in_loop
  assert (scattered.kind, scattered.bytes) == ("reduce-scatter", 4 * 64)
  assert scattered.groups == ((0, 2, 4, 6), (1, 3, 5, 7))


# Cut from programs compiled for GPUs: starts whose types hold the operands.
GPU = """\
ENTRY %main (p: f32[8]) -> f32[8] {
  %a = s32[6]{0} all-reduce-start(%x), channel_id=1, replica_groups={{0,1}}
  %b = (f32[8,64]{1,0}, f32[16,64]{1,0}) all-gather-start(%x), \
replica_groups={{0,1},{2,3}}, dimensions={0}
  %c = ((f32[32]{0}), f32[8]{0}) reduce-scatter-start(%x), \
replica_groups={{0,1,2,3}}, dimensions={0}
  %d = (f32[9]{0}, f32[9]{0}, u32[], u32[]) collective-permute-start(%x), \
source_target_pairs={{0,1},{1,0}}
  %e = s32[6]{0} all-reduce-done(%a)
  ROOT %f = f8e4m3fn[64]{0} all-to-all(%x), replica_groups=[2,2]<=[4]
}
"""


def test_programs_of_a_gpu():
  collectives = hlo.collectives(GPU)
  assert [(one.kind, one.bytes) for one in collectives] == [
    ("all-reduce", 24),
    ("all-gather", 4 * 16 * 64),
    ("reduce-scatter", 4 * 32),
    ("collective-permute", 36),
    ("all-to-all", 64),
  ]
  assert collectives[-1].groups == ((0, 1), (2, 3))


# Cut from a program for two TPU slices of four chips.
SLICES = """\
ENTRY %main (p: f32[8]) -> f32[8] {
  %a = (f32[2,4,64]{2,1,0:T(4,128)}, u32[], token[]) send(%x, %t), \
channel_id=3, is_host_transfer=true, frontend_attributes={\
_xla_host_transfer_rendezvous="reduce-scatter.33_0",_xla_megascale_reduce_operation="SUM",\
_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type=\
"REDUCE_SCATTER"}
  %b = (f32[1,4,64]{2,1,0:T(4,128)}, u32[], token[]) recv(%t), channel_id=2, \
is_host_transfer=true, frontend_attributes={_xla_host_transfer_rendezvous=\
"reduce-scatter.33_0",_xla_megascale_target="{1,2}x{0:3}",\
_xla_megascale_transfer_type="REDUCE_SCATTER"}
  ROOT %c = (f32[64]{0}, u32[], token[]) send(%x, %t), channel_id=5, \
is_host_transfer=true, frontend_attributes={_xla_host_transfer_rendezvous=\
"all-gather.1_0",_xla_megascale_target="{1,2}x{0:3}",\
_xla_megascale_transfer_type="ALL_GATHER"}
}
"""


def test_programs_of_several_slices():
  scattered, gathered = hlo.collectives(SLICES)
  assert (scattered.kind, scattered.bytes) == ("reduce-scatter", 4 * 2 * 4 * 64)
  assert scattered.groups == ((0, 4), (1, 5), (2, 6), (3, 7))
  assert hlo.axes_of(scattered.groups, {"data": 4, "fsdp": 2}) == ("data",)
  # It sends its half of what it gets.
  assert (gathered.kind, gathered.bytes) == ("all-gather", 2 * 4 * 64)
  assert not gathered.in_loop


def test_a_loop_whose_trips_are_not_written():
  text = TPU.replace("direction=LT", "direction=NE")
  (gathered, *_) = hlo.collectives(text)
  assert gathered.loops == (None,) and gathered.in_loop
  assert gathered.times == 1
  noted = TPU.replace(
    'metadata={op_name="jit(f)/while"}',
    'backend_config={"known_trip_count":{"n":"7"}}',
  )
  assert hlo.collectives(noted)[0].loops == (7,)


@pytest.mark.parametrize(
  ("written", "groups"),
  [
    ("replica_groups={{0,1},{2,3}}", ((0, 1), (2, 3))),
    ("source_target_pairs={{0,1},{1,0}}", ((0, 1), (1, 0))),
    ("replica_groups=[2,2]<=[4]", ((0, 1), (2, 3))),
    ("replica_groups=[2,2]<=[2,2]T(1,0)", ((0, 2), (1, 3))),
    ("replica_groups=mesh['a'=2,'b'=2] {'b'}", ((0, 1), (2, 3))),
    ("replica_groups=mesh['a'=2,'b'=2] {'a'}", ((0, 2), (1, 3))),
    ("replica_groups=mesh['a'=2,'b'=2] {'b','a'}", ((0, 2, 1, 3),)),
    ("replica_groups={}", ()),
    ("dimensions={0}", ()),
  ],
)
def test_groups_as_they_are_written(written, groups):
  line = f"  %a = f32[8]{{0}} all-gather(%x), channel_id=1, {written}, x=[2,1]"
  assert hlo_groups.read_groups(line) == groups


def test_axes_of_groups():
  cube = {"data": 2, "fsdp": 2, "tensor": 2}
  assert hlo.axes_of(((0, 1), (2, 3)), cube) == ("tensor",)
  assert hlo.axes_of(((0, 2, 4, 6), (1, 3, 5, 7)), cube) == ("data", "fsdp")
  assert hlo.axes_of((), {"data": 8, "fsdp": 1}) == ("data",)
