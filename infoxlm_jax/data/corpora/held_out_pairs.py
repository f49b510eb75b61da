"""Sentence pairs from outside of the training corpora, for dev or test."""

import dataclasses

from infoxlm_jax.data.corpora.open_files import Patterns
from infoxlm_jax.data.corpora.sources import Tsv


@dataclasses.dataclass(frozen=True)
class HeldOutPairs(Tsv):
  """Files as Tsv reads them, of which no pair is trained on.

  Attributes:
    split: the only one that the files have.
  """

  split: str = "validation"

  def splits(self) -> tuple[str, ...]:
    return (self.split,)


def held_out_pairs(
  dev: Patterns | None, test: Patterns | None
) -> list[HeldOutPairs]:
  """The corpora of DEV_PAIRS and TEST_PAIRS, where they are given."""
  return [
    HeldOutPairs(files, split=split)
    for files, split in ((dev, "validation"), (test, "test"))
    if files is not None
  ]
