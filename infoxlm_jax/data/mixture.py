"""The corpora of a stream, and the items that it draws from them."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from infoxlm_jax.data.records import Store
from infoxlm_jax.data.sampler import Sampler
from infoxlm_jax.data.stream_options import pair_names, wanted_languages
from infoxlm_jax.errors import InputError

# The name of the side of a stream whose items have only one.
ONLY_SIDE = ""


class Side(NamedTuple):
  """One token sequence of each item, and its length before any cut.

  Attributes:
    items: token ids of each item.
    full: length of each item before any cut.
    arrays: other int32 arrays of the items' lengths, by name; see
      token_arrays.py.
  """

  items: Sequence[np.ndarray]
  full: Sequence[int]
  arrays: Mapping[str, Sequence[np.ndarray]] = MappingProxyType({})


class Drawn(NamedTuple):
  """Items that a stream drew: their records and their tokens.

  Attributes:
    corpora: languages of each corpus of the mixture.
    source, record, epoch: of each item, int64 [items]; source is an index into
      corpora.
    mode: int64 [items], the bits that decide the order, the roles and the
      crossing of an item's sentences; see Stream.arrangement.
    partner: (source, record) of each item's partner; None without mixup.
    sides: the item's token sequences by name: "query" and "key", or ONLY_SIDE.
    labels: of each item, int32 [items] or [items, numbers]; None where items
      have none.
  """

  corpora: Sequence[tuple[str, ...]]
  source: np.ndarray
  record: np.ndarray
  epoch: np.ndarray
  mode: np.ndarray
  partner: tuple[np.ndarray, np.ndarray] | None
  sides: dict[str, Side]
  labels: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Mixture:
  """Corpora with their sampler.

  Attributes:
    corpora: languages of each, one or two.
    weights: the n of n^alpha of each.
    sampler: sample number -> corpus and record.
    read_one: (languages, record numbers) -> the content of each record.
  """

  corpora: list[tuple[str, ...]]
  weights: tuple[int, ...]
  sampler: Sampler
  read_one: Callable[[tuple[str, ...], np.ndarray], Sequence[Any]]

  @property
  def names(self) -> list[str]:
    """Language or pair of each corpus: en, en-de."""
    return ["-".join(languages) for languages in self.corpora]

  def read(self, source: np.ndarray, record: np.ndarray) -> list[Any]:
    """The content of records, in the order asked for.

    Args:
      source: index of each record's corpus, int64 [records].
      record: number of each record in its corpus, int64 [records].
    """
    out: list[Any] = [None] * len(source)
    for number in np.unique(source).tolist():
      places = np.flatnonzero(source == number)
      contents = self.read_one(self.corpora[number], record[places])
      for place, content in zip(places.tolist(), contents, strict=True):
        out[place] = content
    return out

  def read_with_partners(
    self,
    source: np.ndarray,
    record: np.ndarray,
    partner: tuple[np.ndarray, np.ndarray] | None,
  ) -> list[tuple[Any, Any]]:
    """The content of records, each with its partner's; None: no partner.

    Args:
      source, record: as `read` takes them.
      partner: (source, record) of each record's partner.
    """
    if partner is None:
      return [(content, None) for content in self.read(source, record)]
    # One read of each corpus for records and partners: the call costs more
    # than its records.
    both = self.read(
      np.concatenate([source, partner[0]]), np.concatenate([record, partner[1]])
    )
    count = len(source)
    return list(zip(both[:count], both[count:], strict=True))

  def epochs(self, position: int) -> dict[str, float]:
    """Epochs of each corpus, whole and begun, before position."""
    return dict(zip(self.names, self.sampler.epochs(position), strict=True))


def text_mixture(stream: Any, store: Store, seed: int) -> Mixture:
  """A text stream's mixture: one corpus a language, n is its tokens.

  Raises:
    InputError: no texts are prepared, or not those of a named language.
  """
  wanted = wanted_languages(stream, stream.languages, store.text_counts)
  names = [n for n in store.text_counts if n in wanted]
  return _mixture(
    stream,
    seed,
    [(name,) for name in names],
    [store.text_counts[n] for n in names],
    [store.text_tokens[n] for n in names],
    lambda languages, record: store.read_text(languages[0], record),
  )


def pair_mixture(
  stream: Any,
  store: Store,
  seed: int,
  items_of: Callable[[int], int] = lambda pairs: pairs,
) -> Mixture:
  """A pair stream's mixture: one corpus a pair of languages, n is its pairs.

  A pair takes part where the stream names both its languages.

  Args:
    stream: a PairStream or a ContrastStream.
    store: of the records.
    seed: of the stream.
    items_of: number of pairs of a corpus -> number of its items, of which each
      is drawn once in an epoch. The sampler's records are items.

  Raises:
    InputError: no pairs are prepared, the named languages leave none, or a
      corpus has too few pairs for an item.
  """
  known = {name for pair in store.pair_counts for name in pair}
  wanted = wanted_languages(stream, stream.languages, known)
  pairs = [p for p in store.pair_counts if set(p) <= wanted]
  if not pairs:
    raise InputError(
      f"{type(stream).__name__}.languages = {stream.languages!r} leaves no "
      f"pair: {store.folder} holds {pair_names(store.pair_counts)}, and a "
      "pair takes part where both its languages are named."
    )
  return _pair_mixture(stream, store, seed, pairs, items_of)


def document_mixture(stream: Any, store: Store, seed: int) -> Mixture:
  """A mixture of documents: `stream.sentences` consecutive pairs of a corpus.

  The first document of a corpus has its first pairs, and so on; the last one
  may have fewer. n is pairs.

  Raises:
    InputError: no pairs are prepared, or the named languages leave none.
  """
  pairs = pair_mixture(stream, store, seed)
  sizes = pairs.sampler.counts.tolist()

  def read(corpus: tuple[str, ...], document: np.ndarray) -> list[Any]:
    size = sizes[pairs.corpora.index(corpus)]
    first = document * stream.sentences
    lengths = np.minimum(size - first, stream.sentences)
    before = np.repeat(np.cumsum(lengths) - lengths, lengths)
    record = np.repeat(first, lengths) + np.arange(lengths.sum()) - before
    contents = pairs.read_one(corpus, record)
    ends = np.cumsum(lengths).tolist()
    return [contents[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]

  counts = [-(-size // stream.sentences) for size in sizes]
  return _mixture(stream, seed, pairs.corpora, counts, pairs.weights, read)


def segment_mixture(stream: Any, store: Store, seed: int) -> Mixture:
  """The mixture of a stream of adjacent segments: pairs of one language.

  Raises:
    InputError: none are prepared, or not those of a named language.
  """
  known = [a for a, b in store.pair_counts if a == b]
  if not known:
    raise InputError(
      f"{type(stream).__name__}: {store.folder} holds no adjacent segments of"
      " documents. Prepare text with document boundaries by"
      " gin/prepare/documents.gin."
    )
  wanted = wanted_languages(stream, stream.languages, known)
  pairs = [p for p in store.pair_counts if p[0] == p[1] and p[0] in wanted]
  return _pair_mixture(stream, store, seed, pairs)


def example_mixture(stream: Any, store: Any, seed: int) -> Mixture:
  """The mixture of a LabelledStream: one corpus a language, n is its examples.

  Raises:
    InputError: there are no examples.
  """
  names = list(store.examples)
  counts = [len(store.examples[name]) for name in names]
  return _mixture(
    stream,
    seed,
    [(name,) for name in names],
    counts,
    counts,
    lambda languages, record: store.examples[languages[0]].read(record),
  )


def _pair_mixture(
  stream: Any,
  store: Store,
  seed: int,
  pairs: Sequence[tuple[str, str]],
  items_of: Callable[[int], int] = lambda pairs: pairs,
) -> Mixture:
  weights = [store.pair_counts[p] for p in pairs]
  counts = [items_of(n) for n in weights]
  if 0 in counts:
    name = pair_names([pairs[counts.index(0)]])
    raise InputError(
      f"{type(stream).__name__}: an item needs two pairs of the same languages,"
      f" and {store.folder} holds one of {name}. Leave {name} out of"
      f" `languages`, or set mixup = 'adjacent'."
    )
  return _mixture(
    stream,
    seed,
    pairs,
    counts,
    weights,
    lambda pair, record: store.read_pairs((pair[0], pair[1]), record),
  )


def _mixture(
  stream: Any,
  seed: int,
  corpora: Sequence[tuple[str, ...]],
  counts: Sequence[int],
  weights: Sequence[int],
  read_one: Callable[[tuple[str, ...], np.ndarray], Sequence[Any]],
) -> Mixture:
  sampler = _cached_sampler(
    tuple(counts), tuple(weights), stream.alpha, seed, stream.max_repeats
  )
  return Mixture(list(corpora), tuple(weights), sampler, read_one)


@functools.lru_cache(maxsize=64)
def _cached_sampler(
  counts: tuple[int, ...],
  weights: tuple[int, ...],
  alpha: float,
  seed: int,
  max_repeats: float | None,
) -> Sampler:
  return Sampler(counts, weights, alpha, seed, max_repeats)
