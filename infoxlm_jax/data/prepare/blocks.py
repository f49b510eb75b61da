"""Fills blocks with whole sentences, and cuts sentences that are too long."""

from collections.abc import Sequence

import numpy as np

# Blocks that wait for a sentence that fits. Blocks of 128 tokens are filled to
# 83 % with one and to 97 % with eight; blocks of 512 to 96 % and 99 %.
OPEN_BLOCKS = 8


def fill(lengths: Sequence[int], room: int) -> tuple[np.ndarray, int]:
  """Puts sentences into blocks, which keep the order of the sentences.

  A sentence goes into the fullest open block that has room for it. If no block
  has, the fullest is closed and a new one is opened. So a block is a run of
  neighbouring sentences, and a few more that fill its end.

  Args:
    lengths: of the sentences, each at most `room`.
    room: of a block.

  Returns:
    Index of each sentence's block, int64 [sentences]; number of blocks.
  """
  block_of = []
  open_blocks: list[list[int]] = []  # [room left, number], fullest first
  count = 0
  for length in lengths:
    place = 0
    while place < len(open_blocks) and open_blocks[place][0] < length:
      place += 1
    if place == len(open_blocks):
      if place == OPEN_BLOCKS:
        del open_blocks[0]
        place -= 1
      open_blocks.append([room, count])
      count += 1
    block = open_blocks[place]
    block_of.append(block[1])
    block[0] -= length
    while place and open_blocks[place - 1][0] > block[0]:
      open_blocks[place] = open_blocks[place - 1]
      place -= 1
    open_blocks[place] = block
    if not block[0]:
      open_blocks.remove(block)
  return np.array(block_of, np.int64), count


def cut(
  lengths: np.ndarray, limit: int, split: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Cuts sentences into pieces of at most `limit` tokens.

  Args:
    lengths: tokens of each sentence, int [sentences].
    limit: the most tokens of a piece.
    split: whether all pieces of a long sentence are kept, or only the first.

  Returns:
    Of each piece, in order: the sentence's index, the piece's start in the
    sentence, and its length; int64 [pieces] each.
  """
  lengths = lengths.astype(np.int64)
  count = (
    np.maximum(-(-lengths // limit), 1) if split else np.ones_like(lengths)
  )
  sentence = np.repeat(np.arange(len(lengths)), count)
  first = np.cumsum(count) - count
  start = (np.arange(len(sentence)) - first[sentence]) * limit
  return sentence, start, np.minimum(lengths[sentence] - start, limit)


def copy_runs(
  target: np.ndarray,
  target_starts: np.ndarray,
  source: np.ndarray,
  source_starts: np.ndarray,
  lengths: np.ndarray,
) -> None:
  """Sets target[t : t + n] = source[s : s + n] for many runs at once."""
  ends = np.cumsum(lengths)
  within = np.arange(ends[-1] if len(ends) else 0)
  within -= np.repeat(ends - lengths, lengths)
  places = within + np.repeat(target_starts, lengths)
  target[places] = source[within + np.repeat(source_starts, lengths)]
