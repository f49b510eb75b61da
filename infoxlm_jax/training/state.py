"""The training state: one dataclass of arrays for every system of the table."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from infoxlm_jax.model import encoder, partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives import key_queue
from infoxlm_jax.objectives.base import Objective
from infoxlm_jax.objectives.key_queue import Queue


@struct.dataclass
class TrainState:
  """All that an update reads and writes.

  Where nothing contrasts, `key_params` and `queue` are None, so baselines
  share the step, the sharding table and the checkpoint format.
  """

  step: jax.Array  # [] int32, updates attempted
  params: Any  # {"embed", "layers", "heads"}, float32
  key_params: Any | None  # what a key depends on, float32
  opt_state: Any
  queue: Queue | None
  rng: jax.Array  # [2] uint32; update n draws from fold_in(rng, n)


def contrastive(objectives: Mapping[str, Objective]) -> Any | None:
  """The one objective with keys and a queue, or None."""
  found = [o for o in objectives.values() if o.contrastive]
  return found[0] if found else None


def name_of(objective: Any, objectives: Mapping[str, Objective]) -> str:
  """The name that an objective goes by."""
  return next(name for name, o in objectives.items() if o is objective)


def init_params(
  key: jax.Array, model: EncoderConfig, objectives: Mapping[str, Objective]
) -> dict[str, Any]:
  """Random parameters of the encoder and of every objective's heads."""
  encoder_key, head_key = jax.random.split(key)
  heads: dict[str, Any] = {}
  for objective in objectives.values():
    # Objectives that name the same head share it, as MLM and TLM do.
    heads = objective.init(head_key, model) | heads
  return encoder.init(encoder_key, model) | {"heads": heads}


def create(
  params: Any,
  rng: jax.Array,
  objectives: Mapping[str, Objective],
  optimizer: optax.GradientTransformation,
  keys_per_push: int,
) -> TrainState:
  """A state before the first update; the key encoder starts as a copy."""
  contrast = contrastive(objectives)
  key_params, queue = None, None
  if contrast is not None:
    key_params = jax.tree.map(jnp.copy, contrast.key_params(params))
    dim = params["embed"]["token"].shape[1]
    queue = key_queue.init(
      contrast.queue_size, keys_per_push, dim, contrast.queue_dtype
    )
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    key_params=key_params,
    opt_state=optimizer.init(params),
    queue=queue,
    rng=rng,
  )


def random_params(
  seed: int, model: EncoderConfig, objectives: Mapping[str, Objective]
) -> Callable[[], dict[str, Any]]:
  """A function that makes the parameters which a run of this seed starts with.

  To be compiled, or to be asked for shapes.
  """
  return lambda: init_params(jax.random.key(seed), model, objectives)


def _maker(
  model: EncoderConfig,
  objectives: Mapping[str, Objective],
  optimizer: optax.GradientTransformation,
  keys_per_push: int,
) -> Callable[[jax.Array], TrainState]:
  """A function from random bits to a state."""

  def make(rng: jax.Array) -> TrainState:
    params = init_params(jax.random.wrap_key_data(rng), model, objectives)
    return create(params, rng, objectives, optimizer, keys_per_push)

  return make


def first_rng(seed: int) -> jax.Array:
  """TrainState.rng of a run with this seed."""
  return jax.random.key_data(jax.random.key(seed))


def init_sharded(
  seed: int,
  model: EncoderConfig,
  objectives: Mapping[str, Objective],
  optimizer: optax.GradientTransformation,
  keys_per_push: int,
  mesh: Mesh,
  zero1: bool = False,
) -> TrainState:
  """A random state, every array made where it will live."""
  make = _maker(model, objectives, optimizer, keys_per_push)
  rng = first_rng(seed)
  shardings = partitioning.shardings(jax.eval_shape(make, rng), mesh, zero1)
  return jax.jit(make, out_shardings=shardings)(rng)


def abstract(
  model: EncoderConfig,
  objectives: Mapping[str, Objective],
  optimizer: optax.GradientTransformation,
  keys_per_push: int,
  mesh: Mesh,
  zero1: bool = False,
) -> TrainState:
  """Shapes, dtypes and shardings of the state; allocates nothing."""
  make = _maker(model, objectives, optimizer, keys_per_push)
  shapes = jax.eval_shape(make, jax.ShapeDtypeStruct((2,), jnp.uint32))
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    partitioning.shardings(shapes, mesh, zero1),
  )


def reslotted(
  state: TrainState, abstract: TrainState, contrast: Any
) -> TrainState:
  """The state with its queue in the batch size of `abstract`."""
  if state.queue is None or abstract.queue is None:
    return state
  batch = abstract.queue.keys.shape[1]
  if batch == state.queue.keys.shape[1]:
    return state
  reslot = jax.jit(
    lambda queue: key_queue.reslot(queue, contrast.queue_size, batch),
    out_shardings=jax.tree.map(lambda x: x.sharding, abstract.queue),
  )
  return dataclasses.replace(state, queue=reslot(state.queue))
