"""Unicoder's streams: code-mixed documents, paraphrases with near misses."""

import dataclasses
import itertools

import numpy as np
import pytest
import small_corpus
from test_language_streams import CODES, FakeStore, one_group

from infoxlm_jax.data import groups, loader, near_sentences
from infoxlm_jax.data.code_mixed_stream import CodeMixedStream
from infoxlm_jax.data.paraphrase_stream import ParaphraseStream
from infoxlm_jax.data.prepare.pipeline import prepare
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError


def numbered(count):
  """Record n of en-fr is the words 100 + n and 200 + n."""
  return FakeStore(
    pairs={("en", "fr"): [([100 + n], [200 + n]) for n in range(count)]}
  )


def mixed(**options):
  options = {"batch": 4, "rows": 4, "row_length": 12, "sentences": 3} | options
  return CodeMixedStream(**options)


def documents(stream, store, position=0, seed=1):
  """The words and languages of each item, by row."""
  arrays = one_group(stream, store, position, seed)
  out = []
  for tokens, types in zip(arrays["tokens"], arrays["types"], strict=True):
    words = tokens >= 100
    out.append((tokens[words].tolist(), types[words].tolist()))
  return out


def test_documents_are_consecutive_pairs_in_alternating_languages():
  """Eleven pairs are documents of 3, 3, 3 and 2; an epoch has all of them."""
  stream = mixed(padded=True, language_ids=CODES)
  store = numbered(11)
  firsts, seen = set(), set()
  for epoch in range(6):
    records = []
    for words, types in documents(stream, store, 4 * epoch):
      numbers = [word % 100 for word in words]
      first = numbers[0]
      assert first % 3 == 0
      assert numbers == list(range(first, min(first + 3, 11)))
      # 1xx is English, 2xx French: every second sentence is of the other.
      languages = [1 if word < 200 else 2 for word in words]
      assert types == languages
      assert all(a != b for a, b in itertools.pairwise(languages))
      records += numbers
      firsts.add(languages[0])
      seen.add((first, languages[0]))
    assert sorted(records) == list(range(11))
  assert firsts == {1, 2} and len(seen) > 4


def test_documents_of_pairs_that_were_prepared_together(tmp_path):
  """Verses in order, eight by eight; without the option they are shuffled."""
  rows = [r for r in small_corpus.table() if r["de"]][:40]
  examples = tuple(
    {
      "text_a": row["en"],
      "language_a": "en",
      "text_b": row["de"],
      "language_b": "de",
    }
    for row in rows
  )
  options = small_corpus.OPTIONS | {
    "corpora": (small_corpus.ListCorpus("pairs", examples),),
    "progress": False,
  }
  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  german, english = (
    [tokenizer.encode(row[language])[:40].tolist() for row in rows]
    for language in ("de", "en")
  )

  def order(name, **changes):
    folder = prepare(tmp_path / name, **options | changes)
    store = Store(folder / "train")
    read = store.read_pairs(("en", "de"), range(40))
    return store, [german.index(de.tolist()) for _, de in read]

  _, shuffled = order("shuffled")
  store, kept = order("together", pairs_together=8)
  assert sorted(shuffled) == sorted(kept) == list(range(40))
  runs = [kept[start : start + 8] for start in range(0, 40, 8)]
  assert all(run == list(range(run[0], run[0] + 8)) for run in runs)
  firsts = [run[0] for run in runs]
  assert set(firsts) == {0, 8, 16, 24, 32} and firsts != sorted(firsts)
  assert sum(b == a + 1 for a, b in itertools.pairwise(shuffled)) < 8
  # A document is a half of such a run, one sentence German, one English.
  stream = mixed(batch=1, rows=1, row_length=200, sentences=4)
  tokens = one_group(stream, store)["tokens"][0]
  ends = np.flatnonzero(tokens == store.ids.eos)
  sentences = [s[:-1].tolist() for s in np.split(tokens[1:], ends)[:4]]
  verses = [
    ("de", german.index(s)) if s in german else ("en", english.index(s))
    for s in sentences
  ]
  for (one, number), (other, following) in itertools.pairwise(verses):
    assert following == number + 1 and other != one
  with pytest.raises(InputError, match=r"pairs_together = 0 must be from 1"):
    order("none", pairs_together=0)


def test_a_documents_arrays():
  store = FakeStore(pairs={("en", "fr"): [([5, 6, 7], [8]), ([9], [10, 11])]})
  stream = mixed(batch=1, rows=1, sentences=2, max_side=2, language_ids=CODES)
  for position in range(8):
    arrays, stats = small_corpus.build(stream, store, 1, position, 0, 1)
    tokens = arrays["tokens"][0].tolist()
    if tokens[1] == 5:  # English first; its third word is cut and counted
      assert tokens == [0, 5, 6, 2, 10, 11, 2, *[1] * 5]
      assert arrays["types"].tolist() == [[1] * 4 + [2] * 3 + [0] * 5]
      assert stats["cut_tokens"] == 1
    else:
      assert tokens == [0, 8, 2, 9, 2, *[1] * 7]
      assert arrays["types"].tolist() == [[2] * 3 + [1] * 2 + [0] * 7]
    real = np.flatnonzero(arrays["segments"][0])
    assert arrays["positions"][0, real].tolist() == real.tolist()
    names = stream.arrangement(int(tokens[1] != 5))
    assert names[""] == (("c1", "c2") if tokens[1] == 5 else ("c2", "c1"))


def near():
  """Four records; the French of 0 and 1 share two of their three words."""
  return FakeStore(
    pairs={
      ("en", "fr"): [
        ([10, 11], [20, 21, 22]),
        ([12, 13], [20, 21, 23]),
        ([14, 15], [24, 25, 26]),
        ([16, 17], [27, 28, 29]),
      ]
    }
  )


def paraphrases(number=2000, **options):
  options = {"batch": number, "rows": number, "row_length": 10} | options
  return ParaphraseStream(padded=True, **options)


def split(tokens):
  """`<s> x </s> y </s>` -> x, y."""
  ends = np.flatnonzero(tokens == 2)
  return (
    tuple(tokens[1 : ends[0]].tolist()),
    tuple(tokens[ends[0] + 1 : ends[1]].tolist()),
  )


@pytest.mark.parametrize("candidates", [1, 6])
def test_half_of_the_pairs_are_another_records(candidates):
  store = near()
  stream = paraphrases(candidates=candidates)
  arrays = one_group(stream, store)
  assert {k: v.shape for k, v in arrays.items()} == {
    k: v[1:] for k, v in stream.shapes(1).items()
  }
  true = {(tuple(a), tuple(b)) for a, b in store.pairs[("en", "fr")]}
  either = true | {(b, a) for a, b in true}
  pairs = [split(row) for row in arrays["tokens"]]
  labels = arrays["labels"]
  assert [pair in either for pair in pairs] == (labels == 1).tolist()
  english_first = np.array([pair[0][0] < 20 for pair in pairs])
  second_english = np.array([pair[1][0] < 20 for pair in pairs])
  # Always two languages; each direction and each label half of the time.
  assert (english_first != second_english).all()
  for share in (labels, english_first, english_first[labels == 0]):
    assert abs(np.mean(share) - 0.5) < 4 * 0.5 / np.sqrt(len(share))
  # Of French negatives for record 0 the near one, nearly always if it may.
  of_first = [
    pair[1]
    for pair, label in zip(pairs, labels, strict=True)
    if label == 0 and pair[0] == (10, 11)
  ]
  share = np.mean([y == (20, 21, 23) for y in of_first])
  # The chance that it is among 6 candidates of 3 is 1 - (2/3)^6 = .91.
  wanted = 1 - (2 / 3) ** candidates
  spread = np.sqrt(wanted * (1 - wanted) / len(of_first))
  assert len(of_first) > 80 and abs(share - wanted) < 4 * spread


def test_a_record_with_the_same_sentence_is_no_negative():
  """Records 0 and 1 have the same English: each is a translation of it."""
  pairs = [([10], [20]), ([10], [21]), ([11], [30])]
  arrays = one_group(paraphrases(600), FakeStore(pairs={("en", "fr"): pairs}))
  for row, label in zip(arrays["tokens"], arrays["labels"], strict=True):
    (x,), (y,) = split(row)
    is_translation = ([min(x, y)], [max(x, y)]) in pairs
    assert is_translation == bool(label)
  # Two records of three have one candidate that may be chosen, the third two:
  # all of eight are the forbidden one in 2/3 (1/2)^8 of the items.
  assert abs(arrays["labels"].mean() - 0.5) < 0.09
  store = FakeStore(pairs={("en", "fr"): pairs[:2]})
  assert one_group(paraphrases(20), store)["labels"].all()


def test_nearest_by_hand():
  """Weights 1, 2, 3 of pieces 0, 1, 2: cosines worked out by hand."""
  y = np.array([0, 1, 1])  # bag (1, 4, 0), length 17^(1/2)
  others = [np.array(o) for o in ([0, 0], [1], [2, 2], [1, 2])]
  found = near_sentences.similarities([y], others, np.array([1, 2, 3]))
  wanted = [
    2 / (np.sqrt(17) * 2),
    8 / (np.sqrt(17) * 2),
    0,
    8 / (np.sqrt(17) * np.sqrt(13)),
  ]
  np.testing.assert_allclose(found, [wanted], rtol=1e-12)
  x, z = np.array([7]), np.array([8])
  pairs = [(x, y)]
  weights = np.array([1, 2, 3])
  candidates = [(z, other) for other in others]
  assert near_sentences.nearest(pairs, candidates, weights).tolist() == [1]
  candidates[1] = (x, others[1])  # the same x: a translation
  assert near_sentences.nearest(pairs, candidates, weights).tolist() == [3]
  candidates = [(z, y), (x, others[0])]
  assert near_sentences.nearest(pairs, candidates, weights).tolist() == [-1]
  # 64 log2 of 8/4, 8/2, 8/2.
  counts = np.array([4, 2, 2], np.int32)
  assert near_sentences.rarity(counts).tolist() == [64, 128, 128]


@pytest.mark.parametrize(
  "stream",
  [
    mixed(row_length=72, sentences=2, language_ids=small_corpus.LANGUAGES),
    ParaphraseStream(
      batch=4,
      rows=4,
      row_length=84,
      language_ids=small_corpus.LANGUAGES,
      restart_positions=True,
    ),
  ],
  ids=["code_mixed", "paraphrase"],
)
def test_batches_are_a_function_of_the_position(stream):
  """Of prepared verses: after a stop, and on any number of hosts."""
  store = Store(small_corpus.prepared() / "train")
  named = {"own": stream}

  def batches(first, count, **options):
    drawn = loader.batches(
      named,
      store,
      seed=3,
      positions={"own": 4 * first},
      groups=4,
      steps=count,
      **options,
    )
    return [arrays["own"] for arrays, _ in drawn]

  straight = batches(0, 4)
  resumed = batches(2, 2)
  for whole, again in zip(straight[2:], resumed, strict=True):
    for name, array in whole.items():
      np.testing.assert_array_equal(again[name], array)
  hosts = [batches(0, 1, local_groups=own)[0] for own in ([0, 1], [2], [3])]
  for name, array in straight[0].items():
    joined = np.concatenate([host[name] for host in hosts])
    np.testing.assert_array_equal(joined, array)
  assert (straight[0]["tokens"] != straight[1]["tokens"]).any()
  # An item does not depend on the size of the batch that it is drawn in.
  seed = loader.stream_seed(3, "own")
  single = dataclasses.replace(stream, batch=1, rows=1)
  for number in range(4):
    (alone, _), *_ = groups.build_groups(single, store, seed, number, [0], 1)
    for name, array in alone.items():
      np.testing.assert_array_equal(array, straight[0][name][number])


def test_options_of_the_streams():
  with pytest.raises(InputError, match=r"sentences = 1 must be at least 2"):
    mixed(sentences=1).shapes(1)
  with pytest.raises(InputError, match=r"candidates = 0 must be at least 1"):
    paraphrases(candidates=0).shapes(1)
  with pytest.raises(InputError, match="a single pair of sentences in 'en-fr'"):
    one_group(paraphrases(1), numbered(1))
  with pytest.raises(InputError, match="'it'.*de, en, fr"):
    store = FakeStore(pairs={("en", "it"): [([5], [6]), ([7], [8])]})
    one_group(mixed(batch=1, rows=1, language_ids=CODES), store)
