"""What is held out of training: records, and sentences wherever they stand.

The file of what is held out (hold_out.py writes it) has

    dev, test      uint64, sorted, chunk << 32 | example of each pair of
                   training's own that goes to dev or test
    sentences      uint64, sorted, hashes of all sentences that are held out
                   (sentences.py): of these pairs, of corpora with splits of
                   their own for dev and test, and of the sets for retrieval
    dev_sentences  uint64, sorted, those of the pairs that go to dev
    pieces         uint64, sorted, those of the texts that go to dev, whole
                   sentences or pieces of long ones (text_blocks.py)

and in meta["limits"] the highest key of a block of text that goes to dev, by
language.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from infoxlm_jax.data.prepare.array_files import read_arrays, write_arrays
from infoxlm_jax.data.prepare.deduplicate import of_chunk
from infoxlm_jax.data.prepare.layout import Examples
from infoxlm_jax.data.prepare.sentences import contains

_NONE = np.empty(0, np.uint64)


class Held(NamedTuple):
  """See above; dev and test are numbers of one chunk's examples, int64."""

  dev: np.ndarray
  test: np.ndarray
  sentences: np.ndarray
  dev_sentences: np.ndarray
  pieces: np.ndarray
  limits: dict[str, np.uint64]

  @classmethod
  def read(cls, path: Path, place: int) -> "Held":
    """What is held out, with the examples of chunk `place`."""
    meta, arrays = read_arrays(path)
    limits = {name: np.uint64(key) for name, key in meta["limits"].items()}
    return cls(
      of_chunk(arrays["dev"], place),
      of_chunk(arrays["test"], place),
      arrays["sentences"],
      arrays["dev_sentences"],
      arrays["pieces"],
      limits,
    )

  def split(self, texts: Examples, gives: bool) -> tuple[Examples, Examples]:
    """Texts that pairs hold out for dev, and those that nothing holds out.

    Args:
      texts: of a language.
      gives: whether texts of this corpus may go to dev.
    """
    if texts.sentences is None:
      return texts.only(np.zeros(len(texts.lengths), bool)), texts
    own = texts.sentences[:, 0]
    held = contains(self.sentences, own)
    dev = contains(self.dev_sentences, own) & gives
    return texts.only(dev), texts.only(~held)

  def parts(self, pairs: Examples, numbers: np.ndarray) -> np.ndarray:
    """The part of each pair, int64: 0 training, 1 dev, 2 test, -1 none.

    Args:
      pairs: of two languages.
      numbers: of the pairs among the chunk's examples.
    """
    part = np.zeros(len(numbers), np.int64)
    if pairs.sentences is None:
      return part
    for known in (self.sentences, self.pieces):
      part[contains(known, pairs.sentences).any(axis=1)] = -1
    part[np.isin(numbers, self.dev)] = 1
    part[np.isin(numbers, self.test)] = 2
    return part


NOTHING_HELD = Held(
  np.empty(0, np.int64), np.empty(0, np.int64), _NONE, _NONE, _NONE, {}
)


def write_held(
  path: Path, limits: dict[str, int], **arrays: np.ndarray
) -> None:
  """Writes the file of what is held out; arrays become sorted sets."""
  sets = {
    name: np.unique(array.astype(np.uint64)) for name, array in arrays.items()
  }
  write_arrays(path, {"limits": limits}, **sets)
