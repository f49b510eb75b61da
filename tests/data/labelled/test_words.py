"""Words become pieces, and long sentences windows that hold each word once."""

import functools

import numpy as np
import pytest
import small_corpus
import small_tokenizers
from hypothesis import given
from hypothesis import strategies as st

from infoxlm_jax.data.labelled import words
from infoxlm_jax.data.tokenizers.base import (
  load_tokenizer,
  tokenizer_from_files,
)
from infoxlm_jax.errors import InputError


@functools.cache
def tokenizer(kind="verses"):
  if kind == "verses":
    return load_tokenizer(small_corpus.TOKENIZER)
  content = getattr(small_tokenizers, kind)()
  return tokenizer_from_files({"tokenizer.json": content}, kind)


WORDS = st.text(
  st.sampled_from("abcdefgh' é中文ب\u200b\U0001f600"), min_size=0, max_size=12
)


@given(
  st.lists(st.lists(WORDS, min_size=1, max_size=12), max_size=4),
  st.integers(3, 16),
)
def test_every_word_has_exactly_one_first_piece(sentences, max_length):
  model = tokenizer()
  out = words.windows(model, sentences, max_length)
  seen = [[] for _ in sentences]
  for number, sentence in enumerate(out.sentence.tolist()):
    tokens, first = out.tokens[number], out.first[number]
    assert len(tokens) == len(first) <= max_length
    assert (tokens[0], tokens[-1]) == (model.bos_id, model.eos_id)
    assert first[0] == first[-1] == 0
    seen[sentence] += first[first > 0].tolist()
  assert seen == [list(range(1, len(one) + 1)) for one in sentences]


def test_windows_by_hand():
  """Pieces 2, 1, 3, 5 of which 4 are kept, 1; four fit between the ends."""
  model = tokenizer()
  given_words = ["kings", "king", "xq", "Hazorzz", "Jordan"]
  lengths = [len(model.encode(word)) for word in given_words]
  assert lengths == [2, 1, 3, 5, 1]
  out = words.windows(model, [given_words, ["a"]], 6)
  assert [one.tolist() for one in out.first.take(np.arange(5))] == [
    [0, 1, 0, 2, 0],
    [0, 3, 0, 0, 0],
    [0, 4, 0, 0, 0, 0],
    [0, 5, 0],
    [0, 1, 0],
  ]
  assert out.sentence.tolist() == [0, 0, 0, 0, 1]
  assert (out.split, out.cut, out.unknown) == (1, 1, 0)
  pieces = np.concatenate([out.tokens[0][1:-1], out.tokens[1][1:-1]])
  assert pieces.tolist() == model.encode(" ".join(given_words[:3])).tolist()


@pytest.mark.parametrize("kind", ["verses", "unigram", "wordpiece", "byte_bpe"])
def test_words_have_the_pieces_of_their_sentence(kind):
  """Also with RoBERTa's BPE, whose words begin with the space before them."""
  model = tokenizer(kind)
  text = "and the king said that he would go"
  (pieces,) = words.pieces_of(model, [text.split()])
  assert np.concatenate(pieces).tolist() == model.encode(text).tolist()


def test_a_word_without_pieces_is_unknown():
  model = tokenizer()
  out = words.windows(model, [["", "a"]], 8)
  assert out.tokens[0].tolist()[:2] == [model.bos_id, model.unk_id]
  assert out.unknown == 1
  with pytest.raises(InputError, match="MAX_LENGTH = 2"):
    words.windows(model, [["a"]], 2)
