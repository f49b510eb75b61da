"""The masked-LM head: logits of tokens, and what fits a mask.

Letters: K places, V ids.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from infoxlm_jax.data.tokenizers.base import Tokenizer, framed
from infoxlm_jax.errors import InputError
from infoxlm_jax.model import encoder
from infoxlm_jax.model.config import EncoderConfig

# (head, token table, hidden states [K, D]) -> float32 [K, V]
LMLogits = Callable[[Any, Any, np.ndarray], np.ndarray]

_HEAD = "masked_lm"
_PLACES = 128  # scored at a time: 128 MB of logits where V is 250,000


class Filled(NamedTuple):
  """An id that fits a mask.

  Attributes:
    piece: the token as people read it, "▁Paris".
    id: its id.
    probability: of the softmax over all ids.
  """

  piece: str
  id: int
  probability: float


def make_lm_logits(config: EncoderConfig) -> LMLogits:
  """Builds a function (head, token table, hidden states) -> logits."""

  @jax.jit
  def scored(head: Any, table: jax.Array, hidden: jax.Array) -> jax.Array:
    hidden = hidden.astype(config.dtype)
    logits = encoder.lm_logits(head, table, hidden, config)
    return logits[:, : config.vocab_size]

  def lm_logits(head: Any, table: Any, hidden: np.ndarray) -> np.ndarray:
    parts = [np.zeros((0, config.vocab_size), np.float32)]
    for start in range(0, len(hidden), _PLACES):
      part = hidden[start : start + _PLACES]
      # Few sizes, so that few programs are compiled.
      size = 1 << (len(part) - 1).bit_length()
      padded = np.pad(part, ((0, size - len(part)), (0, 0)))
      parts.append(np.asarray(scored(head, table, padded))[: len(part)])
    return np.concatenate(parts)

  return lm_logits


def head_of(params: Any, name: str) -> Any:
  """The masked-LM head.

  Raises:
    InputError: the model has none.
  """
  heads = params.get("heads", {})
  if _HEAD not in heads:
    has = f"its heads are {', '.join(heads)}" if heads else "it has no head"
    raise InputError(
      f"{name or 'the model'}: there is no masked-LM head, which logits come"
      f" from ({has}). Folders of sentence-transformers, and encoders of"
      " transformers without ForMaskedLM in their architecture, have none."
    )
  return heads[_HEAD]


def best(
  logits_KV: np.ndarray, top: int, tokenizer: Tokenizer
) -> list[list[Filled]]:
  """For each place the `top` likeliest of the tokenizer's ids, in order.

  Args:
    logits_KV: of the places; V may be more than the tokenizer's ids.
    top: how many.
    tokenizer: names the ids.
  """
  filled = []
  for logits_V in logits_KV.astype(np.float64):
    odds_V = np.exp(logits_V - logits_V.max())
    probabilities_V = odds_V / odds_V.sum()
    own = probabilities_V[: tokenizer.vocab_size]
    ids = np.argsort(-own, kind="stable")[:top].tolist()
    pieces = tokenizer.pieces(ids)
    filled.append(
      [Filled(pieces[n], i, float(own[i])) for n, i in enumerate(ids)]
    )
  return filled


def around_masks(text: str, mask: str, tokenizer: Tokenizer) -> np.ndarray:
  """Ids, without `<s>` and `</s>`, where each `mask` is the mask token.

  The parts between masks are encoded one by one, without the spaces before a
  mask, as transformers does for XLM-R and BERT.

  Args:
    text: to encode.
    mask: what stands for the mask token, "<mask>" for instance.
    tokenizer: encodes the parts.
  """
  *before, last = text.split(mask)
  mask_id = np.array([tokenizer.mask_id], np.int32)
  parts = [
    ids
    for part in tokenizer.encode_batch([part.rstrip() for part in before])
    for ids in (part, mask_id)
  ]
  return np.concatenate([*parts, tokenizer.encode(last)])


def check_masks(texts: Sequence[str], mask: str) -> None:
  """Raises InputError for a text that does not hold the mask."""
  for number, text in enumerate(texts):
    if not mask or mask not in text:
      raise InputError(
        f"text {number} (the first is 0) has no mask {mask!r}: {text[:80]!r}."
        " Write it where a token is to be found."
      )


def ids_of(
  texts: Sequence[str], mask: str, tokenizer: Tokenizer, config: EncoderConfig
) -> list[np.ndarray]:
  """Ids of texts that may hold masks, int32 [tokens] with `<s>` and `</s>`.

  Args:
    texts: to encode.
    mask: see around_masks; "": no text has any.
    tokenizer: encodes them.
    config: of the model that reads them.

  Raises:
    InputError: a text is longer than the model's positions. None is cut,
      because a mask might be lost.
  """
  if mask:
    inner = [around_masks(text, mask, tokenizer) for text in texts]
  else:
    inner = tokenizer.encode_batch(texts)
  ids = [framed(tokenizer, one) for one in inner]
  for number, one in enumerate(ids):
    if len(one) > config.max_positions:
      raise InputError(
        f"text {number} (the first is 0) has {len(one)} tokens, <s> and </s>"
        f" included; the model has {config.max_positions} positions. Cut the"
        " text where nothing is lost."
      )
  return ids
