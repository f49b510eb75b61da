"""Denoising word alignment: a masked word points at its translation.

Which token translates which is labelled by the encoder itself, on the pair
before masking. The masked pair then has two losses in one pass: TLM, and the
pointer from each masked token that has a translation to it.

Chi et al., ACL 2021 (XLM-Align), as the released code has it (microsoft/unilm,
folder infoxlm, task `xlm_align`).

Letters: G groups, R rows of a group, T tokens of a row, P mask slots of a row,
D hidden size.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from infoxlm_jax.errors import InputError
from infoxlm_jax.model import embedding, encoder
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
  Targets,
  Tree,
  Unshard,
  map_microbatches,
)
from infoxlm_jax.objectives.masked_lm import MaskedLM, nll_by_language
from infoxlm_jax.objectives.token_alignment import (
  align,
  partners,
  sides_of,
  similarities,
)


@dataclasses.dataclass(frozen=True)
class WordAlignment(Objective):
  """TLM and denoising word alignment of the same masked pairs, summed.

  Attributes:
    layer: after which layer the tokens are compared to label them.
    normalizations: of columns and rows, in turn, of the similarities.
    rounds: of itermax; the first takes mutual best matches.
    stream: which stream of the batch it reads, of pairs `<s> a </s> b </s>`.
    mask_prob: share of a pair's tokens that are masked, both sentences alike.
    mask_specials: whether <s> and </s> may (the released code: yes).
    mask_slots: masked tokens that a row may have, see MaskedLM.
    logits_chunk: targets of a device whose logits exist at one time.
    weight: factor of both losses.
    start_step: updates before they count.
  """

  layer: int = 10
  normalizations: int = 2
  rounds: int = 2
  stream: str = "tlm"
  mask_prob: float = 0.15
  mask_specials: bool = True
  mask_slots: int | None = None
  logits_chunk: int = 4096
  weight: float = 1.0
  start_step: int = 0
  predicts_words: ClassVar[bool] = True

  def check(self, name: str, model: EncoderConfig) -> None:
    if not 1 <= self.layer <= model.num_layers:
      raise InputError(
        f"objective {name!r}: layer = {self.layer}; the model has layers 1 to"
        f" {model.num_layers}"
      )
    for option, least in (("normalizations", 0), ("rounds", 1)):
      if getattr(self, option) < least:
        raise InputError(
          f"objective {name!r}: {option} = {getattr(self, option)} must be at"
          f" least {least}"
        )

  def init(self, key: jax.Array, model: EncoderConfig) -> dict[str, Any]:
    size = model.hidden_size
    drawn = 0.02 * jax.random.normal(
      jax.random.fold_in(key, 1), (2, size, size)
    )
    return self._masked_lm.init(key, model) | {
      "word_alignment": {
        name: {"kernel": kernel, "bias": jnp.zeros(size)}
        for name, kernel in zip(("query", "key"), drawn, strict=True)
      }
    }

  def corrupt(
    self, keys_G: jax.Array, rows: Rows, model: EncoderConfig
  ) -> tuple[Rows, dict[str, jax.Array]]:
    """As MaskedLM's; adds "clean", the tokens before, and "sides".

    "terms" are TLM's; `targets` counts those of the alignment.
    """
    masked, counts = self._masked_lm.corrupt(keys_G, rows, model)
    sides = sides_of(rows, model.ids)
    return masked | {"clean": rows["tokens"], "sides": sides}, counts

  def targets(
    self,
    params: Tree,
    state: Any,
    specs: Any,
    rows: Rows,
    unshard: Unshard,
    axes: tuple[str, ...],
  ) -> Targets:
    """The place of each masked token's translation, -1 for none [M, G, R, P].

    Without dropout, and with the parameters that the update starts from.
    """
    del state, axes
    params, encode = unshard(params, specs["params"])

    def label(micro: Rows) -> jax.Array:
      clean = {
        k: v
        for k, v in micro.items()
        if k in ("segments", "positions", "types")
      } | {"tokens": micro["clean"]}
      hidden = encode(params, clean, num_layers=self.layer)
      partner = partners(
        align(
          similarities(hidden),
          micro["segments"],
          micro["sides"],
          self.normalizations,
          self.rounds,
        )
      )
      slots = micro["slots"]
      at = jnp.take_along_axis(partner, slots["place"], axis=-1)
      return jnp.where(slots["valid"], at, -1)

    places = jax.lax.stop_gradient(map_microbatches(label, rows))
    return Targets(places, None, terms=jnp.sum(places >= 0))

  def cost(
    self, model: EncoderConfig, stream: Any, devices: int, microbatches: int
  ) -> Cost:
    tlm = self._masked_lm.cost(model, stream, devices, microbatches)
    rows, length, d = stream.rows, stream.row_length, model.hidden_size
    labels = encode_flops(model, rows, length, self.layer)
    labels += 2 * rows * length * length * d
    # The pointer: keys of all tokens; the last layer computes all of them.
    full = encode_flops(model, rows, length, model.num_layers)
    pointer = 2 * rows * length * d * d
    return tlm._replace(
      flops=max(tlm.flops, 3 * full) + labels + 3 * pointer, joins_rows=False
    )

  @staticmethod
  def losses(
    objectives: Mapping[str, "WordAlignment"],
    params: Tree,
    encode: Encode,
    rows: Mapping[str, Rows],
    model: EncoderConfig,
    context: Context,
  ) -> LossSum:
    """Sums in nats: "loss" of the pointers, "tlm_loss" of the words."""
    total, metrics = jnp.zeros(()), Sums()
    for name, own in objectives.items():
      mine = rows[name]
      slots, target = mine["slots"], context.targets[name].each
      hidden_GRTD = encode(params, mine)
      read_GRPD = _at(hidden_GRTD, slots["place"])
      factor = context.factor(name)
      head = params["heads"]["masked_lm"]
      valid_B = slots["valid"].reshape(-1)
      words = embedding.score(
        encoder.lm_features(
          head, read_GRPD.reshape(-1, read_GRPD.shape[-1]), model
        ),
        encoder.lm_table(params, head),
        head["bias"],
        embedding.Targets(
          slots["target"].reshape(-1), jnp.where(valid_B, factor, 0.0)
        ),
        model.vocab_size,
        own.logits_chunk,
        context.vocab_axis,
      )
      allowed = _other_side(mine, slots["place"])
      pointer = params["heads"]["word_alignment"]
      nll, hit = point(pointer, read_GRPD, hidden_GRTD, allowed, target)
      pointers = jnp.sum(nll)
      total += words.sum + factor * pointers
      terms = jnp.sum(target >= 0).astype(jnp.float32)
      masked = jnp.sum(valid_B).astype(jnp.float32)
      word_nll = jnp.sum(jnp.where(valid_B, words.nll, 0.0))
      metrics |= {
        f"{name}/loss": (pointers, terms),
        f"{name}/accuracy": (jnp.sum(hit).astype(jnp.float32), terms),
        f"{name}/tlm_loss": (word_nll, masked),
        f"{name}/aligned": (terms, masked),
        **nll_by_language(name, words.nll, slots, context.languages),
      }
    return LossSum(total, metrics)

  @property
  def _masked_lm(self) -> MaskedLM:
    return MaskedLM(
      self.stream,
      self.mask_prob,
      self.mask_specials,
      self.mask_slots,
      self.logits_chunk,
    )


def point(
  head: Tree,
  masked: jax.Array,
  hidden: jax.Array,
  allowed: jax.Array,
  target: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """-log p(target) of each masked token, and whether it is the likeliest.

  Args:
    head: "query" and "key", linear maps.
    masked: vectors of the masked tokens [..., P, D].
    hidden: of all tokens [..., T, D].
    allowed: the places that each may point at, bool [..., P, T].
    target: a place, or -1: no loss [..., P].
  """
  q = masked @ head["query"]["kernel"] + head["query"]["bias"]
  k = hidden @ head["key"]["kernel"] + head["key"]["bias"]
  logits = jnp.einsum(
    "...pd,...td->...pt", q, k, preferred_element_type=jnp.float32
  ) / math.sqrt(q.shape[-1])
  logits = jnp.where(allowed, logits, -1e30)
  place = jnp.maximum(target, 0)[..., None]
  own = jnp.take_along_axis(logits, place, axis=-1)[..., 0]
  nll = jax.nn.logsumexp(logits, axis=-1) - own
  counts = target >= 0
  hit = counts & (jnp.argmax(logits, axis=-1) == target)
  return jnp.where(counts, nll, 0.0), hit


def _other_side(rows: Rows, place: jax.Array) -> jax.Array:
  """Tokens of the other sentence of each slot's pair, bool [..., P, T]."""
  segments, sides = rows["segments"], rows["sides"]
  own = jnp.take_along_axis(segments, place, axis=-1)[..., None]
  side = jnp.take_along_axis(sides, place, axis=-1)[..., None]
  other = sides[..., None, :] == 3 - side
  return other & (side > 0) & (segments[..., None, :] == own)


def _at(hidden: jax.Array, place: jax.Array) -> jax.Array:
  return jnp.take_along_axis(hidden, place[..., None], axis=-2)
