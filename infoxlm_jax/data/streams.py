"""What a step reads: items drawn by number, packed into the rows of a group.

A stream is a few options; what stands in a group (`build_groups`) is a function
of them, the prepared records, the seed, the position and the group. Sample j of
group g of G is number position + g * batch / G + j, whichever host asks and
whatever came before.
The arrays of a group, all int32 and [rows / G, row_length]:

    tokens     ids; <pad> where nothing stands
    segments   n + 1 for the n-th item of the group; 0 where nothing stands
    positions  0, 1, ... within each item; 0 where nothing stands
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from infoxlm_jax.data.mixture import (
  ONLY_SIDE,
  Drawn,
  Mixture,
  Side,
  pair_mixture,
  text_mixture,
)
from infoxlm_jax.data.packing import join
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.sampler import mix
from infoxlm_jax.data.stream_options import check_options, rows_of

# A guard, not a part of any recipe: a text seen four times is worth as much as
# a new one, and beyond about sixteen times next to nothing (Muennighoff et al.
# 2023, for language models in English). With alpha = 0.7 it binds only where
# corpora differ in size by a factor of thousands.
MAX_REPEATS = 16.0

Shapes = dict[str, Any]
T = TypeVar("T")
Both = tuple[T, T]
Line = tuple[T, ...]

# What a hash of (seed, tag, number) decides; order.Sampler has 1 and 2.
_DIRECTION, _MODE, _PARTNER = 11, 12, 13


class Stream(Protocol):
  """What the loader and who looks at batches ask of a stream."""

  @property
  def batch(self) -> int:
    """Items per update, of all groups together."""

  @property
  def rows(self) -> int | None:
    """Rows per update, of all groups together; None until fitting has them."""

  @property
  def row_length(self) -> int:
    """Tokens a row."""

  def shapes(self, groups: int) -> Shapes:
    """Shapes of the whole batch: nested dicts of (groups, rows, length)."""

  def draw(self, store: Store, seed: int, numbers: np.ndarray) -> Drawn:
    """The items of these numbers, before they are packed."""

  def mixture(self, store: Store, seed: int) -> Mixture:
    """The corpora it draws from, and how."""

  def arrangement(self, mode: int) -> dict[str, tuple[str, ...]]:
    """Which sentence stands where: a, b of the pair; c, d of its partner."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextStream:
  """Blocks of one language each: the rows of masked language modelling.

  Attributes:
    batch: blocks per update.
    rows: rows of the encoder per update, all groups together. None: as many
      as the prepared blocks fill to about 95 %, see fitting.
    row_length: tokens a row.
    languages: which of the prepared ones; None takes all.
    alpha: a language with n tokens is drawn in proportion to n^alpha.
    max_repeats: a small language is drawn less than that, where it would be
      gone through more often while the mixture is once. None: no limit.
    padded: one item a row (rows = batch) instead of packing.
  """

  batch: int
  rows: int | None = None
  row_length: int
  languages: Sequence[str] | None = None
  alpha: float = 0.7
  max_repeats: float | None = MAX_REPEATS
  padded: bool = False

  def shapes(self, groups: int) -> Shapes:
    """See Stream. Raises InputError where the options do not fit."""
    return _shapes(self, groups)

  def draw(self, store: Store, seed: int, numbers: np.ndarray) -> Drawn:
    """See Stream."""
    mixture = self.mixture(store, seed)
    draws = mixture.sampler.draw(numbers)
    blocks = mixture.read(draws.source, draws.record)
    side = Side(blocks, [len(block) for block in blocks])
    mode = np.zeros(len(blocks), np.int64)
    return Drawn(mixture.corpora, *draws, mode, None, {ONLY_SIDE: side})

  def mixture(self, store: Store, seed: int) -> Mixture:
    """See Stream."""
    return text_mixture(self, store, seed)

  def arrangement(self, mode: int) -> dict[str, tuple[str, ...]]:
    """See Stream: a block is one piece."""
    del mode
    return {ONLY_SIDE: ("a1",)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairStream:
  """Translation pairs in one row, `<s> a </s> b </s>`: the rows of TLM.

  Which side comes first is drawn from the seed. Attributes as TextStream's,
  but n is pairs, a pair takes part where both its languages do, and

    max_side: tokens of a sentence beyond which it is cut (the
      released code: 254).
  """

  batch: int
  rows: int | None = None
  row_length: int
  languages: Sequence[str] | None = None
  alpha: float = 0.7
  max_repeats: float | None = MAX_REPEATS
  max_side: int = 254
  padded: bool = False

  def shapes(self, groups: int) -> Shapes:
    """See Stream. Raises InputError where the options do not fit."""
    return _shapes(self, groups)

  def draw(self, store: Store, seed: int, numbers: np.ndarray) -> Drawn:
    """See Stream."""
    mixture = self.mixture(store, seed)
    draws = mixture.sampler.draw(numbers)
    mode = _bits(mix(seed, _DIRECTION, numbers))
    pairs = mixture.read(draws.source, draws.record)
    items = [
      _directed(m, pair) for m, pair in zip(mode.tolist(), pairs, strict=True)
    ]
    side = Side(*join(items, self.max_side, store.ids))
    return Drawn(mixture.corpora, *draws, mode, None, {ONLY_SIDE: side})

  def mixture(self, store: Store, seed: int) -> Mixture:
    """See Stream."""
    return pair_mixture(self, store, seed)

  def arrangement(self, mode: int) -> dict[str, tuple[str, ...]]:
    """See Stream."""
    return {ONLY_SIDE: _directed(mode, ("c1", "c2"))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastStream:
  """Queries and keys that mean the same: XlCo.

  Mixup as in the released code, and with cross_sides as in the paper's text.

  An item is a pair `<c1, c2>`, with mixup together with a partner `<d1, d2>`:

    "none"      query `<s> c1 </s>`, key `<s> c2 </s>`
    otherwise   query `<s> c1 </s> d1 </s>`, key `<s> c2 </s> d2 </s>`

  Which side is the query is drawn from the seed, and with mixup, apart from
  that and from each other, the order of both sides: eight modes, equally
  often. The second sentence's `<s>` is left out. The partner is the next
  record of the prepared order in the same corpus (the first after the last)
  with "adjacent", any pair of the whole mixture with "random". With
  cross_sides half the items have their sides crossed: query `c1 d2`, key
  `c2 d1`.

  The arrays are {"query": {...}, "key": {...}, "items": [n]}, the sides packed
  each by itself; item n is segment n + 1 on both, and items[n] the number of
  its pair corpus. `truncated_items` counts queries and keys.
  Other attributes as PairStream's.
  """

  batch: int
  rows: int | None = None
  row_length: int
  languages: Sequence[str] | None = None
  alpha: float = 0.7
  max_repeats: float | None = MAX_REPEATS
  max_side: int = 254
  mixup: str = "none"
  cross_sides: bool = False
  padded: bool = False

  def shapes(self, groups: int) -> Shapes:
    """See Stream. Raises InputError where the options do not fit."""
    sides = {"query": _shapes(self, groups), "key": _shapes(self, groups)}
    return sides | {"items": (groups, self.batch // groups)}

  def draw(self, store: Store, seed: int, numbers: np.ndarray) -> Drawn:
    """See Stream."""
    mixture = self.mixture(store, seed)
    draws = mixture.sampler.draw(numbers)
    source, record = draws.source, draws.record
    mode = _bits(mix(seed, _MODE, numbers))
    partner = None
    if self.mixup == "adjacent":
      partner = source, (record + 1) % mixture.sampler.counts[source]
    elif self.mixup == "random":
      others = self.mixture(store, int(mix(seed, _PARTNER)))
      partner = others.sampler.draw(numbers)[:2]
    if partner is None:
      pairs = [(pair, None) for pair in mixture.read(source, record)]
    else:
      # One read a corpus for both: a read's cost is mostly the call.
      found = mixture.read(
        np.concatenate([source, partner[0]]),
        np.concatenate([record, partner[1]]),
      )
      middle = len(numbers)
      pairs = list(zip(found[:middle], found[middle:], strict=True))
    arranged = [
      self._arranged(m, c, d)
      for m, (c, d) in zip(mode.tolist(), pairs, strict=True)
    ]
    sides = {
      name: Side(
        *join([item[n] for item in arranged], self.max_side, store.ids)
      )
      for n, name in enumerate(("query", "key"))
    }
    return Drawn(mixture.corpora, *draws, mode, partner, sides)

  def mixture(self, store: Store, seed: int) -> Mixture:
    """See Stream."""
    return pair_mixture(self, store, seed)

  def arrangement(self, mode: int) -> dict[str, tuple[str, ...]]:
    """See Stream."""
    d = None if self.mixup == "none" else ("d1", "d2")
    query, key = self._arranged(mode, ("c1", "c2"), d)
    return {"query": query, "key": key}

  def _arranged(
    self, mode: int, c: Both[T], d: Both[T] | None
  ) -> Both[Line[T]]:
    """What the query and the key consist of, in order.

    Of mode, bit 0 turns the first side's order, 1 the second's, 2 lets the
    second side be the query, 3 crosses the partner's sides, where asked for.
    """
    one: Line[T]
    two: Line[T]
    if d is None:
      one, two = c[:1], c[1:]
    else:
      if self.cross_sides and mode & 8:
        d = (d[1], d[0])
      one, two = (c[0], d[0]), (c[1], d[1])
      if mode & 1:
        one = one[::-1]
      if mode & 2:
        two = two[::-1]
    return (two, one) if mode & 4 else (one, two)


def _directed(mode: int, pair: Both[T]) -> Both[T]:
  """A pair in the order that its row has it in."""
  return (pair[1], pair[0]) if mode & 1 else pair


def _bits(hashes: np.ndarray) -> np.ndarray:
  """The lowest bits, as many as anything here is decided by."""
  return (hashes & np.uint64(15)).astype(np.int64)


def _shapes(
  stream: "TextStream | PairStream | ContrastStream", groups: int
) -> Shapes:
  check_options(stream, groups)
  shape = (groups, rows_of(stream) // groups, stream.row_length)
  return dict.fromkeys(("tokens", "segments", "positions"), shape)
