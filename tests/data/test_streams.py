"""Streams: which items stand in a group's rows, and how."""

from collections import Counter

import numpy as np
import pytest
import small_corpus
from small_corpus import build

from infoxlm_jax.data.records import Store
from infoxlm_jax.data.streams import ContrastStream, PairStream, TextStream
from infoxlm_jax.errors import InputError
from infoxlm_jax.special_ids import Ids


class FakeStore:
  """Pairs of sentences that say who they are.

  Record r of corpus c is ([a, a], [b, b]) with a = 10,000 c + 10 r + 5 and
  b = a + 1.
  """

  ids = Ids()

  folder = "fake"

  def __init__(self, **counts):
    self.pair_counts = {("en", k): n for k, n in counts.items()}

  def read_pairs(self, pair, indices):
    corpus = list(self.pair_counts).index(pair)
    out = []
    for record in indices:
      a = 10_000 * corpus + 10 * int(record) + 5
      out.append((np.array([a, a], np.int32), np.array([a + 1] * 2, np.int32)))
    return out


@pytest.fixture(scope="module")
def store():
  return Store(small_corpus.prepared() / "train")


def items(arrays):
  """The items of a group by number; checks all that the layout promises."""
  tokens, segments = arrays["tokens"], arrays["segments"]
  positions = arrays["positions"]
  assert tokens.shape == segments.shape == positions.shape
  assert {a.dtype for a in arrays.values()} == {np.dtype(np.int32)}
  empty = segments == 0
  assert (tokens[empty] == 1).all() and (positions[empty] == 0).all()
  assert (tokens[~empty] != 1).all()
  out = []
  for number in range(1, segments.max() + 1):
    rows, columns = np.nonzero(segments == number)
    assert len(set(rows)) == 1
    assert (np.diff(columns) == 1).all()
    assert positions[rows, columns].tolist() == list(range(len(rows)))
    item = tokens[rows, columns].tolist()
    # <s> opens an item and stands nowhere else; </s> closes it.
    assert item[0] == 0 and 0 not in item[1:] and item[-1] == 2
    out.append(item)
  return out


def sentences(item):
  """First tokens of the sentences of a FakeStore's item."""
  assert item[0] == 0 and len(item) % 3 == 1
  parts = [item[i : i + 3] for i in range(1, len(item), 3)]
  assert all(x == y and end == 2 for x, y, end in parts)
  return tuple(x for x, _, _ in parts)


def test_text_stream(store):
  stream = TextStream(batch=8, rows=6, row_length=150)
  assert stream.shapes(2)["tokens"] == (2, 3, 150)
  known = {
    tuple(block.tolist())
    for language, count in store.text_counts.items()
    for block in store.read_text(language, range(count))
  }
  for group in range(2):
    arrays, stats = build(stream, store, 1, 40, group, 2)
    assert arrays["tokens"].shape == (3, 150)
    found = items(arrays)
    assert len(found) == 4
    assert {tuple(i) for i in found} <= known
    used = int((arrays["segments"] > 0).sum())
    assert used == sum(map(len, found))
    assert stats == {
      "items": 4,
      "tokens": used,
      "slots": 450,
      "truncated_items": 0,
      "cut_tokens": 0,
    }


def test_languages_are_drawn_by_tokens_to_the_alpha(store):
  stream = TextStream(batch=1, rows=1, row_length=72)
  number = 5000
  drawn = stream.draw(store, 4, np.arange(number))
  tokens = np.array([store.text_tokens[name] for (name,) in drawn.corpora])
  share = tokens**0.7 / (tokens**0.7).sum()
  sigma = np.sqrt(number * share * (1 - share))
  got = np.bincount(drawn.source, minlength=len(share))
  assert (np.abs(got - number * share) < 3 * sigma).all()
  # The default limit of repeats is far away, so the draws are the paper's.
  free = TextStream(batch=1, rows=1, row_length=72, max_repeats=None)
  assert (free.draw(store, 4, np.arange(number)).source == drawn.source).all()
  assert stream.mixture(store, 4).sampler.repeats.max() < 2


def test_the_arrangement_says_what_build_does():
  """c and d of the pair and its partner, found again in the tokens."""
  store = FakeStore(fr=37)
  stream = ContrastStream(
    batch=200, rows=200, row_length=7, mixup="adjacent", cross_sides=True
  )
  drawn = stream.draw(store, 5, np.arange(200))
  arrays, _ = build(stream, store, 5, 0, 0, 1)
  assert len(drawn.mode) == 200
  for n, mode in enumerate(drawn.mode.tolist()):
    source = {"c": drawn.record[n], "d": drawn.partner[1][n]}
    arrangement = stream.arrangement(mode)
    assert set(arrangement) == {"query", "key"}
    for side, parts in arrangement.items():
      item = arrays[side]["tokens"][arrays[side]["segments"] == n + 1]
      wanted = tuple(10 * source[p[0]] + 4 + int(p[1]) for p in parts)
      assert sentences(item.tolist()) == wanted


def test_text_languages_and_epochs(store):
  one = TextStream(batch=4, rows=4, row_length=72, languages=["ja"])
  count = store.text_counts["ja"]
  known = {tuple(b.tolist()) for b in store.read_text("ja", range(count))}
  found = [
    tuple(i)
    for position in range(0, 4 * count, 4)
    for i in items(build(one, store, 0, position, 0, 1)[0])
  ]
  # Four epochs, every block four times.
  assert Counter(found) == dict.fromkeys(known, 4)
  assert one.mixture(store, 0).epochs(4 * count) == {"ja": 4.0}


def test_cut_items_are_counted_and_stay_closed(store):
  stream = TextStream(batch=8, rows=4, row_length=40)
  arrays, stats = build(stream, store, 1, 0, 0, 1)
  found = items(arrays)
  full = items(
    build(TextStream(batch=8, rows=8, row_length=72), store, 1, 0, 0, 1)[0]
  )
  assert len(found) == 8
  cut = 0
  for short, long in zip(found, full, strict=True):
    assert short[:-1] == long[: len(short) - 1]
    cut += len(short) < len(long)
  assert cut == stats["truncated_items"] > 0
  lost = sum(map(len, full)) - sum(map(len, found))
  assert stats["cut_tokens"] == lost > 0


def test_pair_stream():
  store = FakeStore(fr=50)
  stream = PairStream(batch=600, rows=600, row_length=12)
  arrays, stats = build(stream, store, 3, 0, 0, 1)
  found = [sentences(i) for i in items(arrays)]
  assert stats["tokens"] == 600 * 7 and stats["slots"] == 600 * 12
  forward = 0
  for a, b in found:
    assert a // 10 == b // 10 and {a % 10, b % 10} == {5, 6}
    forward += a < b
  # 600 fair coins: sigma 12.2.
  assert abs(forward - 300) < 37
  assert Counter(a // 10 for a, _ in found) == dict.fromkeys(range(50), 12)


def test_max_side_is_counted(store):
  stream = PairStream(batch=4, rows=4, row_length=72, max_side=5)
  _, stats = build(stream, store, 0, 0, 0, 1)
  assert stats["tokens"] == 4 * (3 + 5 + 5)
  assert stats["truncated_items"] == 4
  long = PairStream(batch=4, rows=4, row_length=200)
  whole = build(long, store, 0, 0, 0, 1)[1]
  assert whole["cut_tokens"] == 0
  assert stats["cut_tokens"] == whole["tokens"] - stats["tokens"]


def contrast(store, **options):
  """(query, key) of 4,000 items, as sentences() has them."""
  number = 4000
  stream = ContrastStream(batch=number, rows=number, row_length=7, **options)
  arrays, _ = build(stream, store, 9, 0, 0, 1)
  both = [
    (sentences(q), sentences(k))
    for q, k in zip(items(arrays["query"]), items(arrays["key"]), strict=True)
  ]
  assert len(both) == number
  return arrays["items"].tolist(), both


def test_without_mixup():
  store = FakeStore(fr=40, de=20)
  corpora, found = contrast(store)
  query_is_a = 0
  for corpus, ((q,), (k,)) in zip(corpora, found, strict=True):
    assert q // 10 == k // 10 and {q % 10, k % 10} == {5, 6}
    assert q // 10_000 == corpus
    query_is_a += q % 10 == 5
  assert abs(query_is_a - 2000) < 3 * 31.6
  share = 40**0.7 / (40**0.7 + 20**0.7)
  sigma = (4000 * share * (1 - share)) ** 0.5
  assert abs(corpora.count(0) - 4000 * share) < 3 * sigma


def modes(found, partner_of):
  """Counts of (query order, key order, role, crossed)."""
  out = Counter()
  for query, key in found:
    records = {x // 10 for x in query}
    assert records == {x // 10 for x in key}
    if len(records) == 1:
      # A pair that met itself (random partners only): no mode to tell.
      out["itself"] += 1
      continue
    one, two = records
    assert partner_of(one) == two or partner_of(two) == one
    first = one if partner_of(one) == two else two
    at = [[x // 10 for x in side].index(first) for side in (query, key)]
    main = query[at[0]] % 10
    other = query[1 - at[0]] % 10
    # The key holds the translations of what the query holds.
    assert key[at[1]] % 10 == 11 - main
    assert key[1 - at[1]] % 10 == 11 - other
    out[at[0], at[1], main, main != other] += 1
  return out


def uniform(counts, number):
  expected = sum(counts.values()) / number
  assert len(counts) == number
  square = sum((n - expected) ** 2 / expected for n in counts.values())
  # Chi-square with 3, 7 and 15 degrees of freedom: one in a thousand is above.
  assert square < {4: 16.27, 8: 24.32, 16: 37.70}[number], counts


def test_adjacent_mixup():
  count = 37
  _, found = contrast(FakeStore(fr=count), mixup="adjacent")
  counts = modes(found, lambda r: (r + 1) % count)
  uniform(counts, 8)
  assert not any(crossed for *_, crossed in counts)


def test_crossed_sides():
  count = 37
  _, found = contrast(FakeStore(fr=count), mixup="adjacent", cross_sides=True)
  uniform(modes(found, lambda r: (r + 1) % count), 16)


def test_random_mixup():
  sizes = {"fr": 40, "de": 20}
  _, found = contrast(FakeStore(**sizes), mixup="random")
  itself = 0
  orders = Counter()
  met = Counter()
  for query, key in found:
    assert sorted(q // 10 for q in query) == sorted(k // 10 for k in key)
    sides = {q % 10 for q in query}
    # Never crossed: one language side on each.
    assert len(sides) == 1 and {k % 10 for k in key} == {11 - sides.pop()}
    if len({q // 10 for q in query}) == 1:
      itself += 1
      continue
    met[query[0] // 10_000, query[1] // 10_000] += 1
    same = [q // 10 for q in query] == [k // 10 for k in key]
    orders[query[0] % 10, same] += 1
  uniform(orders, 4)
  # Partners come from the whole mixture, whatever the pair's own corpus.
  share = 40**0.7 / (40**0.7 + 20**0.7)
  both = share * share * 39 / 40
  assert abs(met[0, 0] / 4000 - both) < 0.02
  assert abs(met[0, 1] / 4000 - share * (1 - share)) < 0.02
  # A pair meets itself as often as chance has it.
  chance = share**2 / 40 + (1 - share) ** 2 / 20
  assert abs(itself / 4000 - chance) < 0.01


def test_contrast_rows(store):
  stream = ContrastStream(
    batch=12, rows=8, row_length=128, mixup="adjacent", languages=["en", "ja"]
  )
  shapes = stream.shapes(4)
  assert shapes["query"]["segments"] == shapes["key"]["tokens"] == (4, 2, 128)
  assert shapes["items"] == (4, 3)
  arrays, stats = build(stream, store, 0, 0, 3, 4)
  for side in ("query", "key"):
    found = items(arrays[side])
    assert len(found) == 3
    assert all(item.count(2) == 2 for item in found)
  assert arrays["items"].shape == (3,) and arrays["items"].dtype == np.int32
  assert stats["items"] == 3 and stats["slots"] == 2 * 2 * 128
  assert stats["tokens"] == sum(
    int((arrays[side]["segments"] > 0).sum()) for side in ("query", "key")
  )
  assert list(stream.mixture(store, 0).epochs(10)) == ["en-ja"]


def test_padded_holds_the_same_items(store):
  # Two pairs of two sides of 40 tokens, with three special ones each.
  options = {"batch": 12, "row_length": 2 * (2 * small_corpus.MAX_SIDE + 3)}
  packed, stats = build(PairStream(rows=6, **options), store, 0, 0, 0, 1)
  assert not stats["cut_tokens"]
  padded = PairStream(rows=12, padded=True, **options)
  arrays = build(padded, store, 0, 0, 0, 1)[0]
  assert items(packed) == items(arrays)
  assert (arrays["segments"].max(axis=1) == np.arange(1, 13)).all()
  assert (arrays["tokens"][:, 0] == 0).all()


@pytest.mark.parametrize(
  ("stream", "message"),
  [
    (TextStream(batch=12, rows=16, row_length=8), "TextStream.batch = 12"),
    (PairStream(batch=8, rows=9, row_length=8), "PairStream.rows = 9"),
    (PairStream(batch=0, rows=8, row_length=8), "PairStream.batch = 0"),
    (TextStream(batch=8, rows=8, row_length=1), "TextStream.row_length = 1"),
    (TextStream(batch=64, rows=8, row_length=8), "cannot fit"),
    (TextStream(batch=8, rows=8, row_length=8, alpha=7), "alpha = 7"),
    (TextStream(batch=8, row_length=8, max_repeats=0.5), "max_repeats = 0.5"),
    (
      TextStream(batch=16, rows=8, row_length=8, padded=True),
      "rows = batch = 16",
    ),
    (
      ContrastStream(batch=8, rows=8, row_length=8, max_side=0),
      "ContrastStream.max_side",
    ),
    (
      ContrastStream(batch=8, rows=8, row_length=8, mixup="adjacnt"),
      "did you mean 'adjacent'",
    ),
  ],
)
def test_options_that_do_not_fit(stream, message):
  with pytest.raises(InputError, match=message):
    stream.shapes(8)
  with pytest.raises(InputError, match=message):
    build(stream, FakeStore(fr=9), 0, 0, 0, 8)


@pytest.mark.parametrize(
  ("stream", "message"),
  [
    (
      TextStream(batch=1, rows=1, row_length=8, languages=["frr"]),
      "names 'frr'.*did you mean 'fr'",
    ),
    (
      PairStream(batch=1, rows=1, row_length=8, languages=["de", "fr"]),
      "leaves no pair.*en-de",
    ),
    (ContrastStream(batch=8, rows=1, row_length=17, mixup="random"), None),
  ],
)
def test_options_that_the_records_do_not_have(store, stream, message):
  if message is None:
    assert len(items(build(stream, store, 0, 0, 0, 1)[0]["key"])) == 8
    return
  with pytest.raises(InputError, match=message):
    build(stream, store, 0, 0, 0, 1)
  empty = FakeStore()
  empty.text_counts = {}
  with pytest.raises(InputError, match="hold no records"):
    build(stream, empty, 0, 0, 0, 1)
