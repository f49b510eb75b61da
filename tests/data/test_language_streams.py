"""Arrays of XLM's and BERT's rows: types, positions, counts, labels."""

from collections import Counter

import numpy as np
import pytest
from small_corpus import build

from infoxlm_jax.data import alternating_stream
from infoxlm_jax.data.alternating_stream import AlternatingStream
from infoxlm_jax.data.next_sentence_stream import NextSentenceStream
from infoxlm_jax.data.streams import PairStream, TextStream
from infoxlm_jax.errors import InputError
from infoxlm_jax.special_ids import Ids

CODES = ("de", "en", "fr")


class FakeStore:
  """Literal records: {language: blocks}, {(a, b): pairs}."""

  ids = Ids(mask=49, size=50)
  folder = "fake"

  def __init__(self, texts=(), pairs=()):
    self.texts, self.pairs = dict(texts), dict(pairs)
    self.text_counts = {k: len(v) for k, v in self.texts.items()}
    self.text_tokens = {k: sum(map(len, v)) for k, v in self.texts.items()}
    self.pair_counts = {k: len(v) for k, v in self.pairs.items()}

  def read_text(self, language, indices):
    return [np.array(self.texts[language][i], np.int32) for i in indices]

  def read_pairs(self, pair, indices):
    return [
      tuple(np.array(side, np.int32) for side in self.pairs[pair][i])
      for i in indices
    ]


def one_group(stream, store, position=0, seed=1):
  return build(stream, store, seed, position, 0, 1)[0]


def test_a_block_has_its_language_everywhere():
  store = FakeStore({"fr": [[0, 7, 8, 2]]})
  stream = TextStream(batch=1, rows=1, row_length=6, language_ids=CODES)
  arrays = one_group(stream, store)
  assert arrays["types"].tolist() == [[2, 2, 2, 2, 0, 0]]
  assert {k: v.shape for k, v in arrays.items()} == {
    k: v[1:] for k, v in stream.shapes(1).items()
  }
  assert "types" not in one_group(
    TextStream(batch=1, rows=1, row_length=6), store
  )


@pytest.mark.parametrize(
  ("restart", "forward", "back"),
  [
    (
      False,
      ([0, 5, 6, 2, 7, 2, 1, 1], [0, 1, 2, 3, 4, 5, 0, 0], "eeeeff.."),
      ([0, 7, 2, 5, 6, 2, 1, 1], [0, 1, 2, 3, 4, 5, 0, 0], "fffeee.."),
    ),
    (
      True,
      ([0, 5, 6, 2, 0, 7, 2, 1], [0, 1, 2, 3, 0, 1, 2, 0], "eeeefff."),
      ([0, 7, 2, 0, 5, 6, 2, 1], [0, 1, 2, 0, 1, 2, 3, 0], "fffeeee."),
    ),
  ],
)
def test_a_pair_has_a_language_a_side(restart, forward, back):
  store = FakeStore(pairs={("en", "fr"): [([5, 6], [7])]})
  stream = PairStream(
    batch=1,
    rows=1,
    row_length=8,
    language_ids=CODES,
    restart_positions=restart,
  )
  seen = set()
  for position in range(20):
    arrays = one_group(stream, store, position)
    tokens = arrays["tokens"][0].tolist()
    wanted = forward if tokens == forward[0] else back
    letters = {"e": 1, "f": 2, ".": 0}
    assert tokens == wanted[0]
    assert arrays["positions"][0].tolist() == wanted[1]
    assert arrays["types"][0].tolist() == [letters[x] for x in wanted[2]]
    seen.add(tuple(tokens))
  assert len(seen) == 2


def test_a_cut_side_keeps_its_language_and_is_counted():
  store = FakeStore(pairs={("en", "fr"): [([5] * 9, [7] * 4)]})
  stream = PairStream(
    batch=1,
    rows=1,
    row_length=10,
    max_side=3,
    language_ids=CODES,
    restart_positions=True,
  )
  arrays, stats = build(stream, store, 1, 0, 0, 1)
  first = int(arrays["types"][0, 0])
  assert arrays["types"].tolist() == [[first] * 5 + [3 - first] * 5]
  assert arrays["positions"].tolist() == [[0, 1, 2, 3, 4] * 2]
  assert stats["cut_tokens"] == 6 + 1 and stats["truncated_items"] == 1


def test_a_language_without_an_id_is_refused():
  store = FakeStore({"it": [[0, 7, 2]]})
  stream = TextStream(batch=1, rows=1, row_length=6, language_ids=CODES)
  with pytest.raises(InputError, match="'it'.*de, en, fr"):
    one_group(stream, store)


def test_counts_are_of_what_the_stream_draws():
  """Of 16384 blocks with one <s>, two 7s and one 8 or 9 each."""
  store = FakeStore({"en": [[0, 7, 7, 8, 2], [0, 7, 7, 9, 2]]})
  stream = TextStream(batch=2, rows=2, row_length=6, frequencies=True)
  arrays = one_group(stream, store)
  assert arrays["counts"].shape == (2, 6)
  wanted = {0: 16385, 7: 32769, 8: 8193, 9: 8193, 2: 16385, 1: 0}
  for token, count in wanted.items():
    assert set(arrays["counts"][arrays["tokens"] == token]) <= {count}


def segments():
  """Three German and forty English records ([a], [a + 1])."""
  return FakeStore(
    pairs={
      ("en", "de"): [([40], [41])],
      ("en", "en"): [([2 * n + 100], [2 * n + 101]) for n in range(40)],
      ("de", "de"): [([2 * n + 500], [2 * n + 501]) for n in range(3)],
    }
  )


def test_half_of_the_second_segments_are_of_another_record():
  number = 2000
  stream = NextSentenceStream(batch=number, rows=number, row_length=6)
  arrays = one_group(stream, segments())
  assert {k: v.shape for k, v in arrays.items()} == {
    k: v[1:] for k, v in stream.shapes(1).items()
  }
  tokens, labels = arrays["tokens"], arrays["labels"]
  np.testing.assert_array_equal(
    tokens[:, [0, 2, 4, 5]], [[0, 2, 2, 1]] * number
  )
  np.testing.assert_array_equal(arrays["types"], [[0, 0, 0, 1, 1, 0]] * number)
  np.testing.assert_array_equal(
    arrays["positions"], [[0, 1, 2, 3, 4, 0]] * number
  )
  a, b = tokens[:, 1], tokens[:, 3]
  assert (a % 2 == 0).all() and (b % 2 == 1).all()
  # 0: the one that follows; 1: another one, of the same language.
  np.testing.assert_array_equal(labels, b != a + 1)
  np.testing.assert_array_equal(a >= 500, b >= 500)
  # A fair coin: sigma 22.4.
  assert abs(labels.sum() - number / 2) < 70
  # The other record is any of the rest, equally often.
  german = (a == 500) & (labels == 1)
  counts = Counter(b[german].tolist())
  assert set(counts) == {503, 505}
  assert abs(counts[503] - german.sum() / 2) < 4 * np.sqrt(german.sum() / 4)


def test_next_sentences_are_a_function_of_seed_and_position():
  stream = NextSentenceStream(batch=8, rows=8, row_length=6)
  store = segments()
  whole = one_group(stream, store, 0)
  halves = [
    one_group(NextSentenceStream(batch=4, rows=4, row_length=6), store, p)
    for p in (0, 4)
  ]
  for name in ("tokens", "labels"):
    np.testing.assert_array_equal(
      whole[name], np.concatenate([half[name] for half in halves])
    )
  other = one_group(stream, store, 0, seed=2)
  assert (other["tokens"] != whole["tokens"]).any()


def test_next_sentences_need_documents():
  stream = NextSentenceStream(batch=1, rows=1, row_length=6)
  with pytest.raises(InputError, match=r"gin/prepare/documents\.gin"):
    one_group(stream, FakeStore(pairs={("en", "de"): [([5], [6])]}))
  with pytest.raises(InputError, match="a single pair of segments in 'en'"):
    one_group(stream, FakeStore(pairs={("en", "en"): [([5], [6])]}))


def alternating(**changes):
  text = TextStream(batch=2, rows=2, row_length=8)
  pairs = PairStream(**{"batch": 4, "rows": 2, "row_length": 8} | changes)
  return AlternatingStream(streams={"mlm": text, "tlm": pairs})


def test_batches_alternate_and_each_stream_goes_on_where_it_was():
  store = FakeStore(
    {"en": [[0, 10 + n, 2] for n in range(9)]},
    {("en", "fr"): [([20 + n], []) for n in range(9)]},
  )
  stream = alternating()
  assert (stream.batch, stream.rows, stream.row_length) == (2, 2, 8)
  for update in range(6):
    arrays = one_group(stream, store, 2 * update)
    name, batch = (("mlm", 2), ("tlm", 4))[update % 2]
    alone = one_group(stream.streams[name], store, update // 2 * batch)
    for key in ("tokens", "segments", "positions"):
      np.testing.assert_array_equal(arrays[key], alone[key])
    assert arrays["segments"].max() == batch
  assert stream.samples(0) == {"mlm": 0, "tlm": 0}
  assert stream.samples(2) == {"mlm": 2, "tlm": 0}
  assert stream.samples(4) == {"mlm": 2, "tlm": 4}
  assert stream.samples(10) == {"mlm": 6, "tlm": 8}
  parts = alternating_stream.parts("xlm", stream, 10)
  assert {k: v[1] for k, v in parts.items()} == {"xlm/mlm": 6, "xlm/tlm": 8}


def test_streams_that_cannot_alternate_are_refused():
  with pytest.raises(InputError, match="same rows and row_length"):
    alternating(rows=3)
  with pytest.raises(InputError, match="'tlm' has rows = None"):
    alternating(rows=None)
  with pytest.raises(InputError, match="same language_ids"):
    alternating(language_ids=CODES).shapes(1)
  with pytest.raises(InputError, match="empty"):
    AlternatingStream(streams={})
