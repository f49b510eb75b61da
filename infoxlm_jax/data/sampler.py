"""Chooses a sample's record from the seed and the number of the sample.

Nothing here keeps state or depends on a library's random generator, so that a
sample number means the same record in every version, on every platform and
host, and resuming needs nothing but that number.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from infoxlm_jax.errors import InputError

# Constants of SplitMix64 (Steele, Lea, Flood 2014; public domain code by
# Vigna).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MUL_1 = np.uint64(0xBF58476D1CE4E5B9)
_MUL_2 = np.uint64(0x94D049BB133111EB)
_U64 = (1 << 64) - 1

# Samples of a cycle: shares are exact to 1.5e-5, and a cycle is built in
# milliseconds.
CYCLE = 1 << 16

# With six rounds and halves of 3 bits or more, chi-square tests on whole
# permutations and on pairs of places find no structure. With halves of 2 bits
# no number of rounds is enough: permutations of 6 are not equally frequent,
# not even after 16 rounds.
_ROUNDS = 6
_MIN_HALF_BITS = 3


def mix(*parts: int | np.ndarray) -> np.ndarray:
  """A 64-bit hash of integers or of arrays of them (broadcast), uint64."""
  state: np.ndarray = np.zeros((), np.uint64)
  with np.errstate(over="ignore"):
    for part in parts:
      state = _finalise((state ^ _as_u64(part)) + _GOLDEN)
  return np.asarray(state)


def uniform(*parts: int | np.ndarray) -> np.ndarray:
  """Uniform numbers in [0, 1), a function of the parts."""
  return (mix(*parts) >> np.uint64(11)) * 2.0**-53


def permute(
  index: int | np.ndarray,
  size: int | np.ndarray,
  key: int | np.ndarray,
) -> np.ndarray:
  """Place of `index` in a pseudo-random permutation of range(size), int64.

  A Feistel network on the smallest even number of bits that holds the size (at
  least 6), applied again until the value is below the size (cycle walking,
  Black and Rogaway 2002): a bijection for every key, and each place is
  computed without the others. Arguments broadcast, so one call computes places
  of many permutations.
  """
  index, size, key = np.broadcast_arrays(
    _as_u64(index), _as_u64(size), _as_u64(key)
  )
  shape = index.shape
  value = index.astype(np.uint64).reshape(-1)
  size, key = size.reshape(-1), key.reshape(-1)
  if (value >= size).any():
    raise ValueError("permute: an index is not below its size")
  half = _half_bits(size)
  mask = (np.uint64(1) << half) - np.uint64(1)
  todo = np.arange(value.size)
  while todo.size:
    walked = _feistel(value[todo], half[todo], mask[todo], key[todo])
    value[todo] = walked
    todo = todo[walked >= size[todo]]
  return value.astype(np.int64).reshape(shape)


class Draws(NamedTuple):
  """Samples: source, record of the source, epoch; int64 arrays of one shape."""

  source: np.ndarray
  record: np.ndarray
  epoch: np.ndarray


class Sampler:
  """Maps sample numbers to records of sources drawn in proportion to n^alpha.

  Samples come in cycles of 65,536. Each source has the same whole number of
  places in every cycle (its share, rounded by largest remainder, at least
  one); the seed and the cycle's number decide their order. Every record of a
  source is drawn once in an epoch of the source, in a new order each epoch.
  """

  def __init__(
    self,
    counts: Sequence[int],
    weights: Sequence[int],
    alpha: float,
    seed: int,
    max_repeats: float | None = None,
  ):
    """Computes each source's number of places in a cycle.

    Args:
      counts: records of each source.
      weights: the n of n^alpha of each source, tokens or pairs.
      alpha: 1 draws in proportion to n, 0 draws all sources equally often.
      seed: of the order.
      max_repeats: the most epochs of a source while as many samples are drawn
        as all sources have records. A share above it goes to the other
        sources, in proportion to their n^alpha. None: no limit.

    Raises:
      InputError: no source, or one without records.
    """
    if not counts or min(counts) < 1 or min(weights) < 1:
      raise InputError(
        "the sampler needs at least one source, and no empty one: found "
        f"{list(counts)} records."
      )
    self.counts = np.array(counts, np.int64)
    self.seed = seed
    self.quotas = _quotas(weights, alpha)
    if max_repeats is not None:
      self.quotas = _limited(self.quotas, weights, alpha, counts, max_repeats)
    # The last few cycles suffice: threads read close to each other.
    self._cycle = functools.lru_cache(maxsize=4)(self._make_cycle)

  def draw(self, index: int | np.ndarray) -> Draws:
    """The samples of these numbers (any shape, any order)."""
    index = np.asarray(index, np.int64)
    flat = index.reshape(-1)
    cycle, place = np.divmod(flat, CYCLE)
    source = np.empty_like(flat)
    turn = np.empty_like(flat)
    for number in np.unique(cycle):
      here = cycle == number
      sources, ranks = self._cycle(int(number))
      source[here] = sources[place[here]]
      turn[here] = ranks[place[here]]
    turn += cycle * self.quotas[source]
    epoch, step = np.divmod(turn, self.counts[source])
    key = mix(self.seed, 2, source, epoch)
    record = permute(step, self.counts[source], key)
    return Draws(*(a.reshape(index.shape) for a in (source, record, epoch)))

  @property
  def shares(self) -> np.ndarray:
    """Each source's part of the samples, float64; sums to 1."""
    return self.quotas / CYCLE

  @property
  def repeats(self) -> np.ndarray:
    """Epochs of each source in as many samples as all sources have records."""
    return self.shares * self.counts.sum() / self.counts

  def epochs(self, index: int) -> list[float]:
    """Epochs of each source, whole and begun, in samples 0 .. index - 1."""
    cycle, place = divmod(index, CYCLE)
    sources, _ = self._cycle(cycle)
    seen = np.bincount(sources[:place], minlength=len(self.counts))
    drawn = cycle * self.quotas + seen
    return [float(e) for e in drawn / self.counts]

  def _make_cycle(self, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The source and its rank at each place of a cycle, int64 [CYCLE] each.

    The rank numbers a source's own places of the cycle: 0, 1, ...
    """
    slots = permute(np.arange(CYCLE), CYCLE, mix(self.seed, 1, number))
    ends = np.cumsum(self.quotas)
    sources = np.searchsorted(ends, slots, side="right").astype(np.int64)
    by_source = np.argsort(sources, kind="stable")
    ranks = np.empty(CYCLE, np.int64)
    ranks[by_source] = np.arange(CYCLE) - np.repeat(
      ends - self.quotas, self.quotas
    )
    return sources, ranks


def _quotas(weights: Sequence[int], alpha: float) -> np.ndarray:
  """Places of each source in a cycle: sums to CYCLE, each at least one."""
  return np.array(_divided(_powers(weights, alpha), CYCLE), np.int64)


def _powers(weights: Sequence[int], alpha: float) -> list[int]:
  """n^alpha as integers.

  The last bit of a power may differ between platforms; the quotas must not.
  """
  return [max(1, round(float(n) ** alpha * 2**20)) for n in weights]


def _divided(parts: Sequence[int], places: int) -> list[int]:
  """Divides places in proportion to the parts, by largest remainder.

  Each part has at least one place.
  """
  total = sum(parts)
  quotas = [max(1, p * places // total) for p in parts]
  rests = [p * places % total for p in parts]
  order = sorted(range(len(parts)), key=lambda i: (-rests[i], i))
  for i in order[: max(0, places - sum(quotas))]:
    quotas[i] += 1
  while sum(quotas) > places:
    quotas[quotas.index(max(quotas))] -= 1
  return quotas


def _limited(
  quotas: np.ndarray,
  weights: Sequence[int],
  alpha: float,
  counts: Sequence[int],
  max_repeats: float,
) -> np.ndarray:
  """Quotas that repeat no source more than max_repeats times.

  Each limit is rounded up to a whole place of the cycle. Quotas of which none
  is above its limit stay as they are.
  """
  total = sum(counts)
  limits = [-int(-max_repeats * n * CYCLE // total) for n in counts]
  powers = _powers(weights, alpha)
  out = quotas.tolist()
  free = set(range(len(out)))
  while over := [i for i in free if out[i] > limits[i]]:
    free -= set(over)
    for i in over:
      out[i] = limits[i]
    rest = sorted(free)
    room = CYCLE - sum(n for i, n in enumerate(out) if i not in free)
    divided = _divided([powers[i] for i in rest], room) if rest else []
    for i, n in zip(rest, divided, strict=True):
      out[i] = n
  # With a limit near 1 all may have reached theirs: rounding up makes these
  # sum to a few places too many.
  while sum(out) > CYCLE:
    out[out.index(max(out))] -= 1
  return np.array(out, np.int64)


def _as_u64(value: int | np.ndarray) -> np.ndarray:
  if isinstance(value, int):
    return np.asarray(value & _U64, np.uint64)
  return np.asarray(value).astype(np.uint64)


def _finalise(state: np.ndarray) -> np.ndarray:
  state = (state ^ (state >> np.uint64(30))) * _MUL_1
  state = (state ^ (state >> np.uint64(27))) * _MUL_2
  return state ^ (state >> np.uint64(31))


def _half_bits(size: np.ndarray) -> np.ndarray:
  """Half the number of bits, rounded up, that hold size - 1."""
  # frexp is exact below 2^53, far above any number of records.
  _, bits = np.frexp((size - np.uint64(1)).astype(np.float64))
  return np.maximum((bits + 1) // 2, _MIN_HALF_BITS).astype(np.uint64)


def _feistel(
  value: np.ndarray, half: np.ndarray, mask: np.ndarray, key: np.ndarray
) -> np.ndarray:
  left, right = value >> half, value & mask
  with np.errstate(over="ignore"):
    for number in range(1, _ROUNDS + 1):
      salt = key + np.uint64(number) * _GOLDEN
      left, right = right, left ^ (_finalise(right ^ salt) & mask)
  return (left << half) | right
