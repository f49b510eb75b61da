"""Masked language modelling: MLM on blocks of text, TLM on pairs.

TLM (Conneau and Lample, 2019) is the same loss on a stream whose items are
translation pairs; there is no code of its own.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from infoxlm_jax.errors import InputError
from infoxlm_jax.model import embedding, encoder
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.flops import encode_flops
from infoxlm_jax.objectives import masking
from infoxlm_jax.objectives.base import (
  Context,
  Cost,
  LossSum,
  Objective,
  Rows,
  Sums,
)
from infoxlm_jax.objectives.identity import added_option


@dataclasses.dataclass(frozen=True)
class MaskedLM(Objective):
  """Cross-entropy of masked tokens, summed.

  Attributes:
    stream: which stream of the batch it reads.
    mask_prob: share of an item's tokens that become targets.
    mask_specials: whether <s> and </s> may (the released code: yes).
    mask_slots: targets a row may have; None: enough for the expected number
      and eight (for all tokens where targets come ready-made). Targets over
      it are left alone and counted ("overflow").
    logits_chunk: targets of a device whose logits exist at one time.
    weight: factor of the loss.
    start_step: updates before it counts.
    frequency_power: targets of an item are drawn in proportion to n^-power, n
      being how often the token occurs; 0: all alike. XLM has .5 (Conneau and
      Lample 2019, section 5.1). The stream must have frequencies = True.
    random_mask: let random replacement draw <mask> (the released code).
  """

  stream: str = "mlm"
  mask_prob: float = 0.15
  mask_specials: bool = True
  mask_slots: int | None = None
  logits_chunk: int = 4096
  weight: float = 1.0
  start_step: int = 0
  frequency_power: float = added_option(0.0)
  # May change on the way: it is not part of a run's identity.
  random_mask: bool = dataclasses.field(default=False, repr=False)
  predicts_words: ClassVar[bool] = True

  def check(self, name: str, model: EncoderConfig) -> None:
    if self.frequency_power < 0:
      raise InputError(
        f"{name}: MaskedLM.frequency_power = {self.frequency_power} must not be"
        " below 0"
      )

  def init(self, key: jax.Array, model: EncoderConfig) -> dict[str, Any]:
    return {"masked_lm": encoder.init_lm_head(key, model)}

  def corrupt(
    self, keys_G: jax.Array, rows: Rows, model: EncoderConfig
  ) -> tuple[Rows, dict[str, jax.Array]]:
    """Draws targets; rows that carry "targets" (-1: none) keep them.

    Returns rows with "tokens" corrupted and "slots" (place, valid, target; and
    language where the rows have "languages"), and counts: "terms" (targets) and
    "overflow" (drawn, but had no slot).
    """
    if self.frequency_power and "counts" not in rows:
      raise InputError(
        f"MaskedLM.frequency_power = {self.frequency_power} needs to know how"
        f" often tokens occur: set frequencies = True of the stream"
        f" {self.stream!r}"
      )
    if "targets" in rows:
      targets, tokens = rows["targets"], rows["tokens"]
      num_slots = self.mask_slots or tokens.shape[-1]
      slots = masking.slots(targets >= 0, num_slots)
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
        self.frequency_power,
      )
      slots = masking.slots(drawn, num_slots)
      tokens = masking.corrupt(
        corrupt_keys,
        rows["tokens"],
        masking.within_budget(drawn, num_slots),
        model.ids,
        self.random_mask,
      )
    at_slots = {"target": targets}
    if "languages" in rows:
      at_slots["language"] = rows["languages"]
    own = {
      name: jnp.take_along_axis(values, slots.place, axis=-1)
      for name, values in at_slots.items()
    }
    used = ("targets", "counts", "languages")
    rows = {k: v for k, v in rows.items() if k not in used}
    rows |= {
      "tokens": tokens,
      "slots": {"place": slots.place, "valid": slots.valid, **own},
    }
    terms = jnp.sum(slots.valid)
    return rows, {"terms": terms, "overflow": slots.overflow}

  def cost(
    self, model: EncoderConfig, stream: Any, devices: int, microbatches: int
  ) -> Cost:
    slots = self.mask_slots or masking.default_slots(
      self.mask_prob, stream.row_length
    )
    rows = -(-stream.rows // (devices * microbatches))
    targets = min(rows * slots, self.logits_chunk)
    d, v = model.hidden_size, model.padded_vocab
    head = 2 * stream.rows * slots * d * (v + d)
    layers = encode_flops(
      model, stream.rows, stream.row_length, model.num_layers, slots
    )
    return Cost(3 * (layers + head), model.num_layers, targets * v, True)

  @staticmethod
  def losses(
    objectives: Mapping[str, "MaskedLM"],
    params: Any,
    encode: Callable[..., Any],
    rows: Mapping[str, Rows],
    model: EncoderConfig,
    context: Context,
  ) -> LossSum:
    """Sums of -log p(target) in nats, in as few passes as can be.

    Rows of one length go through the encoder together, whatever stream they
    are of, and all targets through the head: larger products, each layer
    gathered once, one gradient of the table.
    """
    hidden_BD = _read(params, encode, rows)
    return score(objectives, params, hidden_BD, rows, model, context)


def score(
  objectives: Mapping[str, Any],
  params: Any,
  hidden_BD: jax.Array,
  rows: Mapping[str, Rows],
  model: EncoderConfig,
  context: Context,
) -> LossSum:
  """The losses of hidden vectors at the slots of every stream in turn.

  Of the objectives only `logits_chunk` is read; of rows only "slots".
  """
  head = params["heads"]["masked_lm"]
  slots = {name: rows[name]["slots"] for name in objectives}
  targets = embedding.Targets(
    jnp.concatenate([s["target"].reshape(-1) for s in slots.values()]),
    jnp.concatenate(
      [
        jnp.where(s["valid"].reshape(-1), context.factor(name), 0.0)
        for name, s in slots.items()
      ]
    ),
  )
  scores = embedding.score(
    encoder.lm_features(head, hidden_BD, model),
    encoder.lm_table(params, head),
    head["bias"],
    targets,
    model.vocab_size,
    min(o.logits_chunk for o in objectives.values()),
    context.vocab_axis,
  )
  metrics, start = Sums(), 0
  for name, own in slots.items():
    valid_B = own["valid"].reshape(-1)
    here = slice(start, start + valid_B.size)
    start += valid_B.size
    count = jnp.sum(valid_B).astype(jnp.float32)
    nll = jnp.sum(jnp.where(valid_B, scores.nll[here], 0.0))
    hits = jnp.sum(valid_B & scores.hit[here]).astype(jnp.float32)
    metrics |= {
      f"{name}/loss": (nll, count),
      f"{name}/accuracy": (hits, count),
      **nll_by_language(name, scores.nll[here], own, context.languages),
    }
  return LossSum(scores.sum, metrics)


def nll_by_language(
  name: str, nll_B: jax.Array, slots: Rows, languages: int
) -> Sums:
  """Sums of -log p(target) by language, and numbers of targets.

  Args:
    name: of the objective.
    nll_B: of every slot, in nats.
    slots: with "language" where there are any, see MaskedLM.corrupt.
    languages: that the slots tell apart.

  Returns:
    {"name/nll_by_language": two arrays [languages + 1]}, whose first numbers
    are of targets that are not counted; {} of slots without "language".
  """
  if "language" not in slots:
    return {}
  valid_B = slots["valid"].reshape(-1)
  of_B = slots["language"].reshape(-1)
  zeros = jnp.zeros(languages + 1)
  return {
    f"{name}/nll_by_language": (
      zeros.at[of_B].add(jnp.where(valid_B, nll_B, 0.0)),
      zeros.at[of_B].add(valid_B.astype(jnp.float32)),
    )
  }


def _read(
  params: Any, encode: Callable[..., Any], rows: Mapping[str, Rows]
) -> jax.Array:
  """Hidden vectors at the slots of every stream in turn [B, D]."""
  alike: dict[Any, list[str]] = {}
  for name, own in rows.items():
    shape = (own["tokens"].shape[-1], own["slots"]["place"].shape[-1])
    alike.setdefault((*shape, *sorted(own)), []).append(name)
  hidden: dict[str, jax.Array] = {}
  for names in alike.values():
    own = [rows[name] for name in names]
    # Rows of a group are the axis before the last.
    joined = {
      name: jnp.concatenate([r[name] for r in own], _row_axis(name))
      for name in own[0]
      if name != "slots"
    }
    places = [r["slots"]["place"] for r in own]
    hidden_GRPD = encode(params, joined, read=jnp.concatenate(places, axis=-2))
    ends = np.cumsum([p.shape[-2] for p in places])[:-1]
    parts = jnp.split(hidden_GRPD, ends, axis=-3)
    hidden |= dict(zip(names, parts, strict=True))
  return jnp.concatenate(
    [hidden[name].reshape(-1, hidden[name].shape[-1]) for name in rows]
  )


def _row_axis(name: str) -> int:
  return {"vectors": -3, "dropout_keys": -1}.get(name, -2)


def _split(keys_G: jax.Array) -> tuple[jax.Array, jax.Array]:
  both = jax.vmap(jax.random.split)(keys_G)
  return both[:, 0], both[:, 1]
