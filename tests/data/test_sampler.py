"""Hashes, permutations and the sampler."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infoxlm_jax.data.sampler import CYCLE, Sampler, mix, permute, uniform
from infoxlm_jax.errors import InputError

_M = (1 << 64) - 1


def _finalise(z):
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _M
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _M
  return z ^ (z >> 31)


def _reference(index, size, key):
  """The same permutation in Python's integers, one number at a time."""
  half = max(3, ((size - 1).bit_length() + 1) // 2)
  mask = (1 << half) - 1
  while True:
    left, right = index >> half, index & mask
    for number in range(1, 7):
      salt = (key + number * 0x9E3779B97F4A7C15) & _M
      left, right = right, left ^ (_finalise(right ^ salt) & mask)
    index = left << half | right
    if index < size:
      return index


def test_mix_is_splitmix64():
  # The first outputs of SplitMix64 from states 0 and 1234567, as published
  # with its reference code.
  assert int(mix(0)) == 0xE220A8397B1DCDAF
  assert int(mix(1234567)) == 6457827717110365317
  assert mix(3, np.arange(5)).shape == (5,)
  assert int(mix(3, np.arange(5))[4]) == int(mix(3, 4)) != int(mix(4, 3))


def test_uniform():
  numbers = uniform(7, np.arange(100_000))
  assert 0 <= numbers.min() and numbers.max() < 1
  # Standard error of the mean: .2887 / sqrt(1e5) = .0009.
  assert abs(numbers.mean() - 0.5) < 0.003


@given(st.integers(1, 3000), st.integers(0, _M))
def test_permute_is_a_bijection(size, key):
  places = permute(np.arange(size), size, key)
  assert sorted(places.tolist()) == list(range(size))


@given(st.integers(1, 2**45), st.integers(0, _M), st.data())
def test_permute_equals_the_scalar_form(size, key, data):
  index = data.draw(st.integers(0, size - 1))
  assert int(permute(index, size, key)) == _reference(index, size, key)


def test_permute_broadcasts():
  sizes, keys = np.array([5, 1000, 77]), np.array([1, 2, 3])
  got = permute(np.array([4, 999, 0]), sizes, keys)
  expected = [_reference(4, 5, 1), _reference(999, 1000, 2)]
  assert got.tolist() == [*expected, _reference(0, 77, 3)]
  with pytest.raises(ValueError, match="not below"):
    permute(5, 5, 0)


def test_permute_looks_random():
  # Of random permutations of 6, each of 720 comes 100 times in 72,000 keys:
  # chi-square with 719 degrees of freedom, sd 37.9.
  keys = mix(np.arange(72_000))[:, None]
  rows = permute(np.arange(6)[None], 6, keys)
  counts = np.unique(rows @ 6 ** np.arange(6), return_counts=True)[1]
  assert len(counts) == 720
  assert abs(((counts - 100) ** 2 / 100).sum() - 719) < 4 * 37.9


COUNTS = (5000, 700, 90, 1)
WEIGHTS = (400_000, 60_000, 7_000, 50)


def test_shares():
  sampler = Sampler(COUNTS, WEIGHTS, 0.7, seed=3)
  share = np.array(WEIGHTS, float) ** 0.7
  share /= share.sum()
  number = 20_000
  got = np.bincount(sampler.draw(np.arange(number)).source, minlength=4)
  sigma = np.sqrt(number * share * (1 - share))
  assert (np.abs(got - number * share) < 3 * sigma).all()
  # A whole cycle has every source's share to a place, each in its own order.
  cycles = sampler.draw(np.arange(2 * CYCLE)).source.reshape(2, CYCLE)
  for cycle in cycles:
    got = np.bincount(cycle, minlength=4)
    assert np.abs(got - CYCLE * share).max() <= 1
  agree = (share**2).sum()
  assert abs((cycles[0] == cycles[1]).mean() - agree) < 0.01


def test_alpha_one_and_zero():
  for alpha, share in ((1, [0.75, 0.25]), (0, [0.5, 0.5])):
    got = Sampler((30, 10), (30, 10), alpha, 0).quotas
    assert got.tolist() == [round(CYCLE * s) for s in share]


def test_a_tiny_source_is_not_lost():
  quotas = Sampler((1, 1), (1, 10**12), 1.0, 0).quotas
  assert quotas.tolist() == [1, CYCLE - 1]


def test_every_record_once_an_epoch():
  sampler = Sampler(COUNTS, WEIGHTS, 0.7, seed=3)
  source, record, epoch = sampler.draw(np.arange(2 * CYCLE))
  for number, count in enumerate(COUNTS):
    mine = source == number
    records, epochs = record[mine], epoch[mine]
    # In the order drawn: epoch after epoch, none before the last is done.
    assert (epochs == np.arange(mine.sum()) // count).all()
    whole = len(records) // count
    table = records[: whole * count].reshape(whole, count)
    assert (np.sort(table) == np.arange(count)).all()
    if count > 1:
      assert (table[0] != table[1]).any()
  seen = np.bincount(source, minlength=4) / COUNTS
  assert sampler.epochs(2 * CYCLE) == pytest.approx(seen)
  first = np.bincount(source[:70_000], minlength=4) / COUNTS
  assert sampler.epochs(70_000) == pytest.approx(first)


def test_random_access():
  index = np.arange(CYCLE - 500, CYCLE + 500)
  sequence = Sampler(COUNTS, WEIGHTS, 0.7, seed=3).draw(index)
  other = Sampler(COUNTS, WEIGHTS, 0.7, seed=3)
  backwards = [other.draw(int(i)) for i in index[::-1]]
  for field in range(3):
    assert [int(d[field]) for d in backwards[::-1]] == list(sequence[field])
  unlike = Sampler(COUNTS, WEIGHTS, 0.7, seed=4).draw(index)
  assert (unlike.source != sequence.source).any()


def _repeats(sampler):
  return sampler.quotas / CYCLE * sampler.counts.sum() / sampler.counts


def test_repeats_are_limited_and_the_rest_is_spread_by_alpha():
  counts = (1_000_000, 400_000, 3000, 100)
  free = Sampler(counts, counts, 0.7, 0)
  assert _repeats(free) == pytest.approx(free.repeats)
  assert free.repeats[2] > 4 and free.repeats[3] > 12
  limited = Sampler(counts, counts, 0.7, 0, 4.0)
  # A place of a cycle is the smallest thing to give.
  place = sum(counts) / CYCLE / np.array(counts)
  assert (limited.repeats[2:] <= 4 + place[2:]).all()
  assert (limited.repeats[2:] > 4 - place[2:]).all()
  assert limited.quotas.sum() == CYCLE
  big = np.array(counts[:2]) ** 0.7
  got = limited.quotas[:2] / limited.quotas[:2].sum()
  assert np.abs(got - big / big.sum()).max() < 2 / CYCLE


def test_a_limit_that_does_not_bind_changes_nothing():
  free = Sampler(COUNTS, WEIGHTS, 0.7, 3)
  # The fourth source has one record: what it may have is one place.
  loose = Sampler(COUNTS, WEIGHTS, 0.7, 3, float(free.repeats.max()) + 0.01)
  assert (loose.quotas == free.quotas).all()


@given(
  st.lists(st.integers(1, 10**6), min_size=1, max_size=30),
  st.floats(0, 1),
  st.floats(1, 50),
)
def test_limited_quotas(counts, alpha, limit):
  sampler = Sampler(counts, counts, alpha, 0, limit)
  assert sampler.quotas.sum() == CYCLE and sampler.quotas.min() >= 1
  most = np.ceil(limit * sampler.counts * CYCLE / sampler.counts.sum())
  assert (sampler.quotas <= most).all()
  assert sampler.shares.sum() == pytest.approx(1)


def test_no_empty_source():
  with pytest.raises(InputError, match="no empty one"):
    Sampler((5, 0), (5, 5), 0.7, 0)
