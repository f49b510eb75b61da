"""What decides how examples become records, and the examples of a group."""

from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
  """The options that decide how sentences become records.

  See pipeline.prepare; split: whether long texts are split or truncated;
  together: its pairs_together.
  """

  row_length: int
  max_side: int
  split: bool
  seed: int
  bos: int
  eos: int
  together: int = 1


class Examples(NamedTuple):
  """Examples of a chunk in one language or pair of languages.

  Attributes:
    lengths: tokens of each side, int64 [examples, sides].
    starts: the first token of each side among the chunk's, int64, same shape.
    hashes: of language(s) and tokens, uint64 [examples].
    sentences: hashes of the texts (sentences.py), uint64 [examples, sides];
      None where nothing is held out.
  """

  lengths: np.ndarray
  starts: np.ndarray
  hashes: np.ndarray
  sentences: np.ndarray | None

  def only(self, which: np.ndarray) -> "Examples":
    """The examples of a mask or of indices."""
    return Examples(
      self.lengths[which],
      self.starts[which],
      self.hashes[which],
      None if self.sentences is None else self.sentences[which],
    )
