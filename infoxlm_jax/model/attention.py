"""Attention between the tokens of one item, in packed rows.

Letters: B rows, Q query places of a row, T tokens, N heads, H head size.
Tokens see those of their own segment, and no others; what attention gives at
padding is never read.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from infoxlm_jax.errors import InputError

# Rows are a multiple of this for the TPU kernel.
SPLASH_BLOCK = 128


def attend(
  q_BQNH: jax.Array,
  k_BTNH: jax.Array,
  v_BTNH: jax.Array,
  segments_BQ: jax.Array,
  segments_BT: jax.Array,
  kind: str = "xla",
  dropout: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
  """softmax(q . k / sqrt(H)) . v inside each item [B, Q, N, H], dtype of v.

  Args:
    q_BQNH, k_BTNH, v_BTNH: queries, keys, values.
    segments_BQ, segments_BT: the item that each belongs to.
    kind: "xla", plain operations, the reference, on any device; "cudnn", its
      flash kernel (NVIDIA GPUs, bfloat16); "splash", the TPU's kernel. Both
      need no memory for T x T weights.
    dropout: of the weights [B, N, Q, T]; "xla" alone applies it.

  Raises:
    InputError: another kind.
  """
  if kind == "xla":
    inputs = (q_BQNH, k_BTNH, v_BTNH, segments_BQ, segments_BT)
    if dropout is None:
      return _attend(*inputs)
    return _attend_drop(dropout, *inputs)
  if kind == "cudnn":
    same_BQT = segments_BQ[:, :, None] == segments_BT[:, None, :]
    return jax.nn.dot_product_attention(
      q_BQNH, k_BTNH, v_BTNH, mask=same_BQT[:, None], implementation="cudnn"
    )
  if kind == "splash":
    return splash(q_BQNH, k_BTNH, v_BTNH, segments_BQ, segments_BT)
  raise InputError(
    f"EncoderConfig.attention = {kind!r}: give xla, cudnn (NVIDIA GPUs) or"
    " splash (TPUs)"
  )


def _attend_drop(
  dropout: Callable[[jax.Array], jax.Array], *inputs: jax.Array
) -> jax.Array:
  """`attend` with dropout, differentiated automatically."""
  q_BNQH, k_BNTH, v_BNTH = map(transpose_heads, inputs[:3])
  weights_BNQT = dropout(_weights(q_BNQH, k_BNTH, *inputs[3:]))
  return _mix(weights_BNQT.astype(v_BNTH.dtype), v_BNTH)


@jax.custom_vjp
def _attend(*inputs: jax.Array) -> jax.Array:
  """`attend` without dropout.

  Its gradient keeps the weights alone; automatic differentiation keeps the
  softmax's steps as well: 12 % more temporary arrays of a step at base size on
  a TPU v5p (docs/scale.md).
  """
  return _attend_forward(*inputs)[0]


def _attend_forward(*inputs: jax.Array) -> tuple[jax.Array, Any]:
  # Heads before tokens, once: XLA's CPU compiler would do so in each product.
  q_BNQH, k_BNTH, v_BNTH = map(transpose_heads, inputs[:3])
  weights_BNQT = _weights(q_BNQH, k_BNTH, *inputs[3:]).astype(v_BNTH.dtype)
  mixed_BQNH = _mix(weights_BNQT, v_BNTH)
  return mixed_BQNH, (q_BNQH, k_BNTH, v_BNTH, weights_BNQT, mixed_BQNH)


def _attend_backward(kept: Any, grad_BQNH: jax.Array) -> tuple[Any, ...]:
  q_BNQH, k_BNTH, v_BNTH, weights_BNQT, mixed_BQNH = kept
  # sum_t weights * d weights, which the softmax's gradient subtracts.
  along_BQN = jnp.sum(
    grad_BQNH.astype(jnp.float32) * mixed_BQNH.astype(jnp.float32), axis=-1
  )
  along_BNQ1 = jnp.swapaxes(along_BQN, 1, 2)[..., None]
  grad_BNQH = transpose_heads(grad_BQNH)
  by_weight_BNQT = jnp.einsum(
    "bnqh,bnth->bnqt", grad_BNQH, v_BNTH, preferred_element_type=jnp.float32
  )
  by_logit_BNQT = weights_BNQT * (by_weight_BNQT - along_BNQ1)
  by_logit_BNQT *= q_BNQH.shape[-1] ** -0.5
  by_logit_BNQT = by_logit_BNQT.astype(q_BNQH.dtype)
  by_q = jnp.einsum("bnqt,bnth->bnqh", by_logit_BNQT, k_BNTH)
  by_k = jnp.einsum("bnqt,bnqh->bnth", by_logit_BNQT, q_BNQH)
  by_v = jnp.einsum("bnqt,bnqh->bnth", weights_BNQT, grad_BNQH)
  return *map(transpose_heads, (by_q, by_k, by_v)), None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _weights(
  q_BNQH: jax.Array,
  k_BNTH: jax.Array,
  segments_BQ: jax.Array,
  segments_BT: jax.Array,
) -> jax.Array:
  """softmax(q . k / sqrt(H)) inside each item, float32."""
  logits_BNQT = jnp.einsum("bnqh,bnth->bnqt", q_BNQH, k_BNTH)
  logits_BNQT = logits_BNQT.astype(jnp.float32) * q_BNQH.shape[-1] ** -0.5
  same_BQT = segments_BQ[:, :, None] == segments_BT[:, None, :]
  return jax.nn.softmax(jnp.where(same_BQT[:, None], logits_BNQT, -1e30))


def _mix(weights_BNQT: jax.Array, v_BNTH: jax.Array) -> jax.Array:
  return transpose_heads(jnp.einsum("bnqt,bnth->bnqh", weights_BNQT, v_BNTH))


def transpose_heads(x: jax.Array) -> jax.Array:
  """[B, T, N, H] -> [B, N, T, H], and back."""
  return jnp.swapaxes(x, 1, 2)


def splash(
  q_BTNH: jax.Array,
  k_BTNH: jax.Array,
  v_BTNH: jax.Array,
  segments_BQ: jax.Array,
  segments_BT: jax.Array,
  interpret: bool = False,
) -> jax.Array:
  """`attend` by the TPU's kernel; `interpret` runs it on any device."""
  # Imported late: Pallas takes a second, and most runs do without.
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
  )

  length, heads, size = q_BTNH.shape[1:]
  kernel = _splash_kernel(heads, length, interpret)
  q_BTNH = q_BTNH * jnp.asarray(size**-0.5, q_BTNH.dtype)

  def one_row(q: Any, k: Any, v: Any, q_segments: Any, segments: Any) -> Any:
    ids = splash_attention_kernel.SegmentIds(q_segments, segments)
    return kernel(q, k, v, segment_ids=ids)

  q, k, v = map(transpose_heads, (q_BTNH, k_BTNH, v_BTNH))
  mixed_BNTH = jax.vmap(one_row)(q, k, v, segments_BQ, segments_BT)
  return transpose_heads(mixed_BNTH)


@functools.lru_cache
def _splash_kernel(heads: int, length: int, interpret: bool) -> Any:
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask,
  )

  full = splash_attention_mask.FullMask((length, length))
  with jax.ensure_compile_time_eval():
    return splash_attention_kernel.make_splash_mha_single_device(
      mask=splash_attention_mask.MultiHeadMask([full] * heads),
      interpret=interpret,
    )


def check(kind: str, heads: int, size: int, length: int, dtype: str) -> None:
  """Compares a kernel with the reference on this machine's device.

  Two packed and padded rows, values and gradients. Kernels have had mask bugs
  that only numbers show, so a run does this before it starts.

  Args:
    kind, dtype: of EncoderConfig.
    heads, size, length: N, H and T.

  Raises:
    InputError: they differ, or the kernel does not run here.
  """
  if kind == "xla":
    return
  keys = jax.random.split(jax.random.key(0), 3)
  shape = (2, length, heads, size)
  q, k, v = (jax.random.normal(key, shape, dtype) for key in keys)
  place = jnp.arange(length)
  thirds = 1 + 3 * place // length
  segments = jnp.stack([thirds % 3, jnp.ones(length, jnp.int32)])
  real = (segments > 0)[:, :, None, None]  # the last third of row 0 is padding

  @functools.partial(jax.jit, static_argnums=0)
  def values_and_gradients(kind: str, *qkv: jax.Array) -> Any:
    def total(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
      out = attend(q, k, v, segments, segments, kind)
      out = jnp.where(real, out, 0).astype(jnp.float32)
      return jnp.sum(out**2), out

    (_, out), grads = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(*qkv)
    return out, *grads

  theirs = values_and_gradients("xla", q, k, v)
  try:
    mine = jax.block_until_ready(values_and_gradients(kind, q, k, v))
  except InputError:
    raise
  except Exception as error:  # whatever a kernel or its compiler objects to
    raise InputError(
      f"EncoderConfig.attention = {kind!r} does not run on"
      f" {jax.devices()[0].device_kind} with {heads} heads of {size}, rows of"
      f" {length} tokens in {dtype}: {str(error).splitlines()[0]}. Set"
      " attention = 'xla', or what the kernel needs: cudnn bfloat16 on an"
      f" NVIDIA GPU, splash a TPU and rows of a multiple of {SPLASH_BLOCK}"
    ) from None
  for name, a, b in zip(("values", *"qkv"), mine, theirs, strict=True):
    scale = float(jnp.max(jnp.abs(b.astype(jnp.float32))))
    apart = float(jnp.max(jnp.abs(a.astype(jnp.float32) - b)))
    # Of the size of rounding; a mask that is ignored changes everything.
    if not apart <= 3e-2 * scale:
      raise InputError(
        f"EncoderConfig.attention = {kind!r} is not what plain operations"
        f" give on this device: {name} differ by {apart:.2g} of {scale:.2g}."
        " Set attention = 'xla'"
      )
