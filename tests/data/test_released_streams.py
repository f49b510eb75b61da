"""Streams by the rules of the released code: which pairs, in which order.

Records say who they are: sentence `side` of record r is r + 10 twice, or
r + 50 twice where side is 1.
"""

from collections import Counter

import numpy as np
import pytest
from small_corpus import build

from infoxlm_jax.data.groups import build_groups
from infoxlm_jax.data.streams import ContrastStream, PairStream
from infoxlm_jax.errors import InputError
from infoxlm_jax.special_ids import Ids


class FakeStore:
  ids = Ids(mask=99, size=100)
  folder = "fake"

  def __init__(self, **counts):
    self.pair_counts = {("en", k): n for k, n in counts.items()}

  def read_pairs(self, pair, indices):
    del pair
    return [
      tuple(np.full(2, int(r) + base, np.int32) for base in (10, 50))
      for r in indices
    ]


def disjoint(**options):
  return ContrastStream(
    batch=8, rows=8, row_length=8, mixup="disjoint", **options
  )


@pytest.mark.parametrize("count", [14, 15])
def test_disjoint_mixup_has_each_pair_once_an_epoch(count):
  store = FakeStore(fr=count)
  drawn = disjoint().draw(store, 3, np.arange(3 * 7))
  assert drawn.epoch.tolist() == 7 * [0] + 7 * [1] + 7 * [2]
  for epoch in range(3):
    of_epoch = drawn.epoch == epoch
    own, partner = drawn.record[of_epoch], drawn.partner[1][of_epoch]
    assert (own % 2 == 0).all() and (partner == own + 1).all()
    # Of 15 pairs the last takes no part.
    assert sorted([*own, *partner]) == list(range(14))
  orders = [drawn.record[drawn.epoch == e].tolist() for e in range(3)]
  assert orders[0] != orders[1] != orders[2]
  assert disjoint().mixture(store, 3).epochs(14) == {"en-fr": 2.0}


def test_disjoint_items_hold_both_pairs_on_both_sides():
  arrays, _ = build(disjoint(), FakeStore(fr=16), 1, 0, 0, 1)
  for n in range(1, 9):
    first_tokens = [
      arrays[side]["tokens"][arrays[side]["segments"] == n][[1, 4]]
      for side in ("query", "key")
    ]
    records = [
      sorted(int(x) - (50 if x >= 50 else 10) for x in side)
      for side in first_tokens
    ]
    assert records[0] == records[1] == [records[0][0], records[0][0] + 1]
    assert records[0][0] % 2 == 0
    # One language a side.
    sides = [{int(x) >= 50 for x in side} for side in first_tokens]
    assert sorted(map(min, sides)) == [False, True]
    assert all(len(side) == 1 for side in sides)


def test_corpora_are_drawn_by_pairs_whatever_the_mixup():
  store = FakeStore(fr=40, de=20)
  sources = disjoint().draw(store, 0, np.arange(4000)).source
  share = 40**0.7 / (40**0.7 + 20**0.7)
  sigma = (4000 * share * (1 - share)) ** 0.5
  assert abs((sources == 0).sum() - 4000 * share) < 3 * sigma


def test_a_single_pair_has_no_partner():
  with pytest.raises(InputError, match="needs two pairs.*holds one of en-de"):
    disjoint().draw(FakeStore(fr=4, de=1), 0, np.arange(1))


def test_both_directions_are_twice_as_many_items():
  store = FakeStore(fr=9)
  stream = PairStream(batch=6, rows=6, row_length=8, both_directions=True)
  drawn = stream.draw(store, 5, np.arange(3 * 18))
  for epoch in range(3):
    of_epoch = drawn.epoch == epoch
    seen = zip(drawn.record[of_epoch], drawn.mode[of_epoch], strict=True)
    assert Counter(map(tuple, np.array(list(seen)).tolist())) == {
      (record, mode): 1 for record in range(9) for mode in (0, 1)
    }
  item = drawn.sides[""].items
  for n in range(18):
    a, b = drawn.record[n] + 10, drawn.record[n] + 50
    first, second = (b, a) if drawn.mode[n] else (a, b)
    assert item[n].tolist() == [0, first, first, 2, second, second, 2]
    assert stream.arrangement(int(drawn.mode[n])) == {
      "": ("c2", "c1") if drawn.mode[n] else ("c1", "c2")
    }


@pytest.mark.parametrize(
  "stream",
  [
    disjoint(join_after_masking=True),
    PairStream(batch=8, rows=8, row_length=8, both_directions=True),
  ],
  ids=["disjoint", "both directions"],
)
def test_any_hosts_and_any_restart_see_the_same_items(stream):
  """Groups of a later batch, built by themselves, are those of one host."""
  store = FakeStore(fr=11, de=6)

  def groups(position, chosen, of):
    built = build_groups(stream, store, 2, position, chosen, of)
    return [arrays for arrays, _ in built]

  def tokens(group):
    rows = group if "tokens" in group else group["query"]
    return rows["tokens"].tolist()

  together = [tokens(g) for g in groups(24, range(4), 4)]
  alone = [tokens(groups(24, [n], 4)[0]) for n in (3, 2, 1, 0)][::-1]
  assert together == alone
  # Batches of 8 from 24 on and one of 16 hold the same items in order.
  halves = [tokens(groups(p, range(4), 4)[0])[0] for p in (24, 32)]
  assert halves[0] == together[0][0] and halves[1] != halves[0]


def test_sentences_keep_their_starts_until_they_are_joined():
  store = FakeStore(fr=16)
  late = disjoint(join_after_masking=True, max_side=1)
  early = disjoint(max_side=1)
  assert late.shapes(2)["key"]["starts"] == (2, 4, 8)
  assert "starts" not in early.shapes(2)["key"]
  arrays, stats = build(late, store, 1, 0, 0, 1)
  plain, _ = build(early, store, 1, 0, 0, 1)
  for side in ("query", "key"):
    for row, other in zip(
      arrays[side]["tokens"], plain[side]["tokens"], strict=True
    ):
      # <s> c </s> <s> d </s>, and <s> c </s> d </s> without the option.
      c, d = other[1], other[3]
      assert other.tolist() == [0, c, 2, d, 2, 1, 1, 1]
      assert row.tolist() == [0, c, 2, 0, d, 2, 1, 1]
    starts = arrays[side]["starts"]
    assert (starts == [1, 0, 0, 1, 0, 0, 0, 0]).all()
  assert stats["tokens"] == 2 * 8 * 6
  # Two tokens of each of the two sides of an item were cut.
  assert stats["cut_tokens"] == 2 * 8 * 2


def test_truncation_keeps_253_tokens_of_a_side():
  class Long(FakeStore):
    def read_pairs(self, pair, indices):
      return [
        tuple(np.arange(5, 5 + n, dtype=np.int32) for n in (300, 253))
        for _ in indices
      ]

  store = Long(fr=4)
  pairs = PairStream(batch=1, rows=1, row_length=512, max_side=253)
  (item,) = pairs.draw(store, 0, np.arange(1)).sides[""].items
  assert len(item) == 1 + 253 + 1 + 253 + 1
  mixed = ContrastStream(
    batch=1,
    rows=1,
    row_length=512,
    max_side=253,
    mixup="disjoint",
    join_after_masking=True,
  )
  arrays, stats = build(mixed, store, 0, 0, 0, 1)
  for side in ("query", "key"):
    # Both sentences whole, within the 512 positions of the model.
    assert (arrays[side]["segments"] > 0).sum() == 2 * (1 + 253 + 1)
    assert (arrays[side]["tokens"] == 2).sum() == 2
  assert stats["cut_tokens"] == 2 * 47
