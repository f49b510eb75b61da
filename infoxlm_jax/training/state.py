"""The training state: a dataclass of arrays, and how one is made."""

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from infoxlm_jax.model import encoder, partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.base import Objective

Objectives = Mapping[str, Objective]


@struct.dataclass
class TrainState:
  """All arrays that an update reads and writes.

  Every set of objectives has this state: an objective without state of its
  own has no entry in `objective_state`.
  """

  step: jax.Array  # [] int32, updates attempted
  params: Any  # {"embed", "layers", "heads"}, float32
  objective_state: dict[str, Any]  # by the objective's name
  opt_state: Any
  rng: jax.Array  # [2] uint32; update n draws from fold_in(rng, n)


@dataclasses.dataclass(frozen=True)
class Recipe:
  """The parts of a run that decide the shapes of its state.

  Attributes:
    model: the encoder's shapes.
    objectives: by name.
    optimizer: of all parameters.
    batches: items of an update, by stream.
    microbatches: pieces in which a device computes its groups.
  """

  model: EncoderConfig
  objectives: Objectives
  optimizer: optax.GradientTransformation
  batches: Mapping[str, int]
  microbatches: int = 1


def init_params(
  key: jax.Array, model: EncoderConfig, objectives: Objectives
) -> dict[str, Any]:
  """Random parameters of the encoder and of every objective's heads."""
  encoder_key, head_key = jax.random.split(key)
  heads: dict[str, Any] = {}
  for objective in objectives.values():
    # Objectives that name the same head share it, as MLM and TLM do.
    heads = objective.init(head_key, model) | heads
  return encoder.init(encoder_key, model) | {"heads": heads}


def random_params(
  seed: int, model: EncoderConfig, objectives: Objectives
) -> Callable[[], dict[str, Any]]:
  """A function that makes the first parameters of a run with this seed.

  Compile it with shardings, or give it to jax.eval_shape.
  """
  return lambda: init_params(jax.random.key(seed), model, objectives)


def first_rng(seed: int) -> jax.Array:
  """TrainState.rng of a run with this seed."""
  return jax.random.key_data(jax.random.key(seed))


def create(recipe: Recipe, params: Any, rng: jax.Array) -> TrainState:
  """The state before the first update, from given parameters."""
  objective_state = {}
  for name, objective in recipe.objectives.items():
    own = objective.init_state(
      params, recipe.batches[objective.stream], recipe.microbatches
    )
    if own is not None:
      objective_state[name] = own
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    objective_state=objective_state,
    opt_state=recipe.optimizer.init(params),
    rng=rng,
  )


def create_random(recipe: Recipe, rng: jax.Array) -> TrainState:
  """The state before the first update, from random parameters."""
  key = jax.random.wrap_key_data(rng)
  params = init_params(key, recipe.model, recipe.objectives)
  return create(recipe, params, rng)


def init_sharded(
  recipe: Recipe, seed: int, mesh: Mesh, zero1: bool = False
) -> TrainState:
  """A random state, every array made where it will live."""

  def make(rng: jax.Array) -> TrainState:
    return create_random(recipe, rng)

  rng = first_rng(seed)
  shardings = partitioning.shardings(jax.eval_shape(make, rng), mesh, zero1)
  return jax.jit(make, out_shardings=shardings)(rng)


def abstract(recipe: Recipe, mesh: Mesh, zero1: bool = False) -> TrainState:
  """Shapes, dtypes and shardings of the state; allocates nothing."""
  shapes = jax.eval_shape(
    lambda rng: create_random(recipe, rng),
    jax.ShapeDtypeStruct((2,), jnp.uint32),
  )
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    partitioning.shardings(shapes, mesh, zero1),
  )


def count_parameters(params: Any) -> int:
  """Parameters in a tree of arrays, the padding of the vocabulary included."""
  return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def resizable(objectives: Objectives) -> frozenset[str]:
  """Paths of arrays that a checkpoint may hold in another shape.

  Their leading dimensions depend on the batch size, see `resized`.
  """
  return frozenset(
    f"objective_state/{name}/{path}"
    for name, objective in objectives.items()
    for path in objective.resizable
  )


def resized(
  state: TrainState, like: TrainState, objectives: Objectives
) -> TrainState:
  """A restored state in the shapes and shardings of `like`."""
  objective_state = dict(state.objective_state)
  for name, own in objective_state.items():
    wanted = like.objective_state[name]
    if jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, wanted):
      continue
    logging.warning(
      "The queue of %s is another size than in the checkpoint: the newest keys"
      " that fit are kept; a longer one fills up as the run goes on.",
      name,
    )
    resize = jax.jit(
      objectives[name].resize_state,
      out_shardings=jax.tree.map(lambda x: x.sharding, wanted),
    )
    objective_state[name] = resize(own, wanted)
  return dataclasses.replace(state, objective_state=objective_state)
