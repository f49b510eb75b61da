"""Arrays of rows besides tokens, segments and positions, where streams ask.

    types      row of the model's type embedding: the index of the token's
               language in the stream's `language_ids`, or BERT's segment, 0 or
               1; 0 for padding
    counts     how often the token's id occurs, plus one, in a sample of what
               the stream draws; 0 for padding
    starts     1 at the first token of every sentence of an item; else 0

All int32 [rows / G, row_length], as data/groups.py has the others.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from infoxlm_jax.data import prefixes
from infoxlm_jax.data.mixture import Side
from infoxlm_jax.data.packing import join
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.stream_options import check_options, rows_of
from infoxlm_jax.errors import InputError

# Items whose tokens are counted, the same ones whatever the run's seed.
_SAMPLE, _SEED = 16384, 0


def shapes(stream: Any, groups: int) -> dict[str, Any]:
  """Shapes of the arrays of a stream's rows, of the whole batch.

  Raises:
    InputError: the stream's options do not fit the groups.
  """
  check_options(stream, groups)
  names = ["tokens", "segments", "positions"]
  names += ["types"] if type_rows(stream) else []
  names += ["counts"] if getattr(stream, "frequencies", False) else []
  names += ["starts"] if getattr(stream, "join_after_masking", False) else []
  shape = (groups, rows_of(stream) // groups, stream.row_length)
  return dict.fromkeys(names, shape)


def type_rows(stream: Any) -> int:
  """Rows of the type embedding that a stream's tokens tell apart; 0: none."""
  languages = getattr(stream, "language_ids", None)
  return int(getattr(stream, "type_rows", len(languages or ())))


def text_side(
  stream: Any,
  store: Store,
  blocks: Sequence[np.ndarray],
  languages: Sequence[tuple[str, ...]],
) -> Side:
  """The side of blocks, each of one language.

  Raises:
    InputError: a language is not among the stream's `language_ids`.
  """
  arrays = {}
  if stream.language_ids is not None:
    rows = [_language_id(stream, language) for (language,) in languages]
    arrays["types"] = [
      np.full(len(block), row, np.int32)
      for block, row in zip(blocks, rows, strict=True)
    ]
  side = Side(blocks, [len(block) for block in blocks], arrays)
  return _with_counts(stream, store, side)


def pair_side(
  stream: Any,
  store: Store,
  pairs: Sequence[tuple[np.ndarray, np.ndarray]],
  languages: Sequence[tuple[str, str]],
) -> Side:
  """The side of pairs: `<s> a </s> b </s>`.

  With `restart_positions`, `<s> a </s> <s> b </s>`, whose second half counts
  its positions from 0 again (Conneau and Lample 2019, figure 1).

  Args:
    stream: a PairStream.
    store: of the records.
    pairs: token ids of both sentences, in order.
    languages: of both, in order.

  Raises:
    InputError: a language is not among the stream's `language_ids`.
  """
  ids, max_side = store.ids, stream.max_side
  if stream.restart_positions:
    firsts, full = join([pair[:1] for pair in pairs], max_side, ids)
    seconds, more = join([pair[1:] for pair in pairs], max_side, ids)
    both = list(zip(firsts, seconds, strict=True))
    items = [np.concatenate(halves) for halves in both]
    full = [a + b for a, b in zip(full, more, strict=True)]
    counts = [np.arange(len(half)) for halves in both for half in halves]
    positions = [
      np.concatenate(halves)
      for halves in zip(counts[::2], counts[1::2], strict=True)
    ]
    side = Side(items, full, {"positions": positions})
  else:
    side = Side(*join(pairs, max_side, ids))
  if stream.language_ids is not None:
    rows = [
      (_language_id(stream, a), _language_id(stream, b)) for a, b in languages
    ]
    side = side._replace(
      arrays={
        **side.arrays,
        "types": halves(side.items, pairs, rows, max_side),
      }
    )
  return _with_counts(stream, store, side)


def contrast_side(
  stream: Any, store: Store, sentences: Sequence[tuple[np.ndarray, ...]]
) -> Side:
  """A side of the contrast's items: `<s> a </s>` or `<s> a </s> b </s>`.

  With `join_after_masking`, `<s> a </s> <s> b </s>` and "starts".

  Args:
    stream: a ContrastStream.
    store: of the records.
    sentences: token ids of the sentences of each item, in order.
  """
  late = stream.join_after_masking
  if stream.prefix:
    sentences = prefixes.put_before(stream.prefix, store, sentences)
  side = Side(*join(sentences, stream.max_side, store.ids, late))
  if not late:
    return side
  starts = [np.zeros(len(item), np.int32) for item in side.items]
  for own, parts in zip(starts, sentences, strict=True):
    kept = [min(len(part), stream.max_side) + 2 for part in parts]
    own[np.cumsum([0, *kept[:-1]])] = 1
  return side._replace(arrays={"starts": starts})


def halves(
  items: Sequence[np.ndarray],
  pairs: Sequence[tuple[np.ndarray, np.ndarray]],
  values: Sequence[tuple[int, int]],
  max_side: int,
) -> list[np.ndarray]:
  """For each item, one value at `<s> a </s>` and another one after it."""
  out = []
  for item, (a, _), (one, other) in zip(items, pairs, values, strict=True):
    first = min(len(a), max_side) + 2
    out.append(np.repeat([one, other], [first, len(item) - first]))
  return out


def document_side(
  stream: Any,
  store: Store,
  documents: Sequence[tuple[np.ndarray, ...]],
  languages: Sequence[Sequence[str]],
) -> Side:
  """The side of documents: `<s> s1 </s> s2 </s> ...`.

  Args:
    stream: a CodeMixedStream.
    store: of the records.
    documents: token ids of the sentences of each.
    languages: of the sentences of each.

  Raises:
    InputError: a language is not among the stream's `language_ids`.
  """
  side = Side(*join(documents, stream.max_side, store.ids))
  if stream.language_ids is not None:
    types = []
    for sentences, names in zip(documents, languages, strict=True):
      lengths = [min(len(s), stream.max_side) + 1 for s in sentences]
      lengths[0] += 1  # <s>
      rows = [_language_id(stream, name) for name in names]
      types.append(np.repeat(rows, lengths))
    side = side._replace(arrays={"types": types})
  return _with_counts(stream, store, side)


def _language_id(stream: Any, language: str) -> int:
  known = stream.language_ids
  if language not in known:
    raise InputError(
      f"{type(stream).__name__} draws texts in {language!r}, which is not among"
      f" its language_ids {', '.join(known)}: add it to these, or name the"
      " languages to draw in `languages`."
    )
  return int(list(known).index(language))


def _with_counts(stream: Any, store: Store, side: Side) -> Side:
  if not stream.frequencies:
    return side
  table = token_counts(stream, store)
  counts = [table[item] for item in side.items]
  return side._replace(arrays={**side.arrays, "counts": counts})


def token_counts(stream: Any, store: Store) -> np.ndarray:
  """Occurrences of every id in a sample of a stream, plus one, int32 [ids]."""
  return _token_counts(_hashable(stream), store)


def _hashable(stream: Any) -> Any:
  """The stream without counts and with tuples for lists."""

  def fixed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

  fields = {
    field.name: fixed(getattr(stream, field.name))
    for field in dataclasses.fields(stream)
  }
  return type(stream)(**fields | {"frequencies": False})


@functools.lru_cache(maxsize=16)
def _token_counts(stream: Any, store: Store) -> np.ndarray:
  drawn = stream.draw(store, _SEED, np.arange(_SAMPLE))
  counts: np.ndarray = np.ones(store.ids.size, np.int64)
  for side in drawn.sides.values():
    counts += np.bincount(np.concatenate(side.items), minlength=len(counts))
  return counts.astype(np.int32)
