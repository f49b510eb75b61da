"""Words as pieces: sentences that are given as words, for labels of words."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from infoxlm_jax.data.labelled.examples import Ragged
from infoxlm_jax.data.tokenizers.base import Tokenizer, framed
from infoxlm_jax.errors import InputError

_TOGETHER = 1 << 16  # words tokenized in one call


class Windows(NamedTuple):
  """Sentences as token sequences that fit the model.

  Attributes:
    tokens: `<s> pieces </s>` of each window.
    first: int32 of the tokens' lengths: number of the word in its sentence,
      plus one, at the word's first piece; 0 at all others.
    sentence: of each window, int64 [windows]; in their order.
    split: number of sentences that have several windows.
    unknown: number of words with `<unk>` among their pieces.
    cut: number of words that are longer than a window and lost pieces.
  """

  tokens: Ragged
  first: Ragged
  sentence: np.ndarray
  split: int
  unknown: int
  cut: int


def pieces_of(
  tokenizer: Tokenizer, sentences: Sequence[Sequence[str]]
) -> list[list[np.ndarray]]:
  """Ids of each word of each sentence, int32 [pieces]; none is empty.

  Each word is tokenized alone, in the form that it has after a space: as
  XTREME and SimAlign do. A word without pieces becomes `<unk>`.

  Args:
    tokenizer: the model's.
    sentences: the words of each.
  """
  starts = _first_form(tokenizer)
  texts = dict.fromkeys(
    starts[min(place, 1)] + word
    for words in sentences
    for place, word in enumerate(words)
  )
  ids: dict[str, np.ndarray] = {}
  listed = iter(texts)
  while some := list(itertools.islice(listed, _TOGETHER)):
    ids |= zip(some, tokenizer.encode_batch(some), strict=True)
  nothing = np.array([tokenizer.unk_id], np.int32)
  known = {text: one if len(one) else nothing for text, one in ids.items()}
  return [
    [known[starts[min(place, 1)] + word] for place, word in enumerate(words)]
    for words in sentences
  ]


def windows(
  tokenizer: Tokenizer,
  sentences: Sequence[Sequence[str]],
  max_length: int,
) -> Windows:
  """Token sequences of at most `max_length` that hold every word once.

  A longer sentence is split before the word that does not fit.

  Args:
    tokenizer: the model's.
    sentences: the words of each; none is empty.
    max_length: tokens of a window, `<s>` and `</s>` included.

  Raises:
    InputError: max_length leaves no room for a piece.
  """
  room = max_length - 2
  if room < 1:
    raise InputError(
      f"MAX_LENGTH = {max_length} leaves no room between <s> and </s>"
    )
  tokens, first, owner = [], [], []
  split = unknown = cut = 0
  for number, words in enumerate(pieces_of(tokenizer, sentences)):
    unknown += sum(tokenizer.unk_id in one for one in words)
    cut += sum(len(one) > room for one in words)
    parts = list(_parts([one[:room] for one in words], room))
    split += len(parts) > 1
    for start, part in parts:
      marks = [np.zeros(len(one), np.int32) for one in part]
      for place, mark in enumerate(marks):
        mark[0] = start + place + 1
      tokens.append(framed(tokenizer, np.concatenate(part)))
      first.append(np.concatenate([[0], *marks, [0]]).astype(np.int32))
      owner.append(number)
  return Windows(
    Ragged.of(tokens),
    Ragged.of(first),
    np.array(owner, np.int64),
    split,
    unknown,
    cut,
  )


def _parts(
  words: Sequence[np.ndarray], room: int
) -> Iterator[tuple[int, list[np.ndarray]]]:
  """(number of the first word, words) of each window."""
  start, used = 0, 0
  part: list[np.ndarray] = []
  for place, word in enumerate(words):
    if used + len(word) > room:
      yield start, part
      start, used, part = place, 0, []
    part.append(word)
    used += len(word)
  if part:
    yield start, part


def _first_form(tokenizer: Tokenizer) -> tuple[str, str]:
  """What stands before the first word of a sentence, and before the others.

  SentencePiece and WordPiece give a word alone the pieces that it has after a
  space; RoBERTa's BPE of bytes needs the space.
  """
  together = tokenizer.encode("a a").tolist()
  alone = tokenizer.encode("a").tolist()
  spaced = tokenizer.encode(" a").tolist()
  return ("", " ") if together == alone + spaced != alone * 2 else ("", "")
