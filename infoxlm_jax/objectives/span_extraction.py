"""Answers as spans of tokens: SQuAD, MLQA, XQuAD, TyDiQA-GoldP."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from infoxlm_jax.errors import InputError
from infoxlm_jax.model import heads
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives import labelled
from infoxlm_jax.objectives.base import Encode, Rows, Tree
from infoxlm_jax.objectives.class_loss import cross_entropy
from infoxlm_jax.objectives.labelled import Labelled


@dataclasses.dataclass(frozen=True)
class SpanExtraction(Labelled):
  """The first and the last token of an item's answer (Devlin et al. 2019).

  Reads a padded stream: an item is a row. Labels [G, n, 2] are places in the
  row; `<s>`, place 0, where it holds no answer. The loss is the mean over
  starts and ends of -log softmax over the row's tokens, without its padding
  (transformers' sum includes it), and "accuracy" the share of both that are
  right.

  The head is that of transformers' ...ForQuestionAnswering: one linear map,
  without dropout.
  """

  head_dropout: float = 0.0

  def init(self, key: jax.Array, model: EncoderConfig) -> dict[str, Any]:
    own = jax.random.fold_in(key, 4)
    return {"question_answering": heads.init_linear(own, model.hidden_size, 2)}

  def scores(
    self, params: Tree, encode: Encode, rows: Rows, model: EncoderConfig
  ) -> jax.Array:
    """Logits of start and end, [G, R, T, 2]."""
    del model
    hidden_GRTD = encode(params, labelled.inputs(rows))
    x_GRTD = labelled.drop(hidden_GRTD, self.head_dropout, rows, 0)
    head = params["heads"]["question_answering"]
    return jnp.stack(heads.span_logits(head, x_GRTD), axis=-1)

  def nll(self, scores: jax.Array, rows: Rows) -> tuple[jax.Array, jax.Array]:
    labels_GR2 = rows["labels"]
    real_GRT = rows["segments"] > 0
    if labels_GR2.shape[:2] != real_GRT.shape[:2]:
      raise InputError(
        f"SpanExtraction reads the stream {self.stream!r}, which has"
        f" {labels_GR2.shape[1]} items in {real_GRT.shape[1]} rows of a group:"
        " it must be padded, with one item in a row"
      )
    masked = jnp.where(real_GRT[..., None], scores, -jnp.inf)
    return cross_entropy(jnp.swapaxes(masked, -1, -2), labels_GR2)
