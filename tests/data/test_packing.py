"""First-fit packing, cut to fit."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infoxlm_jax.data.packing import join, pack, place
from infoxlm_jax.errors import InputError
from infoxlm_jax.special_ids import Ids


def _fits(lengths, rows, row_length):
  """First-fit decreasing, as a textbook has it: the bins, or None."""
  bins = [[] for _ in range(rows)]
  for n in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
    room = [
      b for b in bins if sum(lengths[i] for i in b) + lengths[n] <= row_length
    ]
    if not room:
      return None
    room[0].append(n)
  return bins


@given(
  st.lists(st.integers(2, 40), min_size=1, max_size=25),
  st.integers(1, 8),
  st.integers(2, 30),
)
def test_pack(lengths, rows, row_length):
  try:
    packed = pack(np.array(lengths), rows, row_length)
  except InputError:
    assert _fits([2] * len(lengths), rows, row_length) is None
    return
  cap = int(packed.kept.max())
  # Only the longest are cut, all to one length.
  assert packed.kept.tolist() == [min(n, cap) for n in lengths]
  # As first-fit places them: none overlaps, none sticks out.
  bins = _fits(packed.kept.tolist(), rows, row_length)
  for row, items in enumerate(bins):
    offset = 0
    for item in items:
      assert (packed.row[item], packed.offset[item]) == (row, offset)
      offset += packed.kept[item]
  # No larger cap would do.
  for larger in range(cap + 1, max(lengths) + 1):
    assert _fits([min(n, larger) for n in lengths], rows, row_length) is None


def test_worked_example():
  # 5 + 4 fill row 0, 3 + 3 + 3 fill row 1; ties go by number.
  packed = pack(np.array([3, 5, 3, 4, 3]), 2, 9)
  assert packed.row.tolist() == [1, 0, 1, 0, 1]
  assert packed.offset.tolist() == [0, 0, 3, 5, 6]
  # One row of 10 for 3 items: 2 stays, the others become 4.
  assert pack(np.array([9, 2, 6]), 1, 10).kept.tolist() == [4, 2, 4]
  # 18 of 20 places would do for 6 each, but no row holds two of them.
  assert pack(np.array([9, 9, 9]), 2, 10).kept.tolist() == [5, 5, 5]


def test_no_room():
  with pytest.raises(InputError, match="5 items .* 2 rows of 4 tokens"):
    pack(np.array([7] * 5), 2, 4)


def test_fast():
  lengths = np.random.default_rng(0).integers(10, 90, 48)
  times = []
  for _ in range(30):
    start = time.perf_counter()
    pack(lengths, 20, 128)
    times.append(time.perf_counter() - start)
  assert min(times) < 1e-3


@given(
  st.lists(st.integers(0, 12), min_size=1, max_size=12),
  st.integers(1, 6),
  st.integers(4, 30),
  st.booleans(),
)
def test_place_gives_every_item_back(lengths, rows, row_length, padded):
  """Each token once, in its row, numbered; nothing where nothing stands."""
  ids = Ids()
  sentences = [
    (np.arange(n, dtype=np.int32) + 100 * (k + 1),)
    for k, n in enumerate(lengths)
  ]
  items, full = join(sentences, 10, ids)
  assert [len(item) for item in items] == [2 + min(n, 10) for n in lengths]
  assert full == [2 + n for n in lengths]
  stats = dict.fromkeys(("tokens", "slots", "truncated_items"), 0)
  stats["cut_tokens"] = 0
  rows = len(items) if padded else rows
  try:
    arrays = place(items, full, rows, row_length, padded, ids, stats)
  except InputError:
    assert 2 * len(items) > rows * (row_length // 2) * 2
    return
  assert {a.shape for a in arrays.values()} == {(rows, row_length)}
  seen = 0
  for number, (item, whole) in enumerate(zip(items, full, strict=True), 1):
    row, column = np.nonzero(arrays["segments"] == number)
    found = arrays["tokens"][row, column].tolist()
    seen += len(found)
    assert len(set(row)) == 1 and (np.diff(column) == 1).all()
    assert arrays["positions"][row, column].tolist() == [*range(len(found))]
    assert found == [*item[: len(found) - 1], ids.eos]
    assert 2 <= len(found) <= len(item) <= whole
  empty = arrays["segments"] == 0
  assert (arrays["tokens"][empty] == ids.pad).all()
  assert seen == stats["tokens"] == (~empty).sum()
  assert stats["cut_tokens"] == sum(full) - seen


def test_place_keeps_the_last_end_token():
  ids = np.arange(10, 20, dtype=np.int32)
  items, full = join([(ids[:3],), (ids[3:5], ids[5:9])], 3, Ids())
  assert [i.tolist() for i in items] == [
    [0, 10, 11, 12, 2],
    [0, 13, 14, 2, 15, 16, 17, 2],
  ]
  assert full == [5, 9]
  stats = dict.fromkeys(("tokens", "slots", "truncated_items"), 0)
  stats["cut_tokens"] = 0
  arrays = place(items, full, 1, 12, False, Ids(), stats)
  assert arrays["tokens"].tolist() == [
    [0, 13, 14, 2, 15, 16, 2] + [0, 10, 11, 12, 2]
  ]
  assert arrays["segments"].tolist() == [[2] * 7 + [1] * 5]
  assert arrays["positions"].tolist() == [[*range(7), *range(5)]]
  # One token went with max_side, one with the row.
  assert stats == {
    "tokens": 12,
    "slots": 12,
    "truncated_items": 1,
    "cut_tokens": 2,
  }
  arrays = place(items, full, 2, 6, True, Ids(), stats)
  assert arrays["tokens"].tolist() == [
    [0, 10, 11, 12, 2, 1],
    [0, 13, 14, 2, 15, 2],
  ]
  assert arrays["segments"].tolist() == [[1] * 5 + [0], [2] * 6]
  assert arrays["positions"][0].tolist() == [0, 1, 2, 3, 4, 0]
