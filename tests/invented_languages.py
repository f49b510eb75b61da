"""Two invented languages as prepared records, so small that they are learnt.

A word of the first language is an id of 5 to 36, its translation the id 32
higher. A block of text walks up the words in steps of one or two, so a masked
word is known from its neighbours. A pair has any words: a masked one is known
from its translation.
"""

from typing import Any

import numpy as np

from infoxlm_jax.data.groups import build_groups
from infoxlm_jax.data.labelled.examples import Examples, ExampleStore, Ragged
from infoxlm_jax.special_ids import Ids

WORDS = 32
FIRST = 5
LANGUAGES = ("en", "xx")
IDS = Ids(mask=69, size=70)
# Sentences of a language, pairs, and pairs of adjacent segments of a language.
RECORDS = 64


def sentence(draw: np.random.Generator, length: int) -> np.ndarray:
  """Word numbers from 0; half of the sentences begin at a low number."""
  start = draw.integers(0, draw.choice([WORDS // 4, WORDS]))
  steps = np.append(0, draw.integers(1, 3, length - 1))
  return (start + np.cumsum(steps)) % WORDS


class Store:
  """Records in memory, as data.records.Store gives them to streams."""

  ids = IDS
  folder = "invented"

  def __init__(self):
    draw = np.random.default_rng(0)

    def drawn(length: int) -> np.ndarray:
      return (FIRST + sentence(draw, length)).astype(np.int32)

    # Any words, but two at most in common with another sentence, so that
    # retrieval can tell them.
    self.pairs = {("en", "xx"): []}
    taken: list[set[int]] = []
    while len(taken) < RECORDS:
      words = draw.choice(WORDS, draw.integers(5, 8), replace=False)
      if max((len(own & {*words}) for own in taken), default=0) > 2:
        continue
      taken.append({*words.tolist()})
      pair = (FIRST + words, FIRST + words + WORDS)
      self.pairs["en", "xx"].append(tuple(x.astype(np.int32) for x in pair))
    self.texts = {}
    for shift, language in enumerate(LANGUAGES):
      self.texts[language] = [
        np.concatenate([[IDS.bos], drawn(12) + shift * WORDS, [IDS.eos]])
        for _ in range(RECORDS)
      ]
      # The second segment goes on where the first stopped.
      walks = [drawn(10) + shift * WORDS for _ in range(RECORDS)]
      self.pairs[language, language] = [(w[:5], w[5:]) for w in walks]
    self.text_counts = {k: len(v) for k, v in self.texts.items()}
    self.text_tokens = {k: sum(map(len, v)) for k, v in self.texts.items()}
    self.pair_counts = {k: len(v) for k, v in self.pairs.items()}

  def read_text(self, language, indices):
    return [self.texts[language][i] for i in indices]

  def read_pairs(self, pair, indices):
    return [self.pairs[pair][i] for i in indices]


STORE = Store()


def labelled() -> ExampleStore:
  """Texts whose class, and that of each word, is its half of the words.

  The class of a text is that of its first word.
  """
  draw = np.random.default_rng(1)
  words = [
    draw.integers(0, WORDS, draw.integers(5, 10)) for _ in range(RECORDS)
  ]
  tokens = [[IDS.bos, *(FIRST + own), IDS.eos] for own in words]
  halves = [2 * own // WORDS for own in words]
  examples = Examples(
    Ragged.of(tokens),
    np.array([own[0] for own in halves], np.int32),
    # A label plus one; 0 at <s> and </s>.
    {"token_labels": Ragged.of([[0, *(1 + own), 0] for own in halves])},
  )
  return ExampleStore("invented", {"en": examples}, IDS)


def with_answers() -> ExampleStore:
  """Texts with one word of the upper half, which is the answer."""
  draw = np.random.default_rng(2)
  lengths = draw.integers(5, 10, RECORDS)
  words = [draw.integers(0, WORDS // 2, length) for length in lengths]
  places = [draw.integers(0, length) for length in lengths]
  for own, place in zip(words, places, strict=True):
    own[place] += WORDS // 2
  tokens = [[IDS.bos, *(FIRST + own), IDS.eos] for own in words]
  spans = np.array([[1 + place] * 2 for place in places], np.int32)
  examples = Examples(Ragged.of(tokens), spans)
  return ExampleStore("invented", {"en": examples}, IDS)


def batch(stream, store: Any, update: int, groups: int, seed: int):
  """The arrays of a stream's batch, as the loader gives them to an update."""
  built = build_groups(
    stream, store, seed, update * stream.batch, range(groups), groups
  )
  return _stacked([arrays for arrays, _ in built])


def _stacked(trees):
  if isinstance(trees[0], dict):
    return {k: _stacked([tree[k] for tree in trees]) for k in trees[0]}
  return np.stack(trees)
