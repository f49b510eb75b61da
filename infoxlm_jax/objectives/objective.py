"""What every objective provides; the step knows nothing else about them.

An objective is a frozen dataclass of its options with four pure methods:

  init(key, model)            -> parameters of its heads, by head name
  corrupt(keys, rows, model)  -> the stream with masks drawn, and counts:
                                 "terms" of its loss (known before the loss,
                                 so that any normalisation needs only one
                                 backward), others are reported
  loss(params, encode, rows, context) -> LossSum
  stream                      which stream of the batch it reads
  weight, start_step          factor of its loss, 0 before that update

A contrastive one (`contrastive = True`) has `keys(...)`, `key_params(params)`
and a queue besides; see contrast.py.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

import jax

from infoxlm_jax.encoder_config import EncoderConfig
from infoxlm_jax.negatives import Queue

Sums = dict[str, tuple[jax.Array, jax.Array]]  # name -> (sum, weight)
Rows = Any  # the arrays of a stream: nested dicts


class LossSum(NamedTuple):
  """A loss as a sum over its terms, and metrics as (sum, weight) pairs.

  Sums, never means, cross microbatches and devices.
  """

  sum: jax.Array
  metrics: Sums


class Context(NamedTuple):
  """What a loss may see beyond its rows.

  Attributes:
    keys: this microbatch's keys, in its items' order [directions, n, D].
    batch_keys: the whole update's keys, all devices' [directions, batch, D].
    first: index in the batch of this microbatch's first item.
    queue: this device's part of the queue.
    axes: mesh axes that the batch and the queue are split over.
  """

  keys: jax.Array | None = None
  batch_keys: jax.Array | None = None
  first: jax.Array | int = 0
  queue: Queue | None = None
  axes: tuple[str, ...] = ()


class Objective(Protocol):
  """See the module."""

  contrastive: ClassVar[bool]

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

  def loss(
    self,
    params: Any,
    encode: Callable[..., Any],
    rows: Any,
    model: EncoderConfig,
    context: Context,
  ) -> LossSum: ...
