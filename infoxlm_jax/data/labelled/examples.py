"""Labelled token sequences in memory, as a stream and an evaluation read them.

Fine-tuning sets are small (393,000 pairs of MNLI in 15 languages are 1 GB of
ids), so they need no prepared records.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.special_ids import Ids


@dataclasses.dataclass(frozen=True)
class Ragged:
  """Arrays of different lengths in one array.

  Attributes:
    flat: int32 [sum of lengths].
    ends: end of each array in `flat`, int64 [arrays].
  """

  flat: np.ndarray
  ends: np.ndarray

  @classmethod
  def of(cls, arrays: Iterable[np.ndarray | Sequence[int]]) -> "Ragged":
    """From int arrays."""
    listed = [np.asarray(array, np.int32) for array in arrays]
    flat = np.concatenate([np.zeros(0, np.int32), *listed])
    return cls(flat, np.cumsum([len(a) for a in listed], dtype=np.int64))

  def __len__(self) -> int:
    return len(self.ends)

  def __getitem__(self, number: int) -> np.ndarray:
    start = self.ends[number - 1] if number else 0
    return self.flat[start : self.ends[number]]

  @property
  def lengths(self) -> np.ndarray:
    """Length of each array, int64 [arrays]."""
    return np.diff(self.ends, prepend=0)

  def take(self, numbers: np.ndarray) -> list[np.ndarray]:
    """Some of the arrays, in the order asked for."""
    return [self[n] for n in numbers.tolist()]

  def select(self, numbers: np.ndarray) -> "Ragged":
    """Some of the arrays, as another Ragged."""
    return Ragged.of(self.take(numbers))


class Example(NamedTuple):
  """One example; see Examples."""

  tokens: np.ndarray
  label: np.ndarray | int
  arrays: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Examples:
  """Examples of one language.

  Attributes:
    tokens: ids of each example as the encoder reads it, with `<s>` and
      `</s>`.
    labels: int32, a class of each [examples], or the first and the last token
      of each answer [examples, 2]; None where tokens have labels.
    arrays: other arrays of the examples' lengths, by name: "types" (BERT's
      segments); "token_labels", a class plus one, 0 where a token has none.
  """

  tokens: Ragged
  labels: np.ndarray | None = None
  arrays: Mapping[str, Ragged] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(self.tokens)

  def read(self, numbers: np.ndarray) -> list[Example]:
    """Some of the examples, in the order asked for."""
    return [
      Example(
        self.tokens[n],
        -1 if self.labels is None else self.labels[n],
        {name: array[n] for name, array in self.arrays.items()},
      )
      for n in numbers.tolist()
    ]

  def select(self, numbers: np.ndarray) -> "Examples":
    """Some of the examples, in the order asked for."""
    return Examples(
      self.tokens.select(numbers),
      None if self.labels is None else self.labels[numbers],
      {name: array.select(numbers) for name, array in self.arrays.items()},
    )

  def update(self, digest: "hashlib._Hash") -> None:
    """Adds everything that training reads to a hash."""
    parts = [self.tokens.flat, self.tokens.ends, self.labels]
    for name in sorted(self.arrays):
      digest.update(name.encode())
      parts.append(self.arrays[name].flat)
    for part in parts:
      digest.update(b"-" if part is None else part.tobytes())


@dataclasses.dataclass(frozen=True)
class ExampleStore:
  """Examples by language, where a stream of prepared data has its records.

  Attributes:
    folder: where they were read from, for messages.
    examples: by language.
    ids: of the tokenizer.
  """

  folder: str
  examples: Mapping[str, Examples]
  ids: Ids

  @functools.cached_property
  def manifest_sha256(self) -> str:
    """Names the examples in a run's files: a hash of all that is read."""
    digest = hashlib.sha256()
    for language, own in self.examples.items():
      digest.update(language.encode())
      own.update(digest)
    return digest.hexdigest()


def ids_of(tokenizer: Tokenizer) -> Ids:
  """The special ids of a tokenizer."""
  return Ids(
    bos=tokenizer.bos_id,
    pad=tokenizer.pad_id,
    eos=tokenizer.eos_id,
    unk=tokenizer.unk_id,
    mask=tokenizer.mask_id,
    size=tokenizer.vocab_size,
  )
