"""The stream of documents whose sentences alternate between two languages."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from infoxlm_jax.data import token_arrays
from infoxlm_jax.data.mixture import (
  ONLY_SIDE,
  Drawn,
  Mixture,
  document_mixture,
)
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.sampler import mix
from infoxlm_jax.data.streams import MAX_REPEATS, Shapes
from infoxlm_jax.errors import InputError

# Tag of the hashes of (seed, tag, number); the other streams use 1 to 18.
_FIRST = 19


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeMixedStream:
  """`<s> s1 </s> s2 </s> ...`, where every second sentence is a translation.

  These are the rows of Unicoder's cross-lingual MLM (Huang et al. 2019), which
  MaskedLM reads. The seed and the item's number decide whether s1 is
  of the first or of the second language of the pair; the others alternate.

  A document is `sentences` consecutive records of a pair of languages, from a
  multiple of `sentences` on. `prepare` shuffles records, so these are of one
  text only where it kept neighbours together (PAIRS_TOGETHER, docs/data.md); a
  document may span the end of one run of neighbours and the start of another.
  What a row has no room for is cut, and counted.

  The n of n^alpha is pairs. Attributes as PairStream's, and

    sentences: of a document.
  """

  batch: int
  rows: int | None = None
  row_length: int
  languages: Sequence[str] | None = None
  alpha: float = 0.7
  max_repeats: float | None = MAX_REPEATS
  max_side: int = 254
  sentences: int = 8
  padded: bool = False
  language_ids: Sequence[str] | None = None
  frequencies: bool = False

  def shapes(self, groups: int) -> Shapes:
    """See Stream. Raises InputError where the options do not fit."""
    if self.sentences < 2:
      raise InputError(
        f"CodeMixedStream.sentences = {self.sentences} must be at least 2: a"
        " single sentence is of one language."
      )
    return token_arrays.shapes(self, groups)

  def draw(self, store: Store, seed: int, numbers: np.ndarray) -> Drawn:
    """See Stream; records are documents."""
    mixture = self.mixture(store, seed)
    draws = mixture.sampler.draw(numbers)
    mode = (mix(seed, _FIRST, numbers) & np.uint64(1)).astype(np.int64)
    documents, languages = [], []
    for first, source, pairs in zip(
      mode.tolist(),
      draws.source.tolist(),
      mixture.read(draws.source, draws.record),
      strict=True,
    ):
      turns = [(first + n) % 2 for n in range(len(pairs))]
      names = mixture.corpora[source]
      documents.append(
        tuple(pair[turn] for pair, turn in zip(pairs, turns, strict=True))
      )
      languages.append([names[turn] for turn in turns])
    side = token_arrays.document_side(self, store, documents, languages)
    return Drawn(mixture.corpora, *draws, mode, None, {ONLY_SIDE: side})

  def mixture(self, store: Store, seed: int) -> Mixture:
    """See Stream."""
    return document_mixture(self, store, seed)

  def arrangement(self, mode: int) -> dict[str, tuple[str, ...]]:
    """See Stream; the languages of the sentences of a whole document."""
    names = ("c1", "c2")
    turns = range(mode, mode + self.sentences)
    return {ONLY_SIDE: tuple(names[turn % 2] for turn in turns)}
