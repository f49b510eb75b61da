"""Texts and pairs of texts as the token sequences that models were made for."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from infoxlm_jax.data.labelled.examples import Ragged, ids_of
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.special_ids import Ids

_XLMR = (0, 1, 2)  # <s>, <pad>, </s>
_TOGETHER = 8192  # texts tokenized in one call


class PairForm(NamedTuple):
  """How a model joins two texts.

  Attributes:
    separators: number of `</s>` between the texts: `<s> a </s></s> b </s>`
      for RoBERTa and XLM-R, one for BERT and XLM.
    types: whether the tokens of the second text have type 1, as in BERT.
  """

  separators: int
  types: bool


class Encoded(NamedTuple):
  """Token sequences.

  Attributes:
    tokens: ids of each, `<s>` and `</s>` included.
    types: type of each token; None where the model has one type.
    truncated: number of examples that were longer than allowed.
  """

  tokens: Ragged
  types: Ragged | None
  truncated: int


def pair_form(ids: Ids, type_vocab_size: int) -> PairForm:
  """The form of a tokenizer: XLM-R's if it has XLM-R's special ids.

  multilingual-e5 is a BERT model with XLM-R's tokenizer: its pairs have
  XLM-R's form and type 0 throughout, as transformers builds them.
  """
  if (ids.bos, ids.pad, ids.eos) == _XLMR:
    return PairForm(separators=2, types=False)
  return PairForm(separators=1, types=type_vocab_size == 2)


def encode(
  tokenizer: Tokenizer,
  first: Sequence[str],
  second: Sequence[str] | None,
  *,
  max_length: int,
  form: PairForm,
) -> Encoded:
  """Encodes texts, or pairs of texts, of at most `max_length` tokens.

  A pair that is too long loses tokens from the end of its longer text, one at
  a time (transformers' "longest_first").

  Args:
    tokenizer: the model's.
    first: the texts.
    second: the second text of each pair; None where there are no pairs.
    max_length: tokens of an example, `<s>` and `</s>` included.
    form: see pair_form.
  """
  ids = ids_of(tokenizer)
  tokens, types, truncated = [], [], 0
  for start in range(0, len(first), _TOGETHER):
    some = slice(start, start + _TOGETHER)
    ones = tokenizer.encode_batch(list(first[some]))
    others: list[np.ndarray | None] = [None] * len(ones)
    if second is not None:
      others = list(tokenizer.encode_batch(list(second[some])))
    for a, b in zip(ones, others, strict=True):
      sequence, kinds, cut = _joined(a, b, max_length, form, ids)
      tokens.append(sequence)
      types.append(kinds)
      truncated += cut
  return Encoded(
    Ragged.of(tokens),
    Ragged.of(types) if form.types and second is not None else None,
    truncated,
  )


def _joined(
  a: np.ndarray, b: np.ndarray | None, limit: int, form: PairForm, ids: Ids
) -> tuple[np.ndarray, np.ndarray, bool]:
  """Tokens and types of an example, and whether it was cut."""
  if b is None:
    keep = limit - 2
    tokens = np.array([ids.bos, *a[:keep], ids.eos], np.int32)
    return tokens, np.zeros_like(tokens), len(a) > keep
  room = limit - 2 - form.separators
  keep_a, keep_b = _longest_first(len(a), len(b), room)
  between = [ids.eos] * form.separators
  left = [ids.bos, *a[:keep_a], *between]
  right = [*b[:keep_b], ids.eos]
  tokens = np.array([*left, *right], np.int32)
  types = np.repeat([0, 1], [len(left), len(right)]).astype(np.int32)
  return tokens, types, len(a) + len(b) > room


def _longest_first(a: int, b: int, room: int) -> tuple[int, int]:
  """Lengths of two texts after the longer one lost a token at a time.

  Of two of equal length the second one loses the token.
  """
  excess = max(a + b - room, 0)
  level = min(abs(a - b), excess)  # until both are equally long
  if a > b:
    a -= level
  else:
    b -= level
  rest = excess - level
  return a - rest // 2, b - (rest - rest // 2)
