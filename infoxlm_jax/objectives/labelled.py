"""The base of the objectives of fine-tuning: a mean over labels.

Letters: G groups of this device, n items of a group, R rows of a group, T
tokens, D hidden size, C classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from infoxlm_jax.errors import InputError
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.flops import encode_flops
from infoxlm_jax.model.layers import dropout
from infoxlm_jax.objectives.base import (
  Context,
  Cost,
  Encode,
  LossSum,
  Objective,
  Rows,
  Sums,
  Tree,
)

Params = Mapping[str, Any]
_HEAD = 0x68656164  # random numbers apart from those of the encoder's dropout


@dataclasses.dataclass(frozen=True)
class Labelled(Objective):
  """Reads a LabelledStream; its loss is the mean over labels, in nats.

  A derived class gives `init`, `scores` and `nll`.

  Attributes:
    stream: of the examples.
    head_dropout: rate before the linear maps of the head.
  """

  stream: str = "examples"
  head_dropout: float = 0.1
  weight: float = 1.0
  start_step: int = 0

  def scores(
    self, params: Tree, encode: Encode, rows: Rows, model: EncoderConfig
  ) -> jax.Array:
    """What the head gives: of every item [G, n, C] or token [G, R, T, C].

    Dropout is applied where rows have "dropout_keys".
    """
    raise NotImplementedError

  def nll(self, scores: jax.Array, rows: Rows) -> tuple[jax.Array, jax.Array]:
    """-log p(label) and whether the best class is right, 0 without a label.

    Any two arrays of one shape.
    """
    raise NotImplementedError

  def labels(self, rows: Rows) -> jax.Array:
    """The labels of rows; below 0 where there is none."""
    labels: jax.Array = rows["labels"]
    return labels

  def corrupt(
    self, keys_G: jax.Array, rows: Rows, model: EncoderConfig
  ) -> tuple[Rows, dict[str, jax.Array]]:
    """The rows as they are, and their number of labels as "terms"."""
    del keys_G, model
    return rows, {"terms": jnp.sum(self.labels(rows) >= 0)}

  def cost(
    self, model: EncoderConfig, stream: Any, devices: int, microbatches: int
  ) -> Cost:
    del devices, microbatches
    layers = encode_flops(
      model, stream.rows, stream.row_length, model.num_layers
    )
    return Cost(3 * layers, model.num_layers, 0, False)

  @staticmethod
  def losses(
    objectives: Mapping[str, Any],
    params: Tree,
    encode: Encode,
    rows: Mapping[str, Rows],
    model: EncoderConfig,
    context: Context,
  ) -> LossSum:
    """Sums over labels; metrics are "loss" and "accuracy", means over them."""
    total, metrics = jnp.zeros(()), Sums()
    for name, objective in objectives.items():
      own = rows[name]
      nll, right = objective.nll(
        objective.scores(params, encode, own, model), own
      )
      loss = jnp.sum(nll)
      count = jnp.sum(objective.labels(own) >= 0).astype(jnp.float32)
      total += context.factor(name) * loss
      metrics[f"{name}/loss"] = (loss, count)
      metrics[f"{name}/accuracy"] = (jnp.sum(right), count)
    return LossSum(total, metrics)


def inputs(rows: Rows) -> Rows:
  """The rows that the encoder reads: without labels."""
  return {k: v for k, v in rows.items() if not k.endswith("labels")}


def drop(x: jax.Array, rate: float, rows: Rows, site: int) -> jax.Array:
  """Dropout of a head's input [G, B, ...], the same on every mesh.

  Args:
    x: of each group.
    rate: part of the numbers that become 0.
    rows: without "dropout_keys" [G, R] nothing is dropped.
    site: number of the place in the head.
  """
  keys_GR = rows.get("dropout_keys")
  if keys_GR is None or not rate:
    return x
  keys_G = jax.vmap(jax.random.fold_in, (0, None))(keys_GR[:, 0], _HEAD)
  return dropout(x, rate, keys_G, site)


def check_classes(name: str, kind: str, classes: int) -> None:
  """Raises InputError where there is nothing to tell apart."""
  if classes < 2:
    raise InputError(
      f"objective {name!r}: {kind}.classes = {classes}: there must be at least"
      " 2 labels to tell apart"
    )
