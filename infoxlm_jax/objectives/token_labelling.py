"""Classes of tokens: named entities, parts of speech."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from infoxlm_jax.model import heads
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives import labelled
from infoxlm_jax.objectives.base import Encode, Rows, Tree
from infoxlm_jax.objectives.class_loss import cross_entropy
from infoxlm_jax.objectives.labelled import Labelled


@dataclasses.dataclass(frozen=True)
class TokenLabelling(Labelled):
  """The class of each token that has one, in "token_labels" of the rows.

  The head is that of transformers' models: dropout, linear. A token's label is
  its class plus one, 0 where it has none: the pieces of a word after its first.

  Attributes besides Labelled's:
    classes: number of labels.
  """

  classes: int = 2

  def check(self, name: str, model: EncoderConfig) -> None:
    del model
    labelled.check_classes(name, type(self).__name__, self.classes)

  def init(self, key: jax.Array, model: EncoderConfig) -> dict[str, Any]:
    return {
      "token_classification": heads.init_linear(
        jax.random.fold_in(key, 4), model.hidden_size, self.classes
      )
    }

  def labels(self, rows: Rows) -> jax.Array:
    labels: jax.Array = rows["token_labels"] - 1
    return labels

  def corrupt(
    self, keys_G: jax.Array, rows: Rows, model: EncoderConfig
  ) -> tuple[Rows, dict[str, jax.Array]]:
    """As Labelled's; where an item was cut, its `</s>` has no label."""
    ends = rows["tokens"] == model.ids.eos
    own = jnp.where(ends, 0, rows["token_labels"])
    return super().corrupt(keys_G, rows | {"token_labels": own}, model)

  def scores(
    self, params: Tree, encode: Encode, rows: Rows, model: EncoderConfig
  ) -> jax.Array:
    """Logits [G, R, T, C]."""
    del model
    hidden_GRTD = encode(params, labelled.inputs(rows))
    hidden_GRTD = labelled.drop(hidden_GRTD, self.head_dropout, rows, 0)
    return heads.token_logits(
      params["heads"]["token_classification"], hidden_GRTD
    )

  def nll(self, scores: jax.Array, rows: Rows) -> tuple[jax.Array, jax.Array]:
    return cross_entropy(scores, self.labels(rows))
