"""Links between the words of sentence pairs, at every layer of an encoder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from infoxlm_jax.data.labelled.words import pieces_of
from infoxlm_jax.data.tokenizers.base import framed
from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.alignment import methods
from infoxlm_jax.evaluation.alignment.files import GoldSet, Link
from infoxlm_jax.evaluation.alignment.score import Counts
from infoxlm_jax.evaluation.inference import Encoder

_PAIRS = 32  # compared at a time
_SHORTEST = 32  # pieces; sentences are padded to this, 64, 128, ...

Words = list[np.ndarray]  # the pieces of each word of a sentence


def count(
  encoder: Encoder,
  data: GoldSet,
  done: Callable[[int], Any] = lambda count: None,
) -> dict[str, list[Counts]]:
  """Counts of links by method and layer; layer 0 is the embedding output.

  Each sentence is encoded alone, as in SimAlign. Two words are linked where
  any of their pieces are.

  Args:
    encoder: the model.
    data: pairs and their gold links.
    done: called with the number of pairs of every batch.

  Raises:
    InputError: a sentence has more pieces than the model reads.
  """
  pairs = _encoded(encoder, data)
  layers = encoder.config.num_layers + 1
  counts = {name: [Counts()] * layers for name in methods.METHODS}
  # Of similar lengths together, so that little is padding.
  longest = [max(sum(map(len, side)) for side in pair) for pair in pairs]
  order = np.argsort(longest, kind="stable")
  for start in range(0, len(pairs), _PAIRS):
    numbers = order[start : start + _PAIRS].tolist()
    for name, links in _links(encoder, [pairs[n] for n in numbers]):
      for layer, of_layer in enumerate(links):
        for n, own in zip(numbers, of_layer, strict=True):
          counts[name][layer] = counts[name][layer].plus(own, data.gold[n])
    done(len(numbers))
  return counts


def word_links(
  aligned_IJ: np.ndarray, source: Words, target: Words
) -> set[Link]:
  """Pairs of words of which any pieces are aligned.

  Args:
    aligned_IJ: bool, of the pieces of both sentences, and perhaps padding.
    source, target: the pieces of each word.
  """
  words = [
    np.repeat(np.arange(len(side)), [len(word) for word in side])
    for side in (source, target)
  ]
  i, j = np.nonzero(aligned_IJ[: len(words[0]), : len(words[1])])
  return set(zip(words[0][i].tolist(), words[1][j].tolist(), strict=True))


def _encoded(encoder: Encoder, data: GoldSet) -> list[tuple[Words, Words]]:
  """The pieces of all words."""
  sides = [
    pieces_of(encoder.tokenizer, [pair[side] for pair in data.pairs])
    for side in (0, 1)
  ]
  room = encoder.config.max_positions - 2
  for name, own in zip(("source", "target"), sides, strict=True):
    for line, words in enumerate(own, 1):
      if (pieces := sum(map(len, words))) > room:
        raise InputError(
          f"{data.where}, line {line}: the {name} has {pieces:,} pieces, and"
          f" the model reads {room}. Leave the pair out, here and in GOLD."
        )
  return list(zip(*sides, strict=True))


def _links(
  encoder: Encoder, pairs: Sequence[tuple[Words, Words]]
) -> Iterator[tuple[str, list[list[set[Link]]]]]:
  """Of each method: links by layer and pair."""
  ids = [
    framed(encoder.tokenizer, np.concatenate(side))
    for pair in pairs
    for side in pair
  ]
  vectors = [one[:, 1:-1] for one in encoder.token_vectors(ids)]
  lengths = np.zeros((_PAIRS, 2), np.int32)
  lengths[: len(pairs)] = np.reshape([one.shape[1] for one in vectors], (-1, 2))
  source, target = (
    _padded(vectors[side::2], int(lengths[:, side].max())) for side in (0, 1)
  )
  for name in methods.METHODS:
    aligned = np.asarray(methods.align(name, source, target, lengths))
    yield (
      name,
      [
        [word_links(layer[n], *pair) for n, pair in enumerate(pairs)]
        for layer in aligned
      ],
    )


def _padded(vectors: Sequence[np.ndarray], longest: int) -> np.ndarray:
  """[layers + 1, _PAIRS, a power of two, D]."""
  size = _SHORTEST
  while size < longest:
    size *= 2
  layers, _, width = vectors[0].shape
  out = np.zeros((layers, _PAIRS, size, width), np.float32)
  for n, one in enumerate(vectors):
    out[:, n, : one.shape[1]] = one
  return out


def best_layer(by_layer: Mapping[str, Sequence[float]]) -> int:
  """The layer with the lowest AER; of equals, the lowest layer."""
  return int(np.argmin(by_layer["aer"]))
