"""Joins sentences to items, and packs the items of a group into rows."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from infoxlm_jax.errors import InputError
from infoxlm_jax.special_ids import Ids

# The fewest tokens that an item is cut to: its first and its last.
MIN_LENGTH = 2


class Packed(NamedTuple):
  """Row of each item, its offset in the row, tokens kept; int64 [items]."""

  row: np.ndarray
  offset: np.ndarray
  kept: np.ndarray


def join(
  items: Sequence[tuple[np.ndarray, ...]],
  max_side: int,
  ids: Ids,
  every_start: bool = False,
) -> tuple[list[np.ndarray], list[int]]:
  """Joins the sentences of each item to `<s> s1 </s> s2 </s>`.

  Args:
    items: token ids of the sentences of each item.
    max_side: tokens that are kept of a sentence.
    ids: of the tokenizer.
    every_start: keep the `<s>` of every sentence: `<s> s1 </s> <s> s2 </s>`.

  Returns:
    Token ids of each item, and its length before any sentence was cut.
  """
  bos, eos = np.array([ids.bos], np.int32), np.array([ids.eos], np.int32)
  parts: list[np.ndarray] = []
  ends, full, end = [], [], 0
  for sentences in items:
    length = 0
    for number, sentence in enumerate(sentences):
      if number == 0 or every_start:
        parts.append(bos)
        end += 1
        length += 1
      length += len(sentence) + 1
      sentence = sentence[:max_side]
      end += len(sentence) + 1
      parts += (sentence, eos)
    ends.append(end)
    full.append(length)
  # One copy of all tokens: a call an item costs more than its tokens.
  flat = np.concatenate(parts) if parts else bos[:0]
  starts = [0, *ends[:-1]]
  return [flat[a:b] for a, b in zip(starts, ends, strict=True)], full


def place(
  items: Sequence[np.ndarray],
  full: Sequence[int],
  rows: int,
  row_length: int,
  padded: bool,
  ids: Ids,
  stats: dict[str, int],
  arrays: Mapping[str, Sequence[np.ndarray]] = MappingProxyType({}),
) -> dict[str, np.ndarray]:
  """The arrays of a group, as data/groups.py describes them.

  Args:
    items: token ids of each item; an item that is cut ends with `</s>`.
    full: length of each item before any earlier cut.
    rows: rows of the group.
    row_length: tokens of a row.
    padded: put item n into row n, instead of packing.
    ids: of the tokenizer; `</s>` and padding are used.
    stats: counts to add to: tokens, slots, truncated_items, cut_tokens.
    arrays: other arrays of the items' lengths, by name, 0 where there is no
      item; "positions" stands in for the count from 0.

  Raises:
    InputError: see `pack`.
  """
  lengths = np.array([len(item) for item in items], np.int64)
  if padded:
    kept_all = np.minimum(lengths, row_length)
    packed = Packed(np.arange(len(items)), np.zeros_like(lengths), kept_all)
  else:
    packed = pack(lengths, rows, row_length)
  kept, size = packed.kept, int(packed.kept.sum())
  # Of each token kept: its position in its item, and in the flattened rows.
  count_up = np.arange(size) - np.repeat(np.cumsum(kept) - kept, kept)
  first = packed.row * row_length + packed.offset
  at = np.repeat(first, kept) + count_up
  tokens = np.full(rows * row_length, ids.pad, np.int32)
  segments = np.zeros(rows * row_length, np.int32)
  positions = np.zeros(rows * row_length, np.int32)

  def flat(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(
      [value[:n] for value, n in zip(values, kept.tolist(), strict=True)]
    )

  if size:
    tokens[at] = flat(items)
  tokens[(first + kept - 1)[kept < lengths]] = ids.eos
  segments[at] = np.repeat(np.arange(1, len(items) + 1), kept)
  positions[at] = count_up
  cut = np.asarray(full, np.int64) - packed.kept
  stats["tokens"] += int(packed.kept.sum())
  stats["slots"] += rows * row_length
  stats["truncated_items"] += int((cut > 0).sum())
  stats["cut_tokens"] += int(cut.sum())
  out = {"tokens": tokens, "segments": segments, "positions": positions}
  for name, values in arrays.items():
    out[name] = np.zeros(rows * row_length, np.int32)
    if size:
      out[name][at] = flat(values)
  return {k: x.reshape(rows, row_length) for k, x in out.items()}


def pack(lengths: np.ndarray, rows: int, row_length: int) -> Packed:
  """Packs items into rows, first-fit on lengths sorted decreasing.

  Items of equal length keep their order. Where the items do not fit, those
  longer than a cap are cut to it; it is the largest cap with which first-fit
  succeeds. No item is dropped.

  Args:
    lengths: tokens of each item, [items].
    rows: rows to fill.
    row_length: tokens of a row.

  Raises:
    InputError: the items do not fit even when each is cut to two tokens.
  """
  lengths = np.asarray(lengths, np.int64)
  cap = _capacity_cap(lengths, rows, row_length)
  while cap >= MIN_LENGTH:
    kept = np.minimum(lengths, cap)
    by_length = np.argsort(-kept, kind="stable")
    placed = _first_fit(kept[by_length].tolist(), rows, row_length)
    if placed is not None:
      row, offset = np.empty_like(kept), np.empty_like(kept)
      row[by_length], offset[by_length] = placed
      return Packed(row, offset, kept)
    cap -= 1
  raise InputError(
    f"{len(lengths)} items do not fit into {rows} rows of {row_length} tokens, "
    f"even when each is cut to {MIN_LENGTH}: raise rows or row_length, or "
    "lower batch (these are the numbers of one group)."
  )


def _capacity_cap(lengths: np.ndarray, rows: int, row_length: int) -> int:
  """The largest cap with which the items have no more tokens than the rows.

  First-fit may need a smaller cap, never a larger one.
  """
  room = rows * row_length
  low, high = 0, max(row_length, MIN_LENGTH) + 1
  while high - low > 1:
    middle = (low + high) // 2
    if np.minimum(lengths, middle).sum() <= room:
      low = middle
    else:
      high = middle
  return min(low, row_length)


def _first_fit(
  longest_first: list[int], rows: int, row_length: int
) -> tuple[list[int], list[int]] | None:
  """Row and offset of each item, or None where an item finds no room."""
  used = [0] * rows
  row_of, offset_of = [], []
  shortest = longest_first[-1] if longest_first else 0
  first = 0
  for length in longest_first:
    # Rows without room for the shortest item have room for none.
    while first < rows and used[first] + shortest > row_length:
      first += 1
    limit = row_length - length
    for row in range(first, rows):
      if used[row] <= limit:
        break
    else:
      return None
    row_of.append(row)
    offset_of.append(used[row])
    used[row] += length
  return row_of, offset_of
