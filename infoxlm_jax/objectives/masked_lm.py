"""Masked language modelling: MLM on blocks of text, TLM on pairs.

TLM (Conneau and Lample, 2019) is the same loss on a stream whose items are
translation pairs; there is no code of its own.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from infoxlm_jax import encoder
from infoxlm_jax.encoder_config import EncoderConfig
from infoxlm_jax.objectives import masking
from infoxlm_jax.objectives.objective import Context, LossSum, Rows


@dataclasses.dataclass(frozen=True)
class MaskedLM:
  """Cross-entropy of masked tokens, summed.

  Attributes:
    stream: which stream of the batch it reads.
    mask_prob: share of an item's tokens that become targets.
    mask_specials: whether <s> and </s> may (the released code: yes).
    mask_slots: targets a row may have; None: enough for the expected number
      and eight. Targets over it are left alone and counted ("overflow").
    logits_chunk: targets whose logits exist at one time. More are computed
      chunk by chunk, and again in the backward pass.
    weight: factor of the loss.
    start_step: updates before it counts.
  """

  stream: str = "mlm"
  mask_prob: float = 0.15
  mask_specials: bool = True
  mask_slots: int | None = None
  logits_chunk: int = 4096
  weight: float = 1.0
  start_step: int = 0
  contrastive: ClassVar[bool] = False

  def init(self, key: jax.Array, model: EncoderConfig) -> dict[str, Any]:
    return {"masked_lm": encoder.init_lm_head(key, model)}

  def corrupt(
    self, keys_G: jax.Array, rows: Rows, model: EncoderConfig
  ) -> tuple[Rows, dict[str, jax.Array]]:
    """Draws targets; rows that carry "targets" (-1: none) keep them.

    Returns rows with "tokens" corrupted and "slots" (place, valid, target),
    and counts: "terms" (targets) and "overflow" (drawn, but had no slot).
    """
    if "targets" in rows:
      targets, tokens = rows["targets"], rows["tokens"]
      slots = masking.slots(targets >= 0, rows["tokens"].shape[-1])
    else:
      targets = rows["tokens"]
      width = targets.shape[-1]
      num_slots = self.mask_slots or masking.default_slots(
        self.mask_prob, width
      )
      select_keys, corrupt_keys = _split(keys_G)
      drawn = masking.select(
        select_keys,
        rows,
        self.mask_prob,
        () if self.mask_specials else model.ids.special,
      )
      slots = masking.slots(drawn, num_slots)
      tokens = masking.corrupt(
        corrupt_keys,
        rows["tokens"],
        masking.within_budget(drawn, num_slots),
        model.ids,
      )
    target = jnp.take_along_axis(targets, slots.place, axis=-1)
    rows = {k: v for k, v in rows.items() if k != "targets"}
    rows |= {
      "tokens": tokens,
      "slots": {"place": slots.place, "valid": slots.valid, "target": target},
    }
    terms = jnp.sum(slots.valid)
    return rows, {"terms": terms, "overflow": slots.overflow}

  def loss(
    self,
    params: Any,
    encode: Callable[..., Any],
    rows: Rows,
    model: EncoderConfig,
    context: Context | None = None,
  ) -> LossSum:
    """Sum of -log p(target) in nats over the valid slots."""
    del context
    hidden_GRTD = encode(params, rows)
    slots = rows["slots"]
    # The head and the 250k-way softmax see masked positions only.
    hidden = jnp.take_along_axis(
      hidden_GRTD, slots["place"][..., None], axis=-2
    )
    flat = (
      hidden.reshape(-1, hidden.shape[-1]),
      slots["target"].reshape(-1),
      slots["valid"].reshape(-1),
    )

    def nll(
      x_BD: jax.Array, target_B: jax.Array, valid_B: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
      logits_BV = encoder.lm_logits(
        params["heads"]["masked_lm"], params["embed"]["token"], x_BD, model
      )
      chosen_B = jnp.take_along_axis(logits_BV, target_B[:, None], 1)[:, 0]
      nll_B = jax.nn.logsumexp(logits_BV, axis=-1) - chosen_B
      hit_B = chosen_B >= jnp.max(logits_BV, axis=-1)
      return (
        jnp.sum(jnp.where(valid_B, nll_B, 0.0)),
        jnp.sum(valid_B & hit_B).astype(jnp.float32),
      )

    total, hits = _in_chunks(nll, flat, self.logits_chunk)
    count = jnp.sum(slots["valid"]).astype(jnp.float32)
    return LossSum(total, {"loss": (total, count), "accuracy": (hits, count)})


def _in_chunks(
  function: Callable[..., Any], arrays: tuple[jax.Array, ...], chunk: int
) -> Any:
  """Sums function(*arrays) over chunks of the first axis, with remat."""
  size = arrays[0].shape[0]
  if size <= chunk:
    return function(*arrays)
  pad = -size % chunk

  def chunked(x: jax.Array) -> jax.Array:
    x = jnp.pad(x, [(0, pad)] + [(0, 0)] * (x.ndim - 1))  # False: not valid
    return x.reshape(-1, chunk, *x.shape[1:])

  def body(total: Any, piece: Any) -> tuple[Any, None]:
    part = jax.checkpoint(function)(*piece)
    return jax.tree.map(jnp.add, total, part), None

  pieces = tuple(chunked(x) for x in arrays)
  first = function(*(x[0] for x in pieces))
  rest = tuple(x[1:] for x in pieces)
  return jax.lax.scan(body, first, rest)[0]


def _split(keys_G: jax.Array) -> tuple[jax.Array, jax.Array]:
  both = jax.vmap(jax.random.split)(keys_G)
  return both[:, 0], both[:, 1]
