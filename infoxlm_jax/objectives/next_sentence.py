"""BERT's objective: masked tokens, and whether the second segment follows.

Both losses come from one pass of the encoder over the same masked rows
(Devlin et al. 2019, appendix A.2: the sum of the mean masked-LM likelihood and
the mean next-sentence likelihood).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from infoxlm_jax.errors import InputError
from infoxlm_jax.model import heads
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives import masked_lm
from infoxlm_jax.objectives.base import (
  Context,
  Cost,
  LossSum,
  Rows,
  Sums,
  Targets,
  Tree,
  Unshard,
)
from infoxlm_jax.objectives.class_loss import classify
from infoxlm_jax.objectives.masked_lm import MaskedLM


@dataclasses.dataclass(frozen=True)
class NextSentence(MaskedLM):
  """MLM and next-sentence prediction on a NextSentenceStream.

  The loss of a pair weighs as many masked tokens as an update has for each
  pair, on average. So with either normalization of the step the loss is the
  mean over masked tokens plus `next_weight` times the mean over pairs, times
  what the step gives masked tokens. "terms" are masked tokens. Metrics, besides
  MaskedLM's: "next_loss" in nats and "next_accuracy", means over pairs.

  Attributes besides MaskedLM's:
    next_weight: factor of the next-sentence loss (BERT: 1).
  """

  stream: str = "bert"
  next_weight: float = 1.0

  def check(self, name: str, model: EncoderConfig) -> None:
    super().check(name, model)
    if model.type_vocab_size < 2:
      raise InputError(
        f"objective {name!r}: NextSentence tells two segments apart, the model"
        f" has type_vocab_size = {model.type_vocab_size}; set"
        " EncoderConfig.type_vocab_size = 2"
      )

  def init(self, key: jax.Array, model: EncoderConfig) -> dict[str, Any]:
    d = model.hidden_size
    pooler_key, next_key = jax.random.split(jax.random.fold_in(key, 2))
    return super().init(key, model) | {
      "pooler": heads.init_linear(pooler_key, d, d),
      "next_sentence": heads.init_linear(next_key, d, 2),
    }

  def corrupt(
    self, keys_G: jax.Array, rows: Rows, model: EncoderConfig
  ) -> tuple[Rows, dict[str, jax.Array]]:
    """See MaskedLM; rows keep their "labels" [groups, rows]."""
    if "labels" not in rows:
      raise InputError(
        f"NextSentence reads the stream {self.stream!r}, which does not say"
        " whether the second segment follows: it must be a NextSentenceStream"
      )
    return super().corrupt(keys_G, rows, model)

  def targets(
    self,
    params: Tree,
    state: Any,
    specs: Any,
    rows: Rows,
    unshard: Unshard,
    axes: tuple[str, ...],
  ) -> Targets:
    """Masked tokens for each pair, over all devices and microbatches."""
    del params, state, specs, unshard
    tokens = jnp.sum(rows["slots"]["valid"]).astype(jnp.float32)
    pairs = jnp.asarray(rows["labels"].size, jnp.float32)
    if axes:
      tokens, pairs = jax.lax.psum((tokens, pairs), axes)
    return Targets({}, {"tokens_per_pair": tokens / pairs})

  def cost(
    self, model: EncoderConfig, stream: Any, devices: int, microbatches: int
  ) -> Cost:
    own = super().cost(model, stream, devices, microbatches)
    d = model.hidden_size
    pooler = 3 * 2 * stream.rows * d * (d + 2)
    return own._replace(flops=own.flops + pooler, joins_rows=False)

  @staticmethod
  def losses(
    objectives: Mapping[str, Any],
    params: Any,
    encode: Callable[..., Any],
    rows: Mapping[str, Rows],
    model: EncoderConfig,
    context: Context,
  ) -> LossSum:
    """The sum of both losses, see the class."""
    total, metrics = jnp.zeros(()), Sums()
    for name, objective in objectives.items():
      own = {k: v for k, v in rows[name].items() if k != "labels"}
      place = own.pop("slots")["place"]
      first = jnp.zeros((*place.shape[:-1], 1), place.dtype)
      read = jnp.concatenate([first, place], axis=-1)
      hidden = encode(params, own, read=read)
      words = masked_lm.score(
        {name: objective},
        params,
        hidden[..., 1:, :].reshape(-1, hidden.shape[-1]),
        {name: rows[name]},
        model,
        context,
      )
      first_B1D = hidden[..., 0, :].reshape(-1, 1, hidden.shape[-1])
      own_heads = params["heads"]
      pooled_BD = heads.pooled(
        own_heads["pooler"], first_B1D.astype(jnp.float32)
      )
      next_sum, next_metrics = classify(
        heads.next_sentence_logits(own_heads["next_sentence"], pooled_BD),
        rows[name]["labels"].reshape(-1),
      )
      each = context.targets[name].shared["tokens_per_pair"]
      factor = context.factor(name) * objective.next_weight * each
      total += words.sum + factor * next_sum
      metrics |= words.metrics
      metrics |= {f"{name}/next_{k}": v for k, v in next_metrics.items()}
    return LossSum(total, metrics)
