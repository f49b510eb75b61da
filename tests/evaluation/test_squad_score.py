"""F1 and exact match on constructed cases, worked by hand."""

import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation import squad_score
from infoxlm_jax.evaluation.squad_score import mlqa_words, squad_words


@pytest.mark.parametrize(
  ("language", "text", "words"),
  [
    ("en", "The U.S. of  A, an  Ace!", ["us", "of", "ace"]),
    ("en", "«the» “Quick”—fox", ["quickfox"]),
    ("en", "5 % + $3", ["5", "3"]),
    ("es", "La niña, el Niño y unos más", ["niña", "niño", "y", "más"]),
    ("de", "Die größte Stadt des Landes", ["größte", "stadt", "landes"]),
    ("vi", "Những con chó của là", ["con", "chó"]),
    ("hi", "भारत की राजधानी।", ["भारत", "की", "राजधानी"]),
    ("ar", "القاهرة، مصر", ["قاهرة", "مصر"]),
    ("ar", "خالد", ["خ", "د"]),  # inside words, too
    ("zh", "1990年，在New York。", ["1990", "年", "在", "new", "york"]),
    ("de", "the a", ["the", "a"]),
  ],
)
def test_words_of_mlqa(language, text, words):
  assert mlqa_words(language)(text) == words


def test_words_of_squad():
  """English articles and ASCII's punctuation, whatever the language."""
  assert squad_words("The “cat”, a.k.a. El Gato") == [
    *("“cat”", "aka", "el", "gato")
  ]
  assert squad_words("北京市。") == ["北京市。"]


@pytest.mark.parametrize(
  ("answer", "reference", "f1", "same"),
  [
    ("the cat", "cat", 1.0, 1.0),
    ("black cat", "cat", 2 / 3, 0.0),
    ("cat black", "black cat", 1.0, 0.0),
    ("cat cat", "cat", 2 / 3, 0.0),
    ("dog", "cat", 0.0, 0.0),
    ("", "cat", 0.0, 0.0),
    ("the", "a", 0.0, 1.0),  # nothing is left of both
    ("école", "ecole", 0.0, 0.0),
    ("école", "ÉCOLE", 1.0, 1.0),
  ],
)
def test_a_pair(answer, reference, f1, same):
  assert squad_score.f1(answer, reference, squad_words) == pytest.approx(f1)
  assert squad_score.exact_match(answer, reference, squad_words) == same


def test_means_over_questions_of_the_best_reference():
  got = squad_score.score(
    ["big cat", "", "北京"],
    [["cat", "a big cat"], ["x"], ["北京市", "上海"]],
    mlqa_words("zh"),
  )
  # Chinese has no articles: 2 of "big cat" against 3 words is .8; ideographs:
  # 2 of 2 and of 3.
  assert got["f1"] == pytest.approx((0.8 + 0 + 0.8) / 3)
  assert got["exact_match"] == 0
  got = squad_score.score(["big cat"], [["x", "a big cat"]], mlqa_words("en"))
  assert got == {"f1": 1.0, "exact_match": 1.0}


def test_other_languages_have_no_official_rule():
  with pytest.raises(InputError, match="'fr'"):
    mlqa_words("fr")
