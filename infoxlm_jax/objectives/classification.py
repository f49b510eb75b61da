"""Classes of texts and of pairs of texts: XNLI, PAWS-X."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from infoxlm_jax.model import heads, pooling
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives import labelled
from infoxlm_jax.objectives.base import Encode, Rows, Tree
from infoxlm_jax.objectives.class_loss import cross_entropy
from infoxlm_jax.objectives.labelled import Labelled


@dataclasses.dataclass(frozen=True)
class Classification(Labelled):
  """The class of each item, from its first token.

  The head is XLM-R's in transformers: dropout, linear, tanh, dropout, linear.
  Other encoders get the same head.

  Attributes besides Labelled's:
    classes: number of labels.
  """

  classes: int = 2

  def check(self, name: str, model: EncoderConfig) -> None:
    del model
    labelled.check_classes(name, type(self).__name__, self.classes)

  def init(self, key: jax.Array, model: EncoderConfig) -> dict[str, Any]:
    d = model.hidden_size
    dense, out = jax.random.split(jax.random.fold_in(key, 3))
    return {
      "classification": {
        "dense": heads.init_linear(dense, d, d),
        "out": heads.init_linear(out, d, self.classes),
      }
    }

  def scores(
    self, params: Tree, encode: Encode, rows: Rows, model: EncoderConfig
  ) -> jax.Array:
    """Logits [G, n, C]."""
    del model
    hidden_GRTD = encode(params, labelled.inputs(rows))
    first_GnD = pooling.first_tokens(
      hidden_GRTD, rows["segments"], rows["labels"].shape[1]
    )
    return heads.class_logits(
      params["heads"]["classification"],
      first_GnD.astype(jnp.float32),
      lambda x, site: labelled.drop(x, self.head_dropout, rows, site),
    )

  def nll(self, scores: jax.Array, rows: Rows) -> tuple[jax.Array, jax.Array]:
    return cross_entropy(scores, rows["labels"])
