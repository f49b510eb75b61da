"""XlCo: a sentence must find its translation among many others.

The query side of a pair goes through the trained encoder, the key side
through its moving average; both stop at `layer`. Negatives are the newest K
keys of earlier updates, held in a queue, and, if asked, the other keys of
this batch.

Chi et al., NAACL 2021, "Cross-lingual Contrastive Learning"; where the released
code (microsoft/unilm, folder infoxlm) differs, the defaults are the code's.

Letters: G groups, n items of a group, N items of all local groups, R rows of a
group, T tokens, D vector size.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.pooling import framing, members, pool, unit
from infoxlm_jax.objectives import masking
from infoxlm_jax.objectives.base import Context, LossSum, Rows, Sums
from infoxlm_jax.objectives.info_nce import info_nce


@dataclasses.dataclass(frozen=True)
class Contrast:
  """InfoNCE between the two sides of translation pairs.

  Defaults are the released code's, which differ from the paper's equation in
  having a temperature and a projection.

  Attributes:
    layer: after which layer the sentence vector is read (base 8).
    pooling: "first" (the item's <s>), "mean" (tokens other than <s> </s>) or
      "mean_all" (all its tokens).
    projection: multiply by a D x D matrix without bias, N(0, .02).
    normalize: L2-normalise queries and keys.
    temperature: divides the inner products.
    mask_prob: share of tokens masked on both sides before encoding.
    mask_specials: whether <s> and </s> may be masked.
    negatives: "queue", "queue+batch" or "batch".
    queue_size: K. Needed even with "batch", for the health metrics.
    queue_dtype: of the keys in the queue; "bfloat16" halves its memory.
    directions: "one": the query side looks for the key side. "both": each
      side of an item looks for the other (twice the encoding); the queue
      still takes the key side's keys only.
    stream: which stream of the batch it reads.
    weight: factor of the loss (lambda).
    start_step: updates before it counts; until then the key encoder is kept a
      copy of the encoder.
  """

  layer: int = 8
  pooling: str = "first"
  projection: bool = True
  normalize: bool = False
  temperature: float = 0.25
  mask_prob: float = 0.15
  mask_specials: bool = True
  negatives: str = "queue"
  queue_size: int = 131072
  queue_dtype: str = "float32"
  directions: str = "one"
  stream: str = "xlco"
  weight: float = 1.0
  start_step: int = 0
  contrastive: ClassVar[bool] = True

  def init(self, key: jax.Array, model: EncoderConfig) -> dict[str, Any]:
    if not self.projection:
      return {}
    shape = (model.hidden_size, model.hidden_size)
    return {"contrast": {"projection": 0.02 * jax.random.normal(key, shape)}}

  def key_params(self, params: Any) -> dict[str, Any]:
    """The part of the parameters that a key depends on."""
    part = {
      "embed": params["embed"],
      "layers": jax.tree.map(lambda x: x[: self.layer], params["layers"]),
      "heads": {},
    }
    if self.projection:
      part["heads"] = {"contrast": params["heads"]["contrast"]}
    return part

  def corrupt(
    self, keys_G: jax.Array, rows: Rows, model: EncoderConfig
  ) -> tuple[Rows, dict[str, jax.Array]]:
    """Masks both sides independently; adds what pooling needs.

    rows: {"query": rows, "key": rows, "items": [G, n]}; the n-th item of a
    group has segment n + 1 on both sides. Of "items" (the languages of each)
    only the shape is used: a group's segments do not tell a static shape.
    """
    sides = {}
    for i, side in enumerate(("query", "key")):
      side_rows = dict(rows[side])
      tokens = side_rows["tokens"]
      # Pooling goes by what a token is, not by what masking made of it.
      side_rows["framing"] = framing(tokens, model.ids)
      if self.mask_prob:
        keys = jax.vmap(
          lambda key, i=i: jax.random.split(jax.random.fold_in(key, i))
        )(keys_G)
        drawn = masking.select(
          keys[:, 0],
          side_rows,
          self.mask_prob,
          () if self.mask_specials else model.ids.special,
        )
        side_rows["tokens"] = masking.corrupt(
          keys[:, 1], tokens, drawn, model.ids
        )
      sides[side] = side_rows
    sides["items"] = rows["items"]
    terms = rows["items"].size * len(self.encoded)
    return sides, {"terms": jnp.asarray(terms)}

  @property
  def encoded(self) -> tuple[str, ...]:
    """The sides that look for the other one, by the trained encoder."""
    return ("query", "key") if self.directions == "both" else ("query",)

  def keys(
    self, key_params: Any, encode: Callable[..., Any], rows: Rows
  ) -> jax.Array:
    """Keys of all items [directions, N, D], without gradient."""
    sides = ("key", "query")[: len(self.encoded)]
    vectors = [self._vectors(key_params, encode, rows, s) for s in sides]
    return jax.lax.stop_gradient(jnp.stack(vectors))

  @staticmethod
  def losses(
    objectives: Mapping[str, "Contrast"],
    params: Any,
    encode: Callable[..., Any],
    rows: Mapping[str, Rows],
    model: EncoderConfig,
    context: Context,
  ) -> LossSum:
    """Sum over items of -log p(own key | own key and the negatives)."""
    del model
    ((name, own),) = objectives.items()  # a step has one queue
    assert context.keys is not None and context.batch_keys is not None
    total, metrics = jnp.zeros(()), Sums()
    for direction, side in enumerate(own.encoded):
      q_ND = own._vectors(params, encode, rows[name], side)
      part = info_nce(
        q_ND,
        context._replace(
          keys=context.keys[direction],
          batch_keys=context.batch_keys[direction],
        ),
        temperature=own.temperature,
        negatives_from=own.negatives,
        queue_size=own.queue_size,
      )
      total += part.sum
      metrics = _add(metrics, part.metrics)
    return LossSum(
      total * context.factor(name),
      {f"{name}/{metric}": value for metric, value in metrics.items()},
    )

  def _vectors(
    self, params: Any, encode: Callable[..., Any], rows: Rows, side: str
  ) -> jax.Array:
    own, num_items = rows[side], rows["items"].shape[-1]
    if self.pooling == "first":
      # The last layer need not compute what nobody reads.
      starts = (own["positions"] == 0) & (own["segments"] > 0)
      slots = masking.slots(starts, min(num_items, starts.shape[-1]))
      hidden = encode(params, own, num_layers=self.layer, read=slots.place)
      own = {
        "segments": jnp.where(
          slots.valid,
          jnp.take_along_axis(own["segments"], slots.place, axis=-1),
          0,
        ),
        "positions": jnp.zeros_like(slots.place),
      }
    else:
      hidden = encode(params, own, num_layers=self.layer)
    z = pool(hidden, members(own, num_items, self.pooling))
    z = z.reshape(-1, z.shape[-1])
    if self.projection:
      z = z @ params["heads"]["contrast"]["projection"]
    return unit(z) if self.normalize else z


def _add(a: Sums, b: Sums) -> Sums:
  return jax.tree.map(jnp.add, a, b) if a else b
