"""Held-out batches whose tokens say which language they are of.

Their rows have one more array, "languages", int32 like tokens: 1 + the index of
the token's language in a list, 0 for padding and for what is not to be counted.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from infoxlm_jax.data import token_arrays
from infoxlm_jax.data.alternating_stream import AlternatingStream
from infoxlm_jax.data.mixture import ONLY_SIDE, Drawn
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.sampler import CYCLE, Sampler
from infoxlm_jax.data.streams import Shapes


def languages_of(store: Store) -> tuple[str, ...]:
  """The languages of prepared records, in alphabetical order."""
  of_pairs = {name for pair in store.pair_counts for name in pair}
  return tuple(sorted(of_pairs | set(store.text_counts)))


@dataclasses.dataclass(frozen=True)
class ByLanguage:
  """A stream with "languages" in its rows.

  Attributes:
    stream: whose items are a single sequence, of one language or with
      `language_ids`.
    languages: that the numbers in the rows stand for.
    examples: draw so many items of each corpus (a language, or a pair of
      languages), no item twice, and then those of the beginning again, which
      are not counted; of a smaller corpus all items. None: draw as the stream
      does.
  """

  stream: Any
  languages: tuple[str, ...]
  examples: int | None = None

  def __getattr__(self, name: str) -> Any:
    """Options of the stream: batch, rows, row_length, ..."""
    if name.startswith("__"):  # asked of a copy that has no `stream` yet
      raise AttributeError(name)
    return getattr(self.stream, name)

  def shapes(self, groups: int) -> Shapes:
    """See streams.Stream."""
    shapes: Shapes = self.stream.shapes(groups)
    return shapes | {"languages": shapes["tokens"]}

  def draw(self, store: Store, seed: int, numbers: np.ndarray) -> Drawn:
    """See streams.Stream."""
    stream, counted = self.stream, np.ones(len(numbers), bool)
    if self.examples is not None:
      stream = self._even
      chosen = self.chosen(store, seed)
      counted = numbers < len(chosen)
      numbers = chosen[numbers % len(chosen)]
    # Only streams whose items have several languages have the option.
    names = getattr(stream, "language_ids", self.languages)
    if names is None:
      names = self.languages
      stream = dataclasses.replace(stream, language_ids=names)
    by_frequency = getattr(stream, "frequencies", False)
    if by_frequency:  # counted as the stream draws, see below
      stream = dataclasses.replace(stream, frequencies=False)
    drawn: Drawn = stream.draw(store, seed, numbers)
    side = drawn.sides[ONLY_SIDE]
    arrays = dict(side.arrays)
    if hasattr(stream, "language_ids"):
      rows = arrays["types"]
    else:
      rows = [
        np.full(len(item), names.index(drawn.corpora[source][0]))
        for item, source in zip(side.items, drawn.source.tolist(), strict=True)
      ]
    if getattr(self.stream, "language_ids", names) is None:
      del arrays["types"]  # the model has no embeddings of languages
    if by_frequency:
      counts = token_arrays.token_counts(self.stream, store)
      arrays["counts"] = [counts[item] for item in side.items]
    table = self._numbers(names)
    arrays["languages"] = [
      np.where(count, table[row], 0).astype(np.int32)
      for row, count in zip(rows, counted.tolist(), strict=True)
    ]
    sides = {ONLY_SIDE: side._replace(arrays=arrays)}
    return drawn._replace(sides=sides)

  def chosen(self, store: Store, seed: int) -> np.ndarray:
    """Sample numbers of the items that are counted, int64, ascending."""
    assert self.examples is not None
    return _first_of_each(self._sampler(store, seed), self.examples)

  def counts(self, store: Store, seed: int) -> dict[str, int]:
    """Items that are counted of each corpus, by its name."""
    sources = self._sampler(store, seed).draw(self.chosen(store, seed)).source
    names = self._even.mixture(store, seed).names
    counts = np.bincount(sources, minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))

  @property
  def _even(self) -> Any:
    """The stream, drawing all corpora equally often."""
    return dataclasses.replace(self.stream, alpha=0.0, max_repeats=None)

  def _sampler(self, store: Store, seed: int) -> Sampler:
    sampler: Sampler = self._even.mixture(store, seed).sampler
    return sampler

  def _numbers(self, names: Sequence[str]) -> np.ndarray:
    """1 + index in `languages` of each name; 0 of one that is not there."""
    known = {name: n for n, name in enumerate(self.languages, start=1)}
    return np.array([known.get(name, 0) for name in names], np.int32)


def with_languages(stream: Any, languages: tuple[str, ...]) -> Any:
  """The stream, drawing as it does, with "languages" in its rows."""
  if isinstance(stream, AlternatingStream):
    parts = {
      name: ByLanguage(part, languages) for name, part in stream.streams.items()
    }
    return dataclasses.replace(stream, streams=parts)
  return ByLanguage(stream, languages)


@functools.lru_cache(maxsize=64)
def _first_of_each(sampler: Sampler, examples: int) -> np.ndarray:
  draws = sampler.draw(np.arange(CYCLE))
  places = [
    np.flatnonzero((draws.source == n) & (draws.epoch == 0))[:examples]
    for n in range(len(sampler.counts))
  ]
  return np.sort(np.concatenate(places))
