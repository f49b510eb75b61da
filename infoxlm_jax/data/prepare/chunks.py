"""Cuts the examples of a corpus into chunks, the units of work of prepare.

A chunk ends by the number and size of its examples alone, so the chunks are
the same however many processes tokenise them.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from infoxlm_jax.errors import InputError

# Size of an example besides its characters, so that many short ones do not make
# a huge chunk.
_EXAMPLE_SIZE = 16

_TEXTS = {"text": ("text",), "pairs": ("text_a", "text_b")}
_IDS = {"text": ("ids",), "pairs": ("ids_a", "ids_b")}
_LANGUAGES = {"text": ("language",), "pairs": ("language_a", "language_b")}


class Chunk(NamedTuple):
  """Consecutive examples of a corpus, for a worker.

  Attributes:
    number: of the chunk in its corpus and split.
    first: number of its first example.
    sides: a list of texts, or of ids (int32 arrays), for each side.
    languages: a list of codes for each side.
  """

  number: int
  first: int
  sides: tuple[list[Any], ...]
  languages: tuple[list[str], ...]


def cut_chunks(
  examples: Iterable[Mapping[str, Any]], kind: str, name: str, size: int
) -> Iterator[Chunk]:
  """Cuts a stream of examples into chunks of about `size` characters.

  An id counts as four characters.

  Args:
    examples: of a corpus.
    kind: "text" or "pairs".
    name: of the corpus, for messages.
    size: of a chunk.

  Raises:
    InputError: an example lacks a feature of its kind, or the corpus found a
      bad one.
  """
  stream = iter(examples)
  start = next(stream, None)
  if start is None:
    return
  values = _TEXTS[kind] if _TEXTS[kind][0] in start else _IDS[kind]
  weight = 1 if values is _TEXTS[kind] else 4
  features = (*values, *_LANGUAGES[kind])
  count = len(values)
  number = first = total = 0
  columns: list[list[Any]] = [[] for _ in features]
  for example in itertools.chain([start], stream):
    try:
      for column, feature in zip(columns, features, strict=True):
        column.append(example[feature])
    except KeyError as error:
      raise InputError(
        f"{name}: example {first + len(columns[-1]) + 1} has no {error}: "
        f"corpora of kind {kind!r} give {', '.join(features)}; found "
        f"{', '.join(example)}."
      ) from error
    for column in columns[:count]:
      total += weight * len(column[-1])
    total += _EXAMPLE_SIZE
    if total >= size:
      yield Chunk(number, first, tuple(columns[:count]), tuple(columns[count:]))
      number, first, total = number + 1, first + len(columns[0]), 0
      columns = [[] for _ in features]
  if columns[0]:
    yield Chunk(number, first, tuple(columns[:count]), tuple(columns[count:]))
