"""Pairs in the form that models were made for, cut as transformers cuts."""

import numpy as np
import pytest
import small_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from infoxlm_jax.data.labelled.encode import encode, pair_form
from infoxlm_jax.data.labelled.examples import Ragged
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.special_ids import Ids

XLMR = Ids(bos=0, pad=1, eos=2, unk=3, mask=9, size=10)
BERT = Ids(bos=2, pad=0, eos=3, unk=1, mask=4, size=10)
XLM = Ids(bos=0, pad=2, eos=1, unk=3, mask=5, size=10)


class Words:
  """A tokenizer whose word "7" has id 7."""

  vocab_size, mask_id = 100, 99
  bos_id, pad_id, eos_id, unk_id = 0, 1, 2, 3

  def encode_batch(self, texts):
    return [np.array([int(w) for w in t.split()], np.int32) for t in texts]


def test_the_form_follows_the_special_ids():
  assert pair_form(XLMR, 1) == (2, False)
  assert pair_form(XLMR, 2) == (2, False)  # multilingual-e5
  assert pair_form(BERT, 2) == (1, True)
  assert pair_form(XLM, 15) == (1, False)


@pytest.mark.parametrize(
  ("separators", "types", "wanted", "kinds"),
  [
    (2, False, [0, 10, 11, 2, 2, 20, 2], None),
    (1, True, [0, 10, 11, 2, 20, 2], [0, 0, 0, 0, 1, 1]),
  ],
)
def test_pairs(separators, types, wanted, kinds):
  form = pair_form(XLMR, 1)._replace(separators=separators, types=types)
  out = encode(Words(), ["10 11"], ["20"], max_length=9, form=form)
  assert out.tokens[0].tolist() == wanted
  assert (out.types and out.types[0].tolist()) == kinds
  assert out.truncated == 0


def test_single_texts_are_cut_at_their_end():
  form = pair_form(XLMR, 1)
  out = encode(Words(), ["4 5 6", "4"], None, max_length=4, form=form)
  assert [one.tolist() for one in out.tokens] == [[0, 4, 5, 2], [0, 4, 2]]
  assert out.truncated == 1


def test_real_ids_of_a_pair():
  """XLM-R's published example, as transformers joins two of it."""
  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  a, b = tokenizer.encode("Hello world!"), tokenizer.encode("Hallo")
  out = encode(
    tokenizer,
    ["Hello world!"],
    ["Hallo"],
    max_length=64,
    form=pair_form(XLMR, 1),
  )
  assert out.tokens[0].tolist() == [0, *a, 2, 2, *b, 2]


@settings(max_examples=200, deadline=None)
@given(
  a=st.integers(0, 30),
  b=st.integers(0, 30),
  limit=st.integers(6, 40),
)
def test_the_longer_text_loses_tokens(a, b, limit):
  """One at a time; of two of equal length the second one loses it."""
  keep_a, keep_b = a, b
  while keep_a + keep_b + 4 > limit:
    if keep_a > keep_b:
      keep_a -= 1
    else:
      keep_b -= 1
  first, second = "10 " * a, "20 " * b
  form = pair_form(XLMR, 1)
  out = encode(Words(), [first], [second], max_length=limit, form=form)
  tokens = out.tokens[0].tolist()
  assert (tokens.count(10), tokens.count(20)) == (keep_a, keep_b)
  assert out.truncated == (keep_a + keep_b < a + b)


@given(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=8))
def test_ragged_arrays_come_back(arrays):
  ragged = Ragged.of(arrays)
  assert [one.tolist() for one in ragged] == arrays
  assert ragged.lengths.tolist() == [len(one) for one in arrays]
  turned = ragged.select(np.arange(len(arrays))[::-1])
  assert [one.tolist() for one in turned] == arrays[::-1]
