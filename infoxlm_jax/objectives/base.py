"""What every objective provides; the step knows nothing else about them.

An objective is a frozen dataclass of its options with pure methods:

  init(key, model)            -> parameters of its heads, by head name
  corrupt(keys, rows, model)  -> the stream with masks drawn, and counts:
                                 "terms" of its loss (known before the loss,
                                 so that any normalisation needs only one
                                 backward), others are reported
  losses(objectives, ...)     -> LossSum of all objectives of its type, which
                                 may share passes
  encoded                     sides of its rows that the encoder reads; ()
                                 where the rows are one side
  stream                      which stream of the batch it reads
  weight, start_step          factor of its loss, 0 before that update

A contrastive one (`contrastive = True`) has `keys(...)`, `key_params(params)`
and a queue besides; see contrast.py.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.key_queue import Queue

Sums = dict[str, tuple[jax.Array, jax.Array]]  # name -> (sum, weight)
Rows = Any  # the arrays of a stream: nested dicts


class LossSum(NamedTuple):
  """Losses as a sum over their terms, and metrics as (sum, weight) pairs.

  Sums, never means, cross microbatches and devices.
  """

  sum: jax.Array  # each term times Context.factor of its objective
  metrics: Sums  # "objective/metric", without the factor


class Context(NamedTuple):
  """What a loss may see beyond its rows.

  Attributes:
    keys: this microbatch's keys, in its items' order [directions, n, D].
    batch_keys: the whole update's keys, all devices' [directions, batch, D].
    first: index in the batch of this microbatch's first item.
    queue: this device's part of the queue.
    axes: mesh axes that the batch and the queue are split over.
    vocab_axis: the mesh axis that splits the table of tokens, if any does.
    factors: of each objective's terms in the loss, by name.
  """

  keys: jax.Array | None = None
  batch_keys: jax.Array | None = None
  first: jax.Array | int = 0
  queue: Queue | None = None
  axes: tuple[str, ...] = ()
  vocab_axis: str | None = None
  factors: Mapping[str, jax.Array] | None = None

  def factor(self, name: str) -> jax.Array | float:
    """Factor of an objective's terms; 1 where none is given."""
    return 1.0 if self.factors is None else self.factors[name]


class Objective(Protocol):
  """See the module."""

  contrastive: ClassVar[bool]

  @property
  def encoded(self) -> tuple[str, ...]: ...

  @property
  def stream(self) -> str: ...

  @property
  def weight(self) -> float: ...

  @property
  def start_step(self) -> int: ...

  def init(self, key: jax.Array, model: EncoderConfig) -> dict[str, Any]: ...

  def corrupt(
    self, keys_G: jax.Array, rows: Rows, model: EncoderConfig
  ) -> tuple[Rows, dict[str, jax.Array]]: ...

  @staticmethod
  def losses(
    objectives: Mapping[str, Any],
    params: Any,
    encode: Callable[..., Any],
    rows: Mapping[str, Rows],
    model: EncoderConfig,
    context: Context,
  ) -> LossSum: ...


def all_losses(
  objectives: Mapping[str, Objective],
  params: Any,
  encode: Callable[..., Any],
  rows: Mapping[str, Rows],
  model: EncoderConfig,
  context: Context,
) -> LossSum:
  """The losses of all objectives.

  Args:
    objectives: by name.
    params: "embed", "layers", "heads".
    encode: (params, rows, num_layers=, read=) -> hidden states, see
      encoder.encode.
    rows: of each objective, as its `corrupt` gave them.
    model: the encoder's shapes.
    context: see Context.
  """
  total, metrics = jnp.zeros(()), Sums()
  for kind in dict.fromkeys(map(type, objectives.values())):
    own = {name: o for name, o in objectives.items() if type(o) is kind}
    first = next(iter(own.values()))
    part = first.losses(
      own, params, encode, {name: rows[name] for name in own}, model, context
    )
    total += part.sum
    metrics |= part.metrics
  return LossSum(total, metrics)
