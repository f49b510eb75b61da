"""The stream of paraphrase classification: translations, and near misses."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from infoxlm_jax.data import near_sentences, token_arrays
from infoxlm_jax.data.mixture import (
  ONLY_SIDE,
  Drawn,
  Mixture,
  pair_mixture,
)
from infoxlm_jax.data.other_records import another, check_others
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.sampler import mix
from infoxlm_jax.data.streams import MAX_REPEATS, PairStream, Shapes
from infoxlm_jax.errors import InputError

# Tags of the hashes of (seed, tag, number); the other streams use 1 to 15 and
# 19.
_DIRECTION, _NEGATIVE, _CANDIDATE = 16, 17, 18


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParaphraseStream:
  """Two sentences `<s> x </s> y </s>`, and whether y is a translation of x.

  These are the pairs of Unicoder's paraphrase classification (Huang et al.
  2019). With probability 1/2, which the seed and the item's number decide, a
  sentence of another record of the same corpus replaces y. The paper trains a
  deep averaging network, which picks a sentence near in meaning. Here no model
  is trained: of `candidates` other records
  the one whose sentence is nearest to y replaces it, by the cosine of bags of
  pieces, where rare pieces weigh more (near_sentences.py). Both sentences that
  are compared are of y's language. A record with the same x or the same y is
  never chosen, for it would be a translation as well; where all candidates are
  such records, the item stays a translation.

  The seed and the number also decide which language comes first. Besides the
  arrays of data/groups.py a group has "labels" [items]: 1 for a translation, 0
  for another sentence. Attributes as PairStream's, and

    candidates: records that a negative is chosen from; 1: any other record.
  """

  batch: int
  rows: int | None = None
  row_length: int
  languages: Sequence[str] | None = None
  alpha: float = 0.7
  max_repeats: float | None = MAX_REPEATS
  max_side: int = 254
  candidates: int = 8
  padded: bool = False
  language_ids: Sequence[str] | None = None
  restart_positions: bool = False
  frequencies: ClassVar[bool] = False
  mixup: ClassVar[str] = "random"  # how an inspection calls the partner

  def shapes(self, groups: int) -> Shapes:
    """See Stream. Raises InputError where the options do not fit."""
    if self.candidates < 1:
      raise InputError(
        f"ParaphraseStream.candidates = {self.candidates} must be at least 1,"
        " which takes any other record as a negative."
      )
    rows = token_arrays.shapes(self, groups)
    return rows | {"labels": (groups, self.batch // groups)}

  def draw(self, store: Store, seed: int, numbers: np.ndarray) -> Drawn:
    """See Stream; the partner of an item is the record that may give y.

    Raises:
      InputError: a pair of languages has a single record.
    """
    mixture = self.mixture(store, seed)
    draws = mixture.sampler.draw(numbers)
    source, record = draws.source, draws.record
    check_others(self, store, mixture, source, "sentences")
    turned = _coin(seed, _DIRECTION, numbers)
    negative = _coin(seed, _NEGATIVE, numbers)
    count, tries = len(numbers), self.candidates
    hashes = mix(seed, _CANDIDATE, numbers[:, None], np.arange(tries))
    others = another(mixture, source[:, None], record[:, None], hashes)
    read = mixture.read(
      np.concatenate([source, np.repeat(source, tries)]),
      np.concatenate([record, others.reshape(-1)]),
    )
    directed = [
      (b, a) if turn else (a, b)
      for (a, b), turn in zip(
        read, [*turned, *np.repeat(turned, tries)], strict=True
      )
    ]
    own, candidates = directed[:count], directed[count:]
    chosen = near_sentences.nearest(
      own, candidates, self._weights(store) if tries > 1 else None
    )
    negative &= chosen >= 0
    at = np.arange(count) * tries + np.maximum(chosen, 0)
    items = [
      (x, candidates[n][1] if is_negative else y)
      for (x, y), n, is_negative in zip(
        own, at.tolist(), negative.tolist(), strict=True
      )
    ]
    names = [mixture.corpora[n] for n in source.tolist()]
    languages = [
      (b, a) if turn else (a, b)
      for (a, b), turn in zip(names, turned.tolist(), strict=True)
    ]
    side = token_arrays.pair_side(self, store, items, languages)
    return Drawn(
      mixture.corpora,
      *draws,
      turned + 2 * negative,
      (source, others.reshape(-1)[at]),
      {ONLY_SIDE: side},
      (1 - negative).astype(np.int32),
    )

  def mixture(self, store: Store, seed: int) -> Mixture:
    """See Stream."""
    return pair_mixture(self, store, seed)

  def arrangement(self, mode: int) -> dict[str, tuple[str, ...]]:
    """See Stream."""
    x, y = ("2", "1") if mode & 1 else ("1", "2")
    return {ONLY_SIDE: (f"c{x}", f"d{y}" if mode & 2 else f"c{y}")}

  def _weights(self, store: Store) -> np.ndarray:
    """Of every id, from counts in a sample of the same pairs."""
    pairs = PairStream(
      batch=1,
      row_length=self.row_length,
      languages=self.languages,
      alpha=self.alpha,
      max_repeats=self.max_repeats,
      max_side=self.max_side,
    )
    return near_sentences.rarity(token_arrays.token_counts(pairs, store))


def _coin(seed: int, tag: int, numbers: np.ndarray) -> np.ndarray:
  """0 or 1 for each item, int64."""
  return (mix(seed, tag, numbers) & np.uint64(1)).astype(np.int64)
