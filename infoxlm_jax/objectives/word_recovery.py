"""Cross-lingual word recovery: a sentence from the words of its translation.

Each word x_i of a sentence X becomes a mean of the embeddings of the words y_j
of its translation Y, weighted by a trainable attention:

  A_ij = softmax_j(W [x_i; y_j; x_i * y_j])        x^t_i = sum_j A_ij y_j

The encoder reads x^t in the place of X, without Y, and predicts the words of X
(Huang et al. 2019, Unicoder). The first third of W adds the same
number to all j, which the softmax takes away again, so it is no parameter here.

The paper leaves open, and here:

  - which words are predicted: all of X but special tokens (<unk> is one);
  - the direction: both sentences of a pair are recovered, each from the other,
    in one pass; attention of the encoder stays within a sentence;
  - what is mixed: rows of the table of tokens. Positions and language of X are
    added after it, as to any input;
  - `<s>` and `</s>`: they stay as they are, and words do not attend to them.

Letters: T tokens of a row, D hidden size.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from infoxlm_jax.model import embedding, encoder
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.flops import encode_flops
from infoxlm_jax.model.layers import INIT
from infoxlm_jax.objectives import masked_lm
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
from infoxlm_jax.objectives.token_alignment import halves, sides_of


@dataclasses.dataclass(frozen=True)
class WordRecovery(Objective):
  """Cross-entropy of the words of both sentences of pairs, summed.

  Attributes:
    stream: which stream of the batch it reads, of pairs. With
      `restart_positions` both sentences have `<s>`, and positions from 0.
    logits_chunk: targets of a device whose logits exist at one time.
    weight: factor of the loss.
    start_step: updates before it counts.
  """

  stream: str = "tlm"
  logits_chunk: int = 4096
  weight: float = 1.0
  start_step: int = 0

  def init(self, key: jax.Array, model: EncoderConfig) -> dict[str, Any]:
    other_key, product_key = jax.random.split(jax.random.fold_in(key, 3))
    size = (model.hidden_size,)
    return {
      "masked_lm": encoder.init_lm_head(key, model),
      "word_recovery": {
        "other": INIT(other_key, size),
        "product": INIT(product_key, size),
      },
    }

  def corrupt(
    self, keys_G: jax.Array, rows: Rows, model: EncoderConfig
  ) -> tuple[Rows, dict[str, jax.Array]]:
    """Draws nothing; adds "sides" and "slots", a slot for each token.

    The sentences of a pair become segments of their own. "terms" are words
    whose pair has words on the other side.
    """
    del keys_G
    tokens, segments = rows["tokens"], rows["segments"]
    half, sides = halves(rows, model.ids), sides_of(rows, model.ids)
    rows = {
      k: v for k, v in rows.items() if k in ("tokens", "positions", "types")
    }
    rows |= {
      "segments": jnp.where(half > 0, 2 * segments + half - 2, 0),
      "sides": sides,
    }
    valid = jnp.any(translations(rows), axis=-1)
    for special in model.ids.special:
      valid &= tokens != special
    place = jnp.broadcast_to(jnp.arange(tokens.shape[-1]), tokens.shape)
    slots = {"place": place, "valid": valid, "target": tokens}
    return rows | {"slots": slots}, {"terms": jnp.sum(valid)}

  def cost(
    self, model: EncoderConfig, stream: Any, devices: int, microbatches: int
  ) -> Cost:
    rows, length, d = stream.rows, stream.row_length, model.hidden_size
    layers = encode_flops(model, rows, length, model.num_layers)
    mixing = 2 * 2 * rows * length * length * d
    head = 2 * rows * length * d * (model.padded_vocab + d)
    targets = -(-rows // (devices * microbatches)) * length
    return Cost(
      3 * (layers + mixing + head),
      model.num_layers,
      min(targets, self.logits_chunk) * model.padded_vocab,
      False,
    )

  @staticmethod
  def losses(
    objectives: Mapping[str, "WordRecovery"],
    params: Tree,
    encode: Encode,
    rows: Mapping[str, Rows],
    model: EncoderConfig,
    context: Context,
  ) -> LossSum:
    """Sums of -log p(word) in nats."""
    total, metrics = jnp.zeros(()), Sums()
    for name, objective in objectives.items():
      own = rows[name]
      vectors = own.get("vectors")
      if vectors is None:
        table = params["embed"]["token"]
        vectors = embedding.lookup(table, own["tokens"], context.vocab_axis)
      mixed = mix(params["heads"]["word_recovery"], vectors, translations(own))
      is_word = (own["sides"] > 0)[..., None]
      hidden = encode(
        params, own | {"vectors": jnp.where(is_word, mixed, vectors)}
      )
      words = masked_lm.score(
        {name: objective},
        params,
        hidden.reshape(-1, hidden.shape[-1]),
        {name: own},
        model,
        context,
      )
      total += words.sum
      metrics |= words.metrics
    return LossSum(total, metrics)


def translations(rows: Rows) -> jax.Array:
  """Which tokens (last axis) are words of the other sentence of a pair.

  Args:
    rows: "segments", 2 n - 1 and 2 n of pair n, and "sides" [..., T].

  Returns:
    bool [..., T, T]; False wherever either token is not a word.
  """
  segments, sides = rows["segments"], rows["sides"]
  pair = (segments + 1) // 2
  same = pair[..., :, None] == pair[..., None, :]
  return same & (sides[..., :, None] + sides[..., None, :] == 3)


def mix(head: Tree, vectors: jax.Array, allowed: jax.Array) -> jax.Array:
  """x^t of each token [..., T, D]; 0 where none is allowed.

  Args:
    head: "other" [D] and "product" [D], the second and third part of W.
    vectors: of the table, x_i and y_j [..., T, D].
    allowed: the j that each i attends to, bool [..., T, T].
  """
  logits = jnp.einsum(
    "...id,...jd->...ij",
    vectors * head["product"] + head["other"],
    vectors,
    preferred_element_type=jnp.float32,
  )
  logits = jnp.where(allowed, logits, -1e30)
  weight = jnp.where(allowed, jax.nn.softmax(logits, axis=-1), 0.0)
  return jnp.einsum("...ij,...jd->...id", weight.astype(vectors.dtype), vectors)
