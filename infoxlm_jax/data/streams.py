"""What a step reads: items drawn by number, packed into the rows of a group.

A stream is a few options and a pure function `build` of (prepared records,
seed, position, group). Sample j of group g of G is number
position + g * batch / G + j, whichever host asks and whatever came before.
The arrays of a group, all int32 and [rows / G, row_length]:

    tokens     ids; <pad> where nothing stands
    segments   n + 1 for the n-th item of the group; 0 where nothing stands
    positions  0, 1, ... within each item; 0 where nothing stands
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from infoxlm_jax.data.order import Draws, Sampler, mix
from infoxlm_jax.data.packing import join, place
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.stream_checks import (
  check_options,
  pair_names,
  wanted_languages,
)
from infoxlm_jax.errors import InputError
from infoxlm_jax.vocabulary import Ids

STATS = ("items", "tokens", "slots", "truncated_items", "cut_tokens")

Arrays = dict[str, Any]
Stats = dict[str, int]
Shapes = dict[str, Any]
Sides = tuple[np.ndarray, np.ndarray]

# What a hash of (seed, tag, number) decides; order.Sampler has 1 and 2.
_DIRECTION, _MODE, _PARTNER = 11, 12, 13


class Stream(Protocol):
  """What the loader asks of a stream."""

  @property
  def batch(self) -> int:
    """Items per update, of all groups together."""

  def shapes(self, groups: int) -> Shapes:
    """Shapes of the whole batch: nested dicts of (groups, rows, length)."""

  def build(
    self, store: Store, seed: int, position: int, group: int, groups: int
  ) -> tuple[Arrays, Stats]:
    """Arrays of one group, without the group axis, and counts."""

  def epochs(self, store: Store, seed: int, position: int) -> dict[str, float]:
    """How often each language or pair was gone through before position."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextStream:
  """Blocks of one language each: the rows of masked language modelling.

  Attributes:
    batch: blocks per update.
    rows: rows of the encoder per update, all groups together.
    row_length: tokens a row.
    languages: which of the prepared ones; None takes all.
    alpha: a language with n tokens is drawn in proportion to n^alpha.
    padded: one item a row (rows = batch) instead of packing.
  """

  batch: int
  rows: int
  row_length: int
  languages: Sequence[str] | None = None
  alpha: float = 0.7
  padded: bool = False

  def shapes(self, groups: int) -> Shapes:
    """See Stream. Raises InputError where the options do not fit."""
    return _shapes(self, groups)

  def build(
    self, store: Store, seed: int, position: int, group: int, groups: int
  ) -> tuple[Arrays, Stats]:
    """See Stream. Raises InputError where the options do not fit."""
    check_options(self, groups)
    sampler, names = self._sampler(store, seed)
    draws = sampler.draw(_numbers(self, position, group, groups))
    blocks: list[np.ndarray] = [np.empty(0, np.int32)] * len(draws.source)
    for source, places in _by_source(draws.source):
      found = store.read_text(names[source], draws.record[places])
      for at, block in zip(places.tolist(), found, strict=True):
        blocks[at] = block
    stats = dict.fromkeys(STATS, 0)
    stats["items"] = len(blocks)
    full = [len(block) for block in blocks]
    return _placed(self, blocks, full, groups, store.ids, stats), stats

  def epochs(self, store: Store, seed: int, position: int) -> dict[str, float]:
    """See Stream."""
    sampler, names = self._sampler(store, seed)
    return dict(zip(names, sampler.epochs(position), strict=True))

  def _sampler(self, store: Store, seed: int) -> tuple[Sampler, list[str]]:
    wanted = wanted_languages(self, self.languages, store.text_counts)
    names = [n for n in store.text_counts if n in wanted]
    counts = tuple(store.text_counts[n] for n in names)
    tokens = tuple(store.text_tokens[n] for n in names)
    return _cached_sampler(counts, tokens, self.alpha, seed), names


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairStream:
  """Translation pairs in one row, `<s> a </s> b </s>`: the rows of TLM.

  Which side comes first is drawn from the seed. Attributes as TextStream's,
  but n is pairs, a pair takes part where both its languages do, and

    max_side: tokens of a sentence beyond which it is cut (the
      released code: 254).
  """

  batch: int
  rows: int
  row_length: int
  languages: Sequence[str] | None = None
  alpha: float = 0.7
  max_side: int = 254
  padded: bool = False

  def shapes(self, groups: int) -> Shapes:
    """See Stream. Raises InputError where the options do not fit."""
    return _shapes(self, groups)

  def build(
    self, store: Store, seed: int, position: int, group: int, groups: int
  ) -> tuple[Arrays, Stats]:
    """See Stream. Raises InputError where the options do not fit."""
    check_options(self, groups)
    pairs = _Pairs(self, store, seed)
    numbers = _numbers(self, position, group, groups)
    sides = pairs.read(*pairs.sampler.draw(numbers)[:2])
    swap = (mix(seed, _DIRECTION, numbers) & np.uint64(1)).astype(bool)
    stats = dict.fromkeys(STATS, 0)
    stats["items"] = len(sides)
    items, full = join(
      [(b, a) if s else (a, b) for (a, b), s in zip(sides, swap, strict=True)],
      self.max_side,
      store.ids,
    )
    return _placed(self, items, full, groups, store.ids, stats), stats

  def epochs(self, store: Store, seed: int, position: int) -> dict[str, float]:
    """See Stream."""
    return _Pairs(self, store, seed).epochs(position)


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
  rows: int
  row_length: int
  languages: Sequence[str] | None = None
  alpha: float = 0.7
  max_side: int = 254
  mixup: str = "none"
  cross_sides: bool = False
  padded: bool = False

  def shapes(self, groups: int) -> Shapes:
    """See Stream. Raises InputError where the options do not fit."""
    sides = {"query": _shapes(self, groups), "key": _shapes(self, groups)}
    return sides | {"items": (groups, self.batch // groups)}

  def build(
    self, store: Store, seed: int, position: int, group: int, groups: int
  ) -> tuple[Arrays, Stats]:
    """See Stream. Raises InputError where the options do not fit."""
    check_options(self, groups)
    numbers = _numbers(self, position, group, groups)
    stats = dict.fromkeys(STATS, 0)
    stats["items"] = len(numbers)
    pairs = _Pairs(self, store, seed)
    draws = pairs.sampler.draw(numbers)
    arrays: Arrays = {"items": draws.source.astype(np.int32)}
    sides = self._sides(store, seed, numbers, pairs, draws)
    for name, sentences in zip(("query", "key"), sides, strict=True):
      items, full = join(sentences, self.max_side, store.ids)
      arrays[name] = _placed(self, items, full, groups, store.ids, stats)
    return arrays, stats

  def epochs(self, store: Store, seed: int, position: int) -> dict[str, float]:
    """See Stream; partners are not counted."""
    return _Pairs(self, store, seed).epochs(position)

  def _sides(
    self,
    store: Store,
    seed: int,
    numbers: np.ndarray,
    pairs: "_Pairs",
    draws: Draws,
  ) -> tuple[list[tuple[np.ndarray, ...]], list[tuple[np.ndarray, ...]]]:
    """The sentences of each query and of each key."""
    modes = mix(seed, _MODE, numbers).tolist()
    source, record = draws.source, draws.record
    if self.mixup == "none":
      queries_keys = [
        _roles(mode, (a,), (b,))
        for mode, (a, b) in zip(modes, pairs.read(source, record), strict=True)
      ]
    else:
      if self.mixup == "adjacent":
        partner = source, (record + 1) % pairs.sampler.counts[source]
      else:
        other = _Pairs(self, store, int(mix(seed, _PARTNER)))
        partner = other.sampler.draw(numbers)[:2]
      # One read a corpus for both: a read's cost is mostly the call.
      found = pairs.read(
        np.concatenate([source, partner[0]]),
        np.concatenate([record, partner[1]]),
      )
      queries_keys = [
        self._mixed(mode, c, d)
        for mode, c, d in zip(
          modes, found[: len(modes)], found[len(modes) :], strict=True
        )
      ]
    return [q for q, _ in queries_keys], [k for _, k in queries_keys]

  def _mixed(
    self, mode: int, c: Sides, d: Sides
  ) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    if self.cross_sides and mode & 8:
      d = (d[1], d[0])
    one, two = (c[0], d[0]), (c[1], d[1])
    return _roles(
      mode,
      one[::-1] if mode & 1 else one,
      two[::-1] if mode & 2 else two,
    )


class _Pairs:
  """The pair corpora that a stream draws from."""

  def __init__(
    self, stream: "PairStream | ContrastStream", store: Store, seed: int
  ):
    known = {name for pair in store.pair_counts for name in pair}
    wanted = wanted_languages(stream, stream.languages, known)
    self.names = [p for p in store.pair_counts if set(p) <= wanted]
    if not self.names:
      raise InputError(
        f"{type(stream).__name__}.languages = {stream.languages!r} leaves no "
        f"pair: {store.folder} holds {pair_names(store.pair_counts)}, and a "
        "pair takes part where both its languages are named."
      )
    counts = tuple(store.pair_counts[p] for p in self.names)
    self.sampler = _cached_sampler(counts, counts, stream.alpha, seed)
    self.store = store

  def read(self, source: np.ndarray, record: np.ndarray) -> list[Sides]:
    out: list[Sides] = [(np.empty(0), np.empty(0))] * len(source)
    for number, places in _by_source(source):
      found = self.store.read_pairs(self.names[number], record[places])
      for at, sides in zip(places.tolist(), found, strict=True):
        out[at] = sides
    return out

  def epochs(self, position: int) -> dict[str, float]:
    names = ["-".join(pair) for pair in self.names]
    return dict(zip(names, self.sampler.epochs(position), strict=True))


@functools.lru_cache(maxsize=64)
def _cached_sampler(
  counts: tuple[int, ...], weights: tuple[int, ...], alpha: float, seed: int
) -> Sampler:
  return Sampler(counts, weights, alpha, seed)


def _roles(
  mode: int, one: tuple[np.ndarray, ...], two: tuple[np.ndarray, ...]
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
  return (two, one) if mode & 4 else (one, two)


def _placed(
  stream: "TextStream | PairStream | ContrastStream",
  items: Sequence[np.ndarray],
  full: Sequence[int],
  groups: int,
  ids: Ids,
  stats: Stats,
) -> Arrays:
  rows = stream.rows // groups
  return place(items, full, rows, stream.row_length, stream.padded, ids, stats)


def _numbers(
  stream: Stream, position: int, group: int, groups: int
) -> np.ndarray:
  each = stream.batch // groups
  return position + group * each + np.arange(each, dtype=np.int64)


def _by_source(source: np.ndarray) -> list[tuple[int, np.ndarray]]:
  return [(int(n), np.flatnonzero(source == n)) for n in np.unique(source)]


def _shapes(
  stream: "TextStream | PairStream | ContrastStream", groups: int
) -> Shapes:
  check_options(stream, groups)
  shape = (groups, stream.rows // groups, stream.row_length)
  return dict.fromkeys(("tokens", "segments", "positions"), shape)
