"""XlCo: a sentence must find its translation among many others (spec 1.2-1.4).

The query side of a pair goes through the trained encoder, the key side
through its moving average; both stop at `layer`. Negatives are the newest K
keys of earlier updates, held in a queue, and, if asked, the other keys of
this batch.

Letters: G groups, n items of a group, N items of all local groups, B items of
the whole batch, R rows, T tokens, D vector size, K local keys of the queue.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from infoxlm_jax import negatives
from infoxlm_jax.encoder import EncoderConfig
from infoxlm_jax.objectives import masking
from infoxlm_jax.objectives.objective import Context, LossSum, Rows, Sums

_NEVER = -1e30  # the logit of something that is not a negative


@dataclasses.dataclass(frozen=True)
class Contrast:
  """InfoNCE between the two sides of translation pairs.

  Defaults are the released code's, which differ from the paper's equation in
  having a temperature and a projection (spec D3, D4).

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
    directions: "one": the query side looks for the key side. "both": each
      side of an item looks for the other (twice the encoding); the queue
      still takes the key side's keys only.
    stream: which stream of the batch it reads.
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
  directions: str = "one"
  stream: str = "xlco"
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
      side_rows["special"] = tokens < masking.NUM_SPECIAL
      if self.mask_prob:
        keys = jax.vmap(
          lambda key, i=i: jax.random.split(jax.random.fold_in(key, i))
        )(keys_G)
        drawn = masking.select(
          keys[:, 0], side_rows, self.mask_prob, self.mask_specials
        )
        side_rows["tokens"] = masking.corrupt(
          keys[:, 1], tokens, drawn, model.vocab_size
        )
      sides[side] = side_rows
    sides["items"] = rows["items"]
    terms = rows["items"].size * self._num_directions
    return sides, {"terms": jnp.asarray(terms)}

  @property
  def _num_directions(self) -> int:
    return 2 if self.directions == "both" else 1

  def keys(
    self, key_params: Any, encode: Callable[..., Any], rows: Rows
  ) -> jax.Array:
    """Keys of all items [directions, N, D], without gradient."""
    sides = ("key", "query")[: self._num_directions]
    vectors = [self._vectors(key_params, encode, rows, s) for s in sides]
    return jax.lax.stop_gradient(jnp.stack(vectors))

  def loss(
    self,
    params: Any,
    encode: Callable[..., Any],
    rows: Rows,
    model: EncoderConfig,
    context: Context,
  ) -> LossSum:
    """Sum over items of -log p(own key | own key and the negatives)."""
    del model
    sides = ("query", "key")[: self._num_directions]
    assert context.keys is not None and context.batch_keys is not None
    total = LossSum(jnp.zeros(()), {})
    for direction, side in enumerate(sides):
      q_ND = self._vectors(params, encode, rows, side)
      part = info_nce(
        q_ND,
        context._replace(
          keys=context.keys[direction],
          batch_keys=context.batch_keys[direction],
        ),
        temperature=self.temperature,
        negatives_from=self.negatives,
        queue_size=self.queue_size,
      )
      total = LossSum(total.sum + part.sum, _add(total.metrics, part.metrics))
    return total

  def _vectors(
    self, params: Any, encode: Callable[..., Any], rows: Rows, side: str
  ) -> jax.Array:
    hidden_GRTD = encode(params, rows[side], num_layers=self.layer)
    num_items = rows["items"].shape[-1]
    z = pool(hidden_GRTD, rows[side], num_items, self.pooling)
    z = z.reshape(-1, z.shape[-1])
    if self.projection:
      z = z @ params["heads"]["contrast"]["projection"]
    return _unit(z) if self.normalize else z


def pool(
  hidden_GRTD: jax.Array, rows: Any, num_items: int, pooling: str
) -> jax.Array:
  """One float32 vector an item [G, num_items, D], as a product in the group.

  A group's items are few, so a small matrix of weights [n, R T] is cheaper
  than scatters, and never leaves the group's device.
  """
  segments_GRT = rows["segments"]
  if pooling == "first":
    weight_GRT = rows["positions"] == 0
  elif pooling == "mean":
    weight_GRT = ~rows["special"]
  elif pooling == "mean_all":
    weight_GRT = jnp.ones_like(segments_GRT, bool)
  else:
    raise ValueError(f"pooling={pooling!r} is not first, mean or mean_all")
  item_n = 1 + jnp.arange(num_items)
  mine_GnRT = segments_GRT[:, None] == item_n[:, None, None]
  mine_GnRT &= weight_GRT[:, None]
  mine_GnRT = mine_GnRT.astype(jnp.float32)
  count_Gn = jnp.sum(mine_GnRT, axis=(-2, -1))
  vectors_GnD = jnp.einsum(
    "gnrt,grtd->gnd",
    mine_GnRT.astype(hidden_GRTD.dtype),
    hidden_GRTD,
    preferred_element_type=jnp.float32,
  )
  return vectors_GnD / jnp.maximum(count_Gn, 1.0)[..., None]


def info_nce(
  q_ND: jax.Array,
  context: Context,
  *,
  temperature: float,
  negatives_from: str,
  queue_size: int,
) -> LossSum:
  """-log softmax of each query's own key, and what tells whether it is real.

  Runs on one device's part of the batch and of the queue; queries are sent to
  every device's part of the queue and back as sums, so traffic is the size of
  the batch, never of the queue.
  """
  k_ND, batch_keys_BD = context.keys, context.batch_keys
  assert k_ND is not None and batch_keys_BD is not None
  own_N = context.first + jnp.arange(q_ND.shape[0])
  is_own_NB = own_N[:, None] == jnp.arange(batch_keys_BD.shape[0])
  own_logit_N = jnp.sum(q_ND * k_ND, axis=-1) / temperature
  batch_NB = q_ND @ batch_keys_BD.T / temperature
  others_NB = jnp.where(is_own_NB, _NEVER, batch_NB)
  parts = [own_logit_N[:, None]]
  if "queue" in negatives_from:
    lse_N = _queue_logsumexp(q_ND, context, temperature, queue_size)
    parts.append(lse_N[:, None])
  if "batch" in negatives_from:
    parts.append(others_NB)
  log_total_N = jax.nn.logsumexp(jnp.concatenate(parts, axis=1), axis=1)
  loss = jnp.sum(log_total_N - own_logit_N)
  metrics = _health(q_ND, context, own_logit_N, others_NB)
  count = jnp.asarray(q_ND.shape[0], jnp.float32)
  return LossSum(loss, {"loss": (loss, count), **metrics})


def _queue_logsumexp(
  q_ND: jax.Array, context: Context, temperature: float, queue_size: int
) -> jax.Array:
  """log sum exp over the whole queue, of this device's queries [N]."""
  axes, queue = context.axes, context.queue
  assert queue is not None
  q_all, device, devices = q_ND, jnp.zeros((), jnp.int32), 1
  if axes:
    q_all = jax.lax.all_gather(q_ND, axes, tiled=True)
    device, devices = jax.lax.axis_index(axes), jax.lax.axis_size(axes)
  slots, local, dim = queue.keys.shape
  newest = negatives.is_newest(
    queue, queue_size, device * local, devices * local
  )
  logits = q_all @ queue.keys.reshape(-1, dim).T / temperature
  logits = jnp.where(newest.reshape(-1), logits, _NEVER)
  top = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
  if axes:
    top = jax.lax.pmax(top, axes)
  # exp of a hidden key underflows to zero beside any real one.
  top = jnp.maximum(top, _NEVER / 2)
  mass = jnp.sum(jnp.exp(logits - top[:, None]), axis=-1)
  if axes:
    mass = jax.lax.psum_scatter(mass, axes, tiled=True)
    top = jax.lax.dynamic_slice_in_dim(
      top, device * q_ND.shape[0], q_ND.shape[0]
    )
  known = mass > 0
  return jnp.where(known, jnp.log(jnp.where(known, mass, 1.0)) + top, _NEVER)


def _health(
  q_ND: jax.Array,
  context: Context,
  own_logit_N: jax.Array,
  others_NB: jax.Array,
) -> Sums:
  """Measures that a collapsed encoder cannot pass.

  accuracy: own key above every other key of the batch. A tie counts as
    wrong, so constant vectors score 0. (The accuracy against the queue reads
    99 % for nearly constant vectors, which tell fresh keys from old ones.)
  spread: 1 - mean cosine of a query and the others' keys; 0 is collapse.
  queue_similarity_new / _old: mean cosine to the newest and oldest slot.
  """
  assert context.keys is not None and context.batch_keys is not None
  q_ND, own_logit_N, others_NB = jax.lax.stop_gradient(
    (q_ND, own_logit_N, others_NB)
  )
  k_ND, others = context.keys, context.batch_keys
  count = jnp.asarray(q_ND.shape[0], jnp.float32)
  batch = others.shape[0]
  q, k = _unit(q_ND), _unit(k_ND)
  positive = jnp.sum(q * k)
  to_all = jnp.sum(q @ jnp.sum(_unit(others), axis=0))
  mean_negative = (to_all - positive) / max(batch - 1, 1)
  best_N = jnp.max(others_NB, axis=-1)
  # Equal up to rounding is a tie, however the products were summed.
  hits = jnp.sum(own_logit_N > best_N + 1e-5 * jnp.abs(best_N))
  sums = {
    "accuracy": hits.astype(jnp.float32),
    "positive_similarity": positive,
    "spread": count - mean_negative,
    "chance": count / batch,
  }
  if context.queue is not None:
    queue = context.queue
    slots = queue.keys.shape[0]
    written = jnp.minimum(queue.pushes, slots)
    for name, age in (("new", 0), ("old", jnp.maximum(written - 1, 0))):
      slot = (queue.pushes - 1 - age) % slots
      mean_D = jnp.mean(_unit(queue.keys[slot]), axis=0)
      if context.axes:
        mean_D = jax.lax.pmean(mean_D, context.axes)
      sums[f"queue_similarity_{name}"] = jnp.sum(q @ mean_D)
  return {name: (value, count) for name, value in sums.items()}


def _unit(x: jax.Array) -> jax.Array:
  square = jnp.sum(x * x, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def _add(a: Sums, b: Sums) -> Sums:
  return jax.tree.map(jnp.add, a, b) if a else b
