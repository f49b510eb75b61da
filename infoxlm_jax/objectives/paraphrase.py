"""Cross-lingual paraphrase classification: do two sentences mean the same?

One of them stands after the other in one sequence, and the hidden state of its
`<s>` tells whether they are translations (Huang et al. 2019, Unicoder). The
stream makes the negatives (data/paraphrase_stream.py). The classifier is one
linear map, without the tanh layer of BERT's pooler.

Letters: G groups, R rows of a group, T tokens of a row, n items of a group,
D hidden size.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from infoxlm_jax.errors import InputError
from infoxlm_jax.model import heads, pooling
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.flops import encode_flops
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
from infoxlm_jax.objectives.class_loss import classify


@dataclasses.dataclass(frozen=True)
class Paraphrase(Objective):
  """Cross-entropy of whether a pair is a translation, summed over pairs.

  "terms" are pairs. Metrics: "loss" in nats and "accuracy", means over pairs.

  Attributes:
    stream: which stream of the batch it reads, a ParaphraseStream.
    weight: factor of the loss.
    start_step: updates before it counts.
  """

  stream: str = "paraphrase"
  weight: float = 1.0
  start_step: int = 0

  def init(self, key: jax.Array, model: EncoderConfig) -> dict[str, Any]:
    own = jax.random.fold_in(key, 4)
    return {"paraphrase": heads.init_linear(own, model.hidden_size, 2)}

  def corrupt(
    self, keys_G: jax.Array, rows: Rows, model: EncoderConfig
  ) -> tuple[Rows, dict[str, jax.Array]]:
    """The rows as they are; nothing is masked."""
    del keys_G, model
    if "labels" not in rows:
      raise InputError(
        f"Paraphrase reads the stream {self.stream!r}, which does not say"
        " whether a pair is a translation: it must be a ParaphraseStream"
      )
    return rows, {"terms": jnp.asarray(rows["labels"].size)}

  def cost(
    self, model: EncoderConfig, stream: Any, devices: int, microbatches: int
  ) -> Cost:
    del devices, microbatches
    layers = encode_flops(
      model, stream.rows, stream.row_length, model.num_layers
    )
    head = 2 * stream.batch * model.hidden_size * 2
    return Cost(3 * (layers + head), model.num_layers, 0, False)

  @staticmethod
  def losses(
    objectives: Mapping[str, "Paraphrase"],
    params: Tree,
    encode: Encode,
    rows: Mapping[str, Rows],
    model: EncoderConfig,
    context: Context,
  ) -> LossSum:
    """See the class."""
    del model
    total, metrics = jnp.zeros(()), Sums()
    for name in objectives:
      own = {k: v for k, v in rows[name].items() if k != "labels"}
      labels_Gn = rows[name]["labels"]
      first_GnD = pooling.first_tokens(
        encode(params, own), own["segments"], labels_Gn.shape[-1]
      )
      logits_Gn2 = heads.pair_logits(
        params["heads"]["paraphrase"], first_GnD.astype(jnp.float32)
      )
      nll, own_metrics = classify(
        logits_Gn2.reshape(-1, 2), labels_Gn.reshape(-1)
      )
      total += context.factor(name) * nll
      metrics |= {f"{name}/{k}": v for k, v in own_metrics.items()}
    return LossSum(total, metrics)
