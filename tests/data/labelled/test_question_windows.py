"""Windows, and answers as tokens: hand-worked, and on texts of any script."""

import numpy as np
import pytest
import small_corpus
import small_tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from infoxlm_jax.data.labelled.encode import PairForm
from infoxlm_jax.data.labelled.question_windows import (
  WindowOptions,
  answer_tokens,
  encode_context,
  windows,
)
from infoxlm_jax.data.labelled.squad import Answer, Question
from infoxlm_jax.data.tokenizers.base import (
  load_tokenizer,
  tokenizer_from_files,
)
from infoxlm_jax.data.tokenizers.xlm import XlmTokenizer
from infoxlm_jax.errors import InputError

XLMR, BERT = PairForm(2, False), PairForm(1, True)
# Full width and ligature, combining marks, CJK with a square character, Arabic
# with marks and a ligature, Hangul jamo, characters outside the first plane.
TEXTS = (
  "ＡＢ ﬁne ①② of  1990s",
  "  e\u0301cole  de l\u2019a\u0308me ",
  "これは、カ゛ガ ㍿です。",
  "\u0627\u0644\u0644\u0651\u064e\u0647 \ufefb abc",
  "\u1112\u1161\u11ab\u1100\u1173\u11af 한글",
  "x\u200bY\u3000z\u00ad 😀 ok 𠮷野家",
)


@pytest.fixture(
  scope="module", params=["sentencepiece", "wordpiece", "byte_bpe", "unigram"]
)
def tokenizer(request):
  if request.param == "sentencepiece":
    return load_tokenizer(small_corpus.TOKENIZER)
  content = getattr(small_tokenizers, request.param)()
  return tokenizer_from_files({"tokenizer.json": content}, request.param)


@pytest.mark.parametrize("text", TEXTS)
def test_every_character_of_a_word_is_in_the_span_of_a_token(tokenizer, text):
  ids, _ = tokenizer.encode_with_offsets(text)
  np.testing.assert_array_equal(ids, tokenizer.encode(text))
  spans = encode_context(tokenizer, text).spans
  covered = {at for a, b in spans.tolist() for at in range(a, b)}
  # Word pieces have none for characters without width.
  words = {at for at, c in enumerate(text) if not c.isspace()}
  assert covered - words == set()
  assert {text[at] for at in words - covered} <= {"\u200b", "\u00ad"}


def test_hand_worked_spans():
  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  text = "ＡＢ ﬁne ①②"
  ids, spans = tokenizer.encode_with_offsets(text)
  pieces = ["▁A", "B", "▁fin", "e", "▁", "1", "2"]
  assert tokenizer.pieces(ids) == pieces
  ends = [(0, 1), (1, 2), (2, 5), (5, 6), (6, 7), (7, 8), (8, 9)]
  assert spans.tolist() == [list(pair) for pair in ends]
  # The ligature is one character of two letters; the space is left out.
  assert encode_context(tokenizer, text).spans[2].tolist() == [3, 5]
  unigram = tokenizer_from_files(
    {"tokenizer.json": small_tokenizers.unigram()}, "here"
  )
  spans = encode_context(unigram, "e\u0301co").spans.tolist()
  assert [0, 2] in spans  # é is composed, and keeps its mark


@settings(max_examples=60)
@given(data=st.data())
def test_answers_come_back(tokenizer, data):
  """The span covers the answer, is the shortest, and equal where it can be."""
  text = data.draw(st.sampled_from(TEXTS))
  a = data.draw(st.integers(0, len(text) - 1))
  b = data.draw(st.integers(a + 1, len(text)))
  wanted = text[a:b]
  context = encode_context(tokenizer, text)
  span = answer_tokens(context, Answer(wanted, a))
  if span is None:
    assert all(c.isspace() or c in "\u200b\u00ad" for c in wanted)
    return
  spans = context.spans[span[0] : span[1] + 1]
  start, end = int(spans[:, 0].min()), int(spans[:, 1].max())
  for edge in (spans[0], spans[-1]):  # both edges are needed
    assert edge[0] < b and edge[1] > a
  bare = wanted.strip().strip("\u200b\u00ad").strip()
  assert bare in text[start:end]
  if not any(s < edge < e for s, e in spans.tolist() for edge in (a, b)):
    assert text[start:end].strip("\u200b\u00ad").strip() == bare


def words(count):
  return " ".join(["one", "two", "six"][n % 3] for n in range(count))


def test_windows_and_labels():
  """Numbers from the rule: starts 0, 4, 8 ... until the end is held."""
  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  text = "A " + words(9) + " river " + words(6)
  context = encode_context(tokenizer, text)
  length = len(context.ids)
  at = text.index("river")
  one = Question("q", "Which one?", text, (Answer("river", at),))
  asked = tokenizer.encode(one.question)
  kept = min(len(asked), 3)
  options = WindowOptions(max_length=kept + 4 + 10, stride=4, max_question=3)
  made = windows(tokenizer, [one], options, XLMR, {})
  starts = [0]
  while starts[-1] + 10 < length:
    starts.append(starts[-1] + 4)
  assert [(w.start, w.end) for w in made.windows] == [
    (start, min(start + 10, length)) for start in starts
  ]
  first, last = answer_tokens(context, one.answers[0])
  seen = 0
  for number, window in enumerate(made.windows):
    row = made.tokens[number].tolist()
    ids = context.ids[window.start : window.end].tolist()
    assert row == [0, *asked[:3].tolist(), 2, 2, *ids, 2]
    label = made.labels[number].tolist()
    if window.start <= first and last < window.end:
      seen += 1
      assert row[label[0] : label[1] + 1] == (
        context.ids[first : last + 1].tolist()
      )
    else:
      assert label == [0, 0]
  assert 0 < seen < len(starts)
  assert made.counts["cut_questions"] == (len(asked) > 3)
  assert made.label_counts["windows_without_answer"] == len(starts) - seen


def test_bert_tells_question_and_context_apart():
  tokenizer = tokenizer_from_files(
    {"tokenizer.json": small_tokenizers.wordpiece()}, "here"
  )
  one = Question("q", "the", "the river", (Answer("the", 0),))
  made = windows(tokenizer, [one], WindowOptions(), BERT, {})
  row, types = made.tokens[0], made.types[0]
  first = made.windows[0].first
  assert row[0] == tokenizer.bos_id and row[first - 1] == tokenizer.eos_id
  assert types.tolist() == [0] * first + [1] * (len(row) - first)


def test_what_cannot_be_encoded():
  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  with pytest.raises(InputError, match="MAX_LENGTH"):
    windows(tokenizer, [], WindowOptions(68), XLMR, {})
  with pytest.raises(InputError, match="stride"):
    windows(tokenizer, [], WindowOptions(stride=0), XLMR, {})
  xlm = XlmTokenizer.__new__(XlmTokenizer)
  xlm.path = "folder"
  with pytest.raises(InputError, match="folder"):
    xlm.encode_with_offsets("a")
