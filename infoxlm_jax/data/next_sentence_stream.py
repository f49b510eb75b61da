"""The stream of BERT's next-sentence prediction."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from infoxlm_jax.data import token_arrays
from infoxlm_jax.data.mixture import (
  ONLY_SIDE,
  Drawn,
  Mixture,
  Side,
  segment_mixture,
)
from infoxlm_jax.data.other_records import another, check_others
from infoxlm_jax.data.packing import join
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.sampler import mix
from infoxlm_jax.data.streams import MAX_REPEATS, Shapes

# Tags of the hashes of (seed, tag, number); the other streams use 1 to 13.
_SWAPPED, _OTHER = 14, 15


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextSentenceStream:
  """Two segments, `[CLS] a [SEP] b [SEP]`, and whether b follows a.

  An item is a record of adjacent segments of a document
  (corpora.documents); with probability 1/2, which the seed and the item's
  number decide, the second side of another record of the same language
  replaces b (Devlin et al. 2019, section 3.1). Records do not say of which
  document they are, so once in a while the other one is of the same.

  There is one item in a row. Besides the arrays of data/groups.py a group has
  "types", 0 up to the first [SEP] and 1 after it, and "labels" [items], 0
  where b follows a and 1 where it does not. Attributes as PairStream's.
  """

  batch: int
  rows: int | None = None
  row_length: int
  languages: Sequence[str] | None = None
  alpha: float = 0.7
  max_repeats: float | None = MAX_REPEATS
  max_side: int = 254
  padded: ClassVar[bool] = True
  type_rows: ClassVar[int] = 2
  mixup: ClassVar[str] = "random"  # how an inspection calls the partner

  def shapes(self, groups: int) -> Shapes:
    """See Stream. Raises InputError where the options do not fit."""
    rows = token_arrays.shapes(self, groups)
    return rows | {"labels": (groups, self.batch // groups)}

  def draw(self, store: Store, seed: int, numbers: np.ndarray) -> Drawn:
    """See Stream; the partner of an item is the record that may give b.

    Raises:
      InputError: a language has a single record.
    """
    mixture = self.mixture(store, seed)
    draws = mixture.sampler.draw(numbers)
    source, record = draws.source, draws.record
    check_others(self, store, mixture, source, "segments")
    swapped = (mix(seed, _SWAPPED, numbers) & np.uint64(1)).astype(np.int64)
    other = another(mixture, source, record, mix(seed, _OTHER, numbers))
    both = mixture.read(
      np.concatenate([source, source]), np.concatenate([record, other])
    )
    own, others = both[: len(numbers)], both[len(numbers) :]
    pairs = [
      (a, d if m else b)
      for (a, b), (_, d), m in zip(own, others, swapped.tolist(), strict=True)
    ]
    items, full = join(pairs, self.max_side, store.ids)
    types = token_arrays.halves(
      items, pairs, [(0, 1)] * len(pairs), self.max_side
    )
    return Drawn(
      mixture.corpora,
      *draws,
      swapped,
      (source, other),
      {ONLY_SIDE: Side(items, full, {"types": types})},
      swapped.astype(np.int32),
    )

  def mixture(self, store: Store, seed: int) -> Mixture:
    """See Stream."""
    return segment_mixture(self, store, seed)

  def arrangement(self, mode: int) -> dict[str, tuple[str, ...]]:
    """See Stream."""
    return {ONLY_SIDE: ("c1", "d2" if mode & 1 else "c2")}
