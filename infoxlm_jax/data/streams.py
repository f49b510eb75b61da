"""Streams: the options by which items are drawn, and the items of a number.

An item is a function of its number, the stream's options, the prepared records
and the seed. groups.py packs the items of a batch into rows.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from infoxlm_jax.data import token_arrays
from infoxlm_jax.data.mixture import (
  ONLY_SIDE,
  Drawn,
  Mixture,
  pair_mixture,
  text_mixture,
)
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.sampler import mix

# Of a text, four times are worth as much as new text, and sixteen times next to
# nothing (Muennighoff et al. 2023). It matters where sizes differ by thousands.
MAX_REPEATS = 16.0

Shapes = dict[str, Any]
T = TypeVar("T")
Pair = tuple[T, T]
Sentences = tuple[T, ...]

# Tags of hashes of (seed, tag, number) that decide an item; sampler.py: 1, 2.
_DIRECTION, _MODE, _PARTNER = 11, 12, 13


class Stream(Protocol):
  """A stream, as the loader and the inspection of batches use it."""

  @property
  def batch(self) -> int:
    """Items of an update, of all groups together."""

  @property
  def rows(self) -> int | None:
    """Rows of an update, of all groups together; None: to be chosen."""

  @property
  def row_length(self) -> int:
    """Tokens of a row."""

  def shapes(self, groups: int) -> Shapes:
    """Shapes of the whole batch: nested dicts of (groups, rows, length)."""

  def draw(self, store: Store, seed: int, numbers: np.ndarray) -> Drawn:
    """The items of these numbers, before they are packed."""

  def mixture(self, store: Store, seed: int) -> Mixture:
    """The corpora that the stream draws from, and their sampler."""

  def arrangement(self, mode: int) -> dict[str, tuple[str, ...]]:
    """The order of an item's sentences, for each of its sides.

    Args:
      mode: of an item, see Drawn.

    Returns:
      {side: names of sentences}: "c1" and "c2" of an item's own pair, "d1" and
      "d2" of its partner; "a1" of a block.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextStream:
  """Blocks of one language each: the rows of masked language modelling.

  Attributes:
    batch: blocks of an update.
    rows: rows of an update, of all groups together. None: as many as the
      prepared blocks fill to about 95 %, see row_budget.py.
    row_length: tokens of a row.
    languages: codes of prepared languages; None: all.
    alpha: a language with n tokens is drawn in proportion to n^alpha.
    max_repeats: the most epochs of a language in as many items as all
      languages have; see Sampler. None: no limit.
    padded: one item in a row (rows = batch), instead of packing.
    language_ids: codes in the order of the type embedding's rows, which tokens
      get as "types"; None: they get none.
    frequencies: whether tokens get "counts", see token_arrays.py.
  """

  batch: int
  rows: int | None = None
  row_length: int
  languages: Sequence[str] | None = None
  alpha: float = 0.7
  max_repeats: float | None = MAX_REPEATS
  padded: bool = False
  language_ids: Sequence[str] | None = None
  frequencies: bool = False

  def shapes(self, groups: int) -> Shapes:
    """See Stream. Raises InputError where the options do not fit."""
    return token_arrays.shapes(self, groups)

  def draw(self, store: Store, seed: int, numbers: np.ndarray) -> Drawn:
    """See Stream."""
    mixture = self.mixture(store, seed)
    draws = mixture.sampler.draw(numbers)
    blocks = mixture.read(draws.source, draws.record)
    languages = [mixture.corpora[n] for n in draws.source.tolist()]
    side = token_arrays.text_side(self, store, blocks, languages)
    mode = np.zeros(len(blocks), np.int64)
    return Drawn(mixture.corpora, *draws, mode, None, {ONLY_SIDE: side})

  def mixture(self, store: Store, seed: int) -> Mixture:
    """See Stream."""
    return text_mixture(self, store, seed)

  def arrangement(self, mode: int) -> dict[str, tuple[str, ...]]:
    """See Stream; a block is one sequence."""
    del mode
    return {ONLY_SIDE: ("a1",)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairStream:
  """Translation pairs as one sequence, `<s> a </s> b </s>`: the rows of TLM.

  The seed and the item's number decide which sentence comes first. The n of
  n^alpha is pairs, and a pair of languages takes part where `languages` has
  both. Attributes as TextStream's, and

    max_side: the most tokens of a sentence, which is cut beyond them (the
      released code: 253).
    restart_positions: `<s> a </s> <s> b </s>`, with positions from 0 in both.
    both_directions: an epoch has each pair twice, once in each order (the
      released code).
  """

  batch: int
  rows: int | None = None
  row_length: int
  languages: Sequence[str] | None = None
  alpha: float = 0.7
  max_repeats: float | None = MAX_REPEATS
  max_side: int = 254
  padded: bool = False
  language_ids: Sequence[str] | None = None
  frequencies: bool = False
  restart_positions: bool = False
  both_directions: bool = False

  def shapes(self, groups: int) -> Shapes:
    """See Stream. Raises InputError where the options do not fit."""
    return token_arrays.shapes(self, groups)

  def draw(self, store: Store, seed: int, numbers: np.ndarray) -> Drawn:
    """See Stream."""
    mixture = self.mixture(store, seed)
    source, record, epoch = mixture.sampler.draw(numbers)
    mode = _bits(mix(seed, _DIRECTION, numbers))
    if self.both_directions:
      record, mode = np.divmod(record, 2)
    pairs = mixture.read(source, record)
    names = [mixture.corpora[n] for n in source.tolist()]
    items = [_directed(*item) for item in zip(mode, pairs, strict=True)]
    languages = [_directed(*item) for item in zip(mode, names, strict=True)]
    side = token_arrays.pair_side(self, store, items, languages)
    own = mixture.corpora, source, record, epoch, mode, None
    return Drawn(*own, {ONLY_SIDE: side})

  def mixture(self, store: Store, seed: int) -> Mixture:
    """See Stream."""
    orders = 1 + self.both_directions
    return pair_mixture(self, store, seed, lambda pairs: orders * pairs)

  def arrangement(self, mode: int) -> dict[str, tuple[str, ...]]:
    """See Stream."""
    return {ONLY_SIDE: _directed(mode, ("c1", "c2"))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastStream:
  """Queries and keys of the same meaning: the items of XlCo.

  An item is a translation pair (c1, c2); with mixup it has a partner (d1, d2):

    without     query `<s> c1 </s>`, key `<s> c2 </s>`
    with mixup  query `<s> c1 </s> d1 </s>`, key `<s> c2 </s> d2 </s>`

  With "adjacent" the partner is the next record of the same corpus (after the
  last the first), and with "random" any pair of the mixture. With "disjoint",
  as in the released code, item q is records 2q and 2q + 1 of a corpus, so that
  an epoch has each pair once; of an odd number the last takes no part. The seed
  and the item's number decide which side is the query and, with mixup, whether
  the sentences of each side change places: eight modes, equally often. With
  cross_sides, as in the paper's text, half of the items have query `c1 d2` and
  key `c2 d1`.

  The arrays of a group are {"query": {...}, "key": {...}, "items": [n]}; each
  side is packed by itself. Item n is segment n + 1 of both sides, and items[n]
  is the index of its corpus. `truncated_items` counts queries and keys.
  Attributes as PairStream's, and

    mixup: "none", "adjacent", "disjoint" or "random".
    cross_sides: whether half of the items have their sides crossed.
    join_after_masking: keep the `<s>` of d1 and d2, so that the contrast draws
      masks for each sentence, and joins them when that is done; see
      masking.join_sentences (the released code).
    prefix: before each query and key, see prefixes.py; "query: " for e5.
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
  join_after_masking: bool = False
  prefix: str = ""

  def shapes(self, groups: int) -> Shapes:
    """See Stream. Raises InputError where the options do not fit."""
    sides = dict.fromkeys(("query", "key"), token_arrays.shapes(self, groups))
    return sides | {"items": (groups, self.batch // groups)}

  def draw(self, store: Store, seed: int, numbers: np.ndarray) -> Drawn:
    """See Stream."""
    mixture = self.mixture(store, seed)
    source, record, epoch = mixture.sampler.draw(numbers)
    mode = _bits(mix(seed, _MODE, numbers))
    partner = None
    if self.mixup == "disjoint":
      record = 2 * record
      partner = source, record + 1
    elif self.mixup == "adjacent":
      partner = source, (record + 1) % mixture.sampler.counts[source]
    elif self.mixup == "random":
      others = self.mixture(store, int(mix(seed, _PARTNER)))
      partner = others.sampler.draw(numbers)[:2]
    pairs = mixture.read_with_partners(source, record, partner)
    arranged = [
      self._arranged(m, c, d)
      for m, (c, d) in zip(mode.tolist(), pairs, strict=True)
    ]
    sides = {
      name: token_arrays.contrast_side(self, store, [a[n] for a in arranged])
      for n, name in enumerate(("query", "key"))
    }
    return Drawn(mixture.corpora, source, record, epoch, mode, partner, sides)

  def mixture(self, store: Store, seed: int) -> Mixture:
    """See Stream."""
    each = 2 if self.mixup == "disjoint" else 1
    return pair_mixture(self, store, seed, lambda pairs: pairs // each)

  def arrangement(self, mode: int) -> dict[str, tuple[str, ...]]:
    """See Stream."""
    d = None if self.mixup == "none" else ("d1", "d2")
    query, key = self._arranged(mode, ("c1", "c2"), d)
    return {"query": query, "key": key}

  def _arranged(
    self, mode: int, c: Pair[T], d: Pair[T] | None
  ) -> Pair[Sentences[T]]:
    """The sentences of the query and of the key, in order.

    Bit 0 of mode reverses the sentences of the first side, bit 1 those of the
    second, bit 2 makes the second side the query, and bit 3 crosses the
    partner's sides, with cross_sides.
    """
    first: Sentences[T]
    second: Sentences[T]
    if d is None:
      first, second = c[:1], c[1:]
    else:
      if self.cross_sides and mode & 8:
        d = (d[1], d[0])
      first, second = (c[0], d[0]), (c[1], d[1])
      if mode & 1:
        first = first[::-1]
      if mode & 2:
        second = second[::-1]
    return (second, first) if mode & 4 else (first, second)


def _directed(mode: int, pair: Sequence[T]) -> Pair[T]:
  """The pair, turned where bit 0 of mode is set."""
  return (pair[1], pair[0]) if mode & 1 else (pair[0], pair[1])


def _bits(hashes: np.ndarray) -> np.ndarray:
  """The lowest four bits of each hash: an item's mode."""
  return (hashes & np.uint64(15)).astype(np.int64)
