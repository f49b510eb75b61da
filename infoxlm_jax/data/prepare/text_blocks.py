"""Puts the texts of a language and chunk into blocks."""

from typing import NamedTuple

import numpy as np

from infoxlm_jax.data.prepare.blocks import cut, fill
from infoxlm_jax.data.prepare.layout import Examples, Layout
from infoxlm_jax.data.sampler import mix


class Blocks(NamedTuple):
  """Blocks, and the pieces of sentences in them, in the order of the blocks.

  Attributes:
    keys: of the blocks, uint64 [blocks].
    block: of each piece, int64 [pieces], ascending; so are all others.
    place: of the piece's first token in its block.
    start: of the piece's sentence among the chunk's tokens.
    offset: of the piece in its sentence.
    size: tokens of the piece.
    long: whether the sentence does not fit into a block, bool.
    pieces: uint64, the hash of a whole sentence (sentences.py), or of a piece
      and its sentence; 0 where nothing is held out.
  """

  keys: np.ndarray
  block: np.ndarray
  place: np.ndarray
  start: np.ndarray
  offset: np.ndarray
  size: np.ndarray
  long: np.ndarray
  pieces: np.ndarray

  def without(
    self, gone: np.ndarray, part: np.ndarray
  ) -> tuple["Blocks", np.ndarray]:
    """Leaves out pieces, and blocks that have none then.

    Args:
      gone: which pieces, bool [pieces].
      part: a value of each block.

    Returns:
      The blocks, which keep their keys, and their values.
    """
    if not gone.any():
      return self, part
    stay = np.unique(self.block[~gone])
    block = np.searchsorted(stay, self.block[~gone])
    size = self.size[~gone]
    rest = Blocks(self.keys[stay], block, size, *(a[~gone] for a in self[3:]))
    return rest._replace(place=_places(block, size, len(stay))), part[stay]

  def joined(self, more: "Blocks") -> "Blocks":
    """These blocks and then the others."""
    shifted = more._replace(block=more.block + len(self.keys))
    return Blocks(
      *(np.concatenate(pair) for pair in zip(self, shifted, strict=True))
    )


def make_blocks(texts: Examples, layout: Layout) -> Blocks:
  """Fills blocks with texts, in order; long texts are cut into pieces."""
  limit = layout.row_length - 2
  lengths, starts = texts.lengths[:, 0], texts.starts[:, 0]
  sentence, offset, size = cut(lengths, limit, layout.split)
  block, count = fill((size + 1).tolist(), layout.row_length - 1)
  by_block = np.argsort(block, kind="stable")
  block, sentence, offset, size = (
    a[by_block] for a in (block, sentence, offset, size)
  )
  place = _places(block, size, count)
  keys: np.ndarray = np.zeros(count, np.uint64)
  np.add.at(
    keys,
    block,
    mix(
      layout.seed,
      texts.hashes[sentence],
      offset.astype(np.uint64),
      place.astype(np.uint64),
    ),
  )
  pieces = np.zeros(len(sentence), np.uint64)
  long = (lengths > limit)[sentence]
  if texts.sentences is not None:
    pieces = texts.sentences[sentence, 0]
    cut_up = mix(pieces, offset.astype(np.uint64))
    pieces = np.where(long & layout.split, cut_up, pieces)
  return Blocks(
    mix(keys), block, place, starts[sentence], offset, size, long, pieces
  )


def _places(block: np.ndarray, size: np.ndarray, count: int) -> np.ndarray:
  """The start of each piece in its block, after <s> and the pieces before."""
  before = np.cumsum(size + 1) - (size + 1)
  first = before[np.searchsorted(block, np.arange(count))]
  return before - first[block] + 1
