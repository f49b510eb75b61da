"""The interface of an objective; the training step knows nothing else of it.

An objective is a frozen dataclass of its options that derives from `Objective`
and overrides the methods it needs. All of them are pure functions of arrays.
An update calls them in this order:

  corrupt            draws masks, and counts the terms of the loss
  targets            computes, without gradient, the arrays that the loss
                     compares with; once for the whole update
  losses             sums the losses of a microbatch; differentiated
  after_microbatch   changes the memory that the next microbatch sees
  update_state       after the optimizer: moves the objective's own state

An objective without state overrides `corrupt` and `losses`, and `init` where
it has a head. The contrast has state as well: a moving average of the encoder
and a queue of keys (contrast.py).

Letters: G groups of this device, M microbatches.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from infoxlm_jax.model.config import EncoderConfig

Sums = dict[str, tuple[jax.Array, jax.Array]]  # name -> (sum, weight)
Rows = Any  # the arrays of a stream: nested dicts
Tree = Any  # nested dicts of arrays
Encode = Callable[..., Any]  # see encoder.encode
# (params, their specs) -> params whole outside the layers, and an `encode`
# that gathers each layer where it is split over devices.
Unshard = Callable[[Tree, Tree], tuple[Tree, Encode]]


class LossSum(NamedTuple):
  """Losses as a sum over their terms, and metrics as (sum, weight) pairs.

  Sums, never means, cross microbatches and devices.
  """

  sum: jax.Array  # each term times Context.factor of its objective
  metrics: Sums  # "objective/metric", without the factor


class Targets(NamedTuple):
  """Arrays that a loss compares with.

  Attributes:
    each: arrays [M, ...], one slice for each microbatch; a loss sees its own.
    shared: arrays that every microbatch sees as they are.
    terms: of the loss on this device, besides those that `corrupt` counted;
      None: there are none.
  """

  each: Tree
  shared: Tree
  terms: jax.Array | None = None


class Cost(NamedTuple):
  """What an objective costs in an update, from shapes alone.

  Attributes:
    flops: floating-point operations on all devices; a backward pass counts as
      two forward passes.
    layers: layers of the encoder whose values are kept for the backward pass.
    logits: numbers of the largest logits that a device holds at one time.
    joins_rows: whether its rows go through the encoder together with those of
      other objectives of its type.
  """

  flops: int
  layers: int
  logits: int
  joins_rows: bool


class Context(NamedTuple):
  """What a loss may read besides parameters and rows.

  Attributes:
    axes: mesh axes that the batch is split over; () outside a shard_map.
    vocab_axis: the mesh axis that splits the token table, if any does.
    factors: of each objective's terms in the loss, by name.
    memory: of each objective with state, by name (see Objective.memory).
    targets: of each objective that has some, by name; `each` is this
      microbatch's slice.
    languages: that slots tell apart, in held-out rows (data/by_language.py);
      0: none.
  """

  axes: tuple[str, ...] = ()
  vocab_axis: str | None = None
  factors: Mapping[str, jax.Array] | None = None
  memory: Mapping[str, Any] = {}
  targets: Mapping[str, Targets] = {}
  languages: int = 0

  def factor(self, name: str) -> jax.Array | float:
    """Factor of an objective's terms; 1 where none is given."""
    return 1.0 if self.factors is None else self.factors[name]


class Objective:
  """A training objective.

  Attributes:
    stream: the stream of the batch that it reads.
    weight: factor of its loss.
    start_step: number of updates before its loss counts.
    encoded: the sides of its rows that the trained encoder reads; () where
      its rows are a single side.
    resizable: paths, within its state, of arrays whose leading dimensions
      depend on the batch size; `resize_state` adapts them after a restore.
    predicts_words: whether its metrics have "nll_by_language" where rows have
      "languages".
  """

  stream: str
  weight: float
  start_step: int
  resizable: ClassVar[tuple[str, ...]] = ()
  predicts_words: ClassVar[bool] = False

  @property
  def encoded(self) -> tuple[str, ...]:
    return ()

  def check(self, name: str, model: EncoderConfig) -> None:
    """Raises InputError for options that cannot work with this model."""
    del name, model

  def init(self, key: jax.Array, model: EncoderConfig) -> dict[str, Any]:
    """Random parameters of its heads, by head name.

    Objectives that name the same head share it.
    """
    del key, model
    return {}

  def corrupt(
    self, keys_G: jax.Array, rows: Rows, model: EncoderConfig
  ) -> tuple[Rows, dict[str, jax.Array]]:
    """Masks the rows of this device.

    Args:
      keys_G: a random key for each group.
      rows: of `stream`, as the batch has them.
      model: the encoder's shapes.

    Returns:
      The rows that `targets` and `losses` get, and counts: "terms" is the
      number of terms of the loss, which must be known before the loss is (so
      any normalization needs one backward pass); others are reported.
    """
    raise NotImplementedError

  def counts_at(self, updates: jax.Array) -> jax.Array:
    """Whether its loss counts in the update after so many; bool."""
    return updates >= self.start_step

  def is_finite(self, updates: jax.Array) -> jax.Array | bool:
    """Whether its schedules have finite values after so many updates."""
    del updates
    return True

  @staticmethod
  def losses(
    objectives: Mapping[str, Any],
    params: Tree,
    encode: Encode,
    rows: Mapping[str, Rows],
    model: EncoderConfig,
    context: Context,
  ) -> LossSum:
    """The losses of all objectives of this type, which may share passes.

    Args:
      objectives: of this type, by name.
      params: "embed", "layers", "heads".
      encode: see encoder.encode; the encoder's shapes are bound.
      rows: one microbatch of this device, by objective, as `corrupt` gave it.
      model: the encoder's shapes.
      context: see Context.
    """
    raise NotImplementedError

  def cost(
    self, model: EncoderConfig, stream: Any, devices: int, microbatches: int
  ) -> Cost:
    """What it costs in an update.

    Args:
      model: the encoder's shapes.
      stream: with "batch", "rows" and "row_length".
      devices: that the batch is split over.
      microbatches: pieces of a device's rows.
    """
    raise NotImplementedError

  # Everything below is for objectives with state of their own.

  def init_state(self, params: Tree, batch: int, microbatches: int) -> Any:
    """Its state before the first update; None where it has none.

    Args:
      params: the model's first parameters.
      batch: items of `stream` in an update, of all devices.
      microbatches: pieces in which a device computes its groups.
    """
    del params, batch, microbatches
    return None

  def resize_state(self, state: Any, like: Any) -> Any:
    """A restored state in the shapes of `like`, where `resizable` differ."""
    del like
    return state

  def targets(
    self,
    params: Tree,
    state: Any,
    specs: Any,
    rows: Rows,
    unshard: Unshard,
    axes: tuple[str, ...],
  ) -> Targets | None:
    """Computes what the loss compares with, on one device, no gradient.

    Args:
      params: the model's parameters, as they are split.
      state: this device's part of the objective's state.
      specs: PartitionSpecs as TrainState has them, "params" and "state".
      rows: of this device [M, ...], as `corrupt` gave them.
      unshard: see Unshard.
      axes: mesh axes that the batch is split over.
    """
    del params, state, specs, rows, unshard, axes
    return None

  def memory(self, state: Any) -> Any:
    """The part of the state that `losses` reads."""
    del state
    return None

  def after_microbatch(self, memory: Any, targets: Targets | None) -> Any:
    """The memory that the next microbatch of the same update sees."""
    del targets
    return memory

  def collect(self, targets: Targets | None) -> Any:
    """Arrays [pushes, items, ...] that `update_state` gets of all devices.

    The items of all devices are concatenated on axis 1.
    """
    del targets
    return None

  def update_state(
    self,
    state: Any,
    collected: Any,
    params: Tree,
    updates: jax.Array,
    accept: jax.Array,
  ) -> tuple[Any, dict[str, jax.Array]]:
    """The state after an update, and metrics.

    Args:
      state: before it.
      collected: as `collect` gave it, of all devices.
      params: the new parameters.
      updates: number of updates done, this one included where it counts.
      accept: whether the update changed the parameters; if not, nothing that
        follows the parameters may change.
    """
    del collected, params, updates, accept
    return state, {}

  def fill_batches(self, batch: int) -> int:
    """Number of batches that fill the state before the first update."""
    del batch
    return 0

  def fill_state(self, state: Any, collected: Any) -> Any:
    """The state with a batch of `collected` added, see `fill_batches`."""
    del collected
    return state


def all_losses(
  objectives: Mapping[str, Objective],
  params: Tree,
  encode: Encode,
  rows: Mapping[str, Rows],
  model: EncoderConfig,
  context: Context,
) -> LossSum:
  """The losses of all objectives; arguments as for Objective.losses."""
  total, metrics = jnp.zeros(()), Sums()
  kind: type[Objective]
  for kind in dict.fromkeys(map(type, objectives.values())):
    own = {name: o for name, o in objectives.items() if type(o) is kind}
    part = kind.losses(
      own, params, encode, {name: rows[name] for name in own}, model, context
    )
    total += part.sum
    metrics |= part.metrics
  return LossSum(total, metrics)


def map_microbatches(function: Callable[[Tree], Any], rows: Tree) -> Any:
  """`function` of each microbatch of rows [M, ...], results stacked [M, ...].

  One at a time; without a loop where M is 1, for a loop costs copies.
  """
  if jax.tree.leaves(rows)[0].shape[0] == 1:
    result = function(jax.tree.map(lambda x: x[0], rows))
    return jax.tree.map(lambda x: x[None], result)
  return jax.lax.map(function, rows)
