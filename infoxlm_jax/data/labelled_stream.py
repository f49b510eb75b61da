"""The stream of labelled examples, for fine-tuning."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from infoxlm_jax.data import token_arrays
from infoxlm_jax.data.labelled.examples import ExampleStore
from infoxlm_jax.data.mixture import (
  ONLY_SIDE,
  Drawn,
  Mixture,
  Side,
  example_mixture,
)
from infoxlm_jax.data.streams import Shapes


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledStream:
  """Examples of an ExampleStore, each drawn once in an epoch of its language.

  Besides the arrays of data/groups.py a group has those of its examples:
  "types" and "token_labels", and "labels" [items] or [items, label_size].

  Attributes:
    batch, rows, row_length, padded: as TextStream's.
    alpha: a language with n examples is drawn in proportion to n^alpha; 1
      mixes them as they are.
    arrays: names of the examples' arrays besides tokens.
    label_size: numbers in the label of an example; 0: examples have none.
    language_ids: codes in the order of the rows of the type embedding, where
      "types" are languages; None where they are BERT's segments.
  """

  batch: int
  rows: int | None = None
  row_length: int
  padded: bool = False
  alpha: float = 1.0
  arrays: tuple[str, ...] = ()
  label_size: int = 1
  language_ids: Sequence[str] | None = None
  max_repeats: ClassVar[float | None] = None

  @property
  def type_rows(self) -> int:
    """Rows of the type embedding that tokens tell apart; 0: none."""
    if self.language_ids is not None:
      return len(self.language_ids)
    return 2 if "types" in self.arrays else 0

  def shapes(self, groups: int) -> Shapes:
    """See streams.Stream. Raises InputError where the options do not fit."""
    rows = token_arrays.shapes(self, groups)
    rows |= dict.fromkeys(self.arrays, rows["tokens"])
    items = (groups, self.batch // groups)
    if self.label_size:
      more = () if self.label_size == 1 else (self.label_size,)
      rows["labels"] = (*items, *more)
    return rows

  def draw(self, store: ExampleStore, seed: int, numbers: np.ndarray) -> Drawn:
    """See streams.Stream."""
    mixture = self.mixture(store, seed)
    draws = mixture.sampler.draw(numbers)
    examples = mixture.read(draws.source, draws.record)
    tokens = [example.tokens for example in examples]
    arrays = {
      name: [example.arrays[name] for example in examples]
      for name in self.arrays
    }
    labels = np.array([example.label for example in examples], np.int32)
    side = Side(tokens, [len(one) for one in tokens], arrays)
    return Drawn(
      mixture.corpora,
      *draws,
      np.zeros(len(numbers), np.int64),
      None,
      {ONLY_SIDE: side},
      labels if self.label_size else None,
    )

  def mixture(self, store: ExampleStore, seed: int) -> Mixture:
    """See streams.Stream."""
    return example_mixture(self, store, seed)

  def arrangement(self, mode: int) -> dict[str, tuple[str, ...]]:
    """See streams.Stream; an example is one sequence."""
    del mode
    return {ONLY_SIDE: ("a1",)}
