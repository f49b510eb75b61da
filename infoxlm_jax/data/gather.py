"""From sentences to records: token ids, blocks and pairs, with counts."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from infoxlm_jax.data import records, sources
from infoxlm_jax.data.tokenizer import Tokenizer
from infoxlm_jax.errors import InputError

# Examples that go through the tokenizer in one call.
_ENCODE_BATCH = 2048

Example = Mapping[str, str]


@dataclasses.dataclass
class Gathered:
  """Records of one language or pair, in the order read."""

  records: list[bytes] = dataclasses.field(default_factory=list)
  sentences: int = 0
  tokens: int = 0
  dropped: Counter[str] = dataclasses.field(default_factory=Counter)
  truncated: Counter[str] = dataclasses.field(default_factory=Counter)


def _chunks(
  examples: Iterable[Example], features: Sequence[str], task: str
) -> Iterator[list[tuple[str, ...]]]:
  """The features' values, many examples at a time."""
  chunk: list[tuple[str, ...]] = []
  for example in examples:
    try:
      chunk.append(tuple(example[name] for name in features))
    except KeyError as error:
      raise InputError(
        f"task {task!r} gives examples without {error}: it needs the string "
        f"features {', '.join(features)}, found {', '.join(example)}."
      ) from error
    if len(chunk) == _ENCODE_BATCH:
      yield chunk
      chunk = []
  if chunk:
    yield chunk


def gather_text(
  examples: Iterable[Example],
  model: Tokenizer,
  row_length: int,
  gathered: dict[tuple[str, ...], Gathered],
  task: str,
) -> None:
  """Adds text records: `<s> s1 </s> s2 </s> ...`.

  A block holds whole consecutive sentences of a language, as many as fit into
  row_length tokens; a sentence that alone is longer is cut.
  """
  bos = np.array([model.bos_id], np.int32)
  eos = np.array([model.eos_id], np.int32)
  blocks: dict[str, list[np.ndarray]] = {}
  room: dict[str, int] = {}

  def flush(language: str) -> None:
    out = gathered[language,]
    block = np.concatenate(blocks[language])
    out.records.append(records.encode_text(block))
    out.tokens += len(block)
    blocks[language] = []

  for chunk in _chunks(examples, ("text", "language"), task):
    encoded = model.encode_batch([text for text, _ in chunk])
    for (_, language), ids in zip(chunk, encoded, strict=True):
      out = gathered.setdefault((_language(language, task),), Gathered())
      if not len(ids):
        out.dropped["empty"] += 1
        continue
      if len(ids) > row_length - 2:
        out.truncated["longer_than_row"] += 1
        ids = ids[: row_length - 2]
      block = blocks.setdefault(language, [])
      if block and len(ids) + 1 > room[language]:
        flush(language)
        block = blocks[language]
      if not block:
        block.append(bos)
        room[language] = row_length - 1
      block += [ids, eos]
      room[language] -= len(ids) + 1
      out.sentences += 1
  for language, block in blocks.items():
    if block:
      flush(language)


def gather_pairs(
  examples: Iterable[Example],
  model: Tokenizer,
  max_side: int,
  gathered: dict[tuple[str, ...], Gathered],
  task: str,
) -> None:
  """Adds the records of pairs, each side cut to max_side tokens."""
  features = ("text_a", "language_a", "text_b", "language_b")
  for chunk in _chunks(examples, features, task):
    encoded_a = model.encode_batch([values[0] for values in chunk])
    encoded_b = model.encode_batch([values[2] for values in chunk])
    for values, a, b in zip(chunk, encoded_a, encoded_b, strict=True):
      pair = _language(values[1], task), _language(values[3], task)
      out = gathered.setdefault(pair, Gathered())
      if not (len(a) and len(b)):
        out.dropped["empty"] += 2
        continue
      for side in (a, b):
        out.truncated["longer_than_side"] += len(side) > max_side
      a, b = a[:max_side], b[:max_side]
      out.records.append(records.encode_pair(a, b))
      out.sentences += 2
      out.tokens += len(a) + len(b)


def _language(name: str, task: str) -> str:
  if not sources.LANGUAGE.fullmatch(name):
    raise InputError(
      f"task {task!r} gives the language {name!r}: expected a code such as "
      "'en' or 'zh-Hant'."
    )
  return name
