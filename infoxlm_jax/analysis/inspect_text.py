"""Formats rows of a batch as text."""

import textwrap
from collections.abc import Iterator

import numpy as np

from infoxlm_jax.analysis.inspect_step import Seen
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import Tokenizer

LEGEND = (
  "{x>y} masking made y of x, {x=} chose x and left it, {x>} x is left out;"
  " sentences of an item: c1 c2 the pair, d1 d2 its partner"
)
_WIDTH = 100


def rows(seen: Seen, tokenizer: Tokenizer, count: int) -> Iterator[str]:
  """Lines that show the first rows of a group.

  An item is shown where its first side stands (the query's); its other side
  follows it, whatever row that is in.

  Args:
    seen: the group.
    tokenizer: that the records were made with.
    count: how many rows at most.
  """
  yield from _head(seen)
  first = next(iter(seen.before))
  segments = seen.before[first]["segments"]
  for row in range(min(count, len(segments))):
    used = int((segments[row] > 0).sum())
    side = f" of the {first} side" if first else ""
    yield ""
    yield (
      f"  group {seen.group}, row {row}{side}: {used} of"
      f" {segments.shape[1]} places filled"
    )
    for number in _in_order(segments[row]):
      yield from _item(seen, tokenizer, number)


def _head(seen: Seen) -> Iterator[str]:
  stream, counts = seen.stream, seen.counts
  last = seen.first + len(seen.drawn.source) - 1
  fill = 100 * counts["tokens"] / counts["slots"]
  yield (
    f"{seen.name}: {type(stream).__name__}, group {seen.group}: samples"
    f" {seen.first} to {last}, {counts['tokens']} tokens, {fill:.1f} % of the"
    f" places; {counts['truncated_items']} cut by {counts['cut_tokens']} tokens"
  )


def _in_order(segments: np.ndarray) -> list[int]:
  """Items of a row, from 0, in the order in which they stand."""
  numbers, first = np.unique(segments, return_index=True)
  order = numbers[np.argsort(first)]
  return [int(n) - 1 for n in order if n > 0]


def _item(seen: Seen, tokenizer: Tokenizer, number: int) -> Iterator[str]:
  yield f"    segment {number + 1}, sample {seen.first + number}: " + _origin(
    seen, number
  )
  arrangement = seen.stream.arrangement(int(seen.drawn.mode[number]))
  for side, arrays in seen.before.items():
    row, places = _places(arrays["segments"], number)
    positions = arrays["positions"][row, places]
    tokens = arrays["tokens"][row, places]
    cut = seen.drawn.sides[side].full[number] - len(places)
    yield (
      f"      {side + ' ' if side else ''}{_order(arrangement[side])}row {row},"
      f" places {places[0]} to {places[-1]}, positions {positions[0]} to"
      f" {positions[-1]}{f', cut by {cut} tokens' if cut else ''}"
    )
    for objective, sides in seen.after.items():
      pieces = _marked(
        tokenizer,
        tokens,
        sides[side]["tokens"][row, places],
        seen.chosen[objective][side][row, places],
      )
      label = f"{objective}: " if len(seen.after) > 1 else ""
      yield _wrapped(label + " ".join(pieces))
    for language, ids in _sentences(seen, tokenizer, number, side, tokens):
      yield _wrapped(f"{language}: {tokenizer.decode(ids)}")


def _origin(seen: Seen, number: int) -> str:
  """en-fr record 12, epoch 0; with mixup the partner too."""
  drawn = seen.drawn
  name = "-".join(drawn.corpora[drawn.source[number]])
  text = f"{name} record {drawn.record[number]}, epoch {drawn.epoch[number]}"
  if drawn.partner is not None:
    source, record = (int(x[number]) for x in drawn.partner)
    name = "-".join(drawn.corpora[source])
    text += f"; {seen.stream.mixup} partner {name} record {record}"
  return text


def _order(parts: tuple[str, ...]) -> str:
  return "" if parts == ("a1",) else f"= {' '.join(parts)}, "


def _places(segments: np.ndarray, number: int) -> tuple[int, np.ndarray]:
  rows, places = np.nonzero(segments == number + 1)
  return int(rows[0]), places


def _marked(
  tokenizer: Tokenizer,
  before: np.ndarray,
  after: np.ndarray,
  chosen: np.ndarray,
) -> list[str]:
  """Pieces, with what masking did to them."""
  out = []
  old, new = tokenizer.pieces(before), tokenizer.pieces(after)
  out_of_item = (after == tokenizer.pad_id).tolist()
  for x, y, is_chosen, is_out in zip(
    old, new, chosen.tolist(), out_of_item, strict=True
  ):
    if is_out:
      x = f"{{{x}>}}"
    elif is_chosen:
      x = f"{{{x}=}}" if x == y else f"{{{x}>{y}}}"
    out.append(x)
  return out


def _sentences(
  seen: Seen,
  tokenizer: Tokenizer,
  number: int,
  side: str,
  tokens: np.ndarray,
) -> Iterator[tuple[str, np.ndarray]]:
  """(language, ids) of each sentence of an item, of a block all in one."""
  drawn = seen.drawn
  parts = seen.stream.arrangement(int(drawn.mode[number]))[side]
  ends = np.flatnonzero(tokens == tokenizer.eos_id)
  if len(parts) == 1:
    ends = ends[-1:]
  pieces = np.split(tokens, ends + 1)[: len(parts)]
  # What was cut may have lost its last sentences.
  for part, ids in zip(parts, pieces, strict=False):
    if not len(ids):
      continue
    source = drawn.source
    if part[0] == "d" and drawn.partner is not None:
      source = drawn.partner[0]
    yield drawn.corpora[source[number]][int(part[1]) - 1], ids


def _wrapped(text: str) -> str:
  return textwrap.fill(
    text,
    _WIDTH,
    initial_indent=" " * 8,
    subsequent_indent=" " * 10,
    break_long_words=False,
    break_on_hyphens=False,
  )


def records(store: Store, tokenizer: Tokenizer, count: int) -> Iterator[str]:
  """Lines that show the first record of `count` languages and `count` pairs."""
  for language in list(store.text_counts)[:count]:
    (block,) = store.read_text(language, [0])
    yield f"text {language}, record 0: {len(block)} tokens"
    yield _wrapped(" ".join(tokenizer.pieces(block)))
    yield _wrapped(f"{language}: {tokenizer.decode(block)}")
  for pair in list(store.pair_counts)[:count]:
    (sides,) = store.read_pairs(pair, [0])
    lengths = " and ".join(str(len(side)) for side in sides)
    yield f"pair {'-'.join(pair)}, record 0: {lengths} tokens"
    for language, ids in zip(pair, sides, strict=True):
      yield _wrapped(" ".join(tokenizer.pieces(ids)))
      yield _wrapped(f"{language}: {tokenizer.decode(ids)}")
