"""Held-out batches whose tokens say their language."""

from collections import Counter

import numpy as np
from invented_languages import LANGUAGES, STORE
from objective_cases import MIXED, SEGMENTS, TEXT, XLM_BOTH, XLM_PAIRS
from small_corpus import build

from infoxlm_jax.data.by_language import (
  ByLanguage,
  languages_of,
  with_languages,
)

# A third language that is not drawn, so that numbers are not those of types.
NAMES = ("aa", *LANGUAGES)
WORDS_OF_XX = 37  # the first id of a word of the second language


def group(stream, position=0):
  return build(stream, STORE, 1, position, 0, 1)[0]


def of_words(tokens: np.ndarray) -> np.ndarray:
  """The number in NAMES, plus one, of ids that are words."""
  return np.where(tokens >= WORDS_OF_XX, 3, 2)


def test_every_token_has_its_language():
  assert languages_of(STORE) == LANGUAGES
  for stream in (TEXT, XLM_PAIRS, MIXED, SEGMENTS):
    arrays = group(with_languages(stream, NAMES))
    words = arrays["tokens"] >= 5
    words &= arrays["segments"] > 0
    languages = arrays["languages"]
    np.testing.assert_array_equal(
      languages[words], of_words(arrays["tokens"])[words]
    )
    assert not languages[arrays["segments"] == 0].any()
    assert (languages[arrays["segments"] > 0] > 0).all()
    # Nothing else is changed.
    del arrays["languages"]
    plain = group(stream)
    assert set(arrays) == set(plain)
    for name in plain:
      np.testing.assert_array_equal(arrays[name], plain[name])


def test_parts_that_take_turns_have_languages_both():
  stream = with_languages(XLM_BOTH, LANGUAGES)
  assert stream.shapes(1)["languages"] == stream.shapes(1)["tokens"]
  text, pairs = group(stream), group(stream, stream.batch)
  for arrays in (text, pairs):
    real = arrays["segments"] > 0
    assert (arrays["languages"][real] == arrays["types"][real] + 1).all()


def test_so_many_items_of_each_and_none_twice():
  stream = ByLanguage(TEXT, LANGUAGES, examples=20)
  assert stream.counts(STORE, 1) == {"en": 20, "xx": 20}
  drawn = stream.draw(STORE, 1, np.arange(48))
  counted = Counter()
  for item, languages in zip(
    drawn.sides[""].items, drawn.sides[""].arrays["languages"], strict=True
  ):
    if languages[0]:
      counted[LANGUAGES[languages[0] - 1], item.tobytes()] += 1
  texts = {
    (language, own.tobytes())
    for language in LANGUAGES
    for own in STORE.texts[language]
  }
  assert set(counted) <= texts and max(counted.values()) == 1
  assert Counter(language for language, _ in counted) == {"en": 20, "xx": 20}
  # Of fewer than that all, and the rest of a batch is not counted.
  most = ByLanguage(TEXT, LANGUAGES, examples=1000)
  assert most.counts(STORE, 1) == {"en": 64, "xx": 64}
