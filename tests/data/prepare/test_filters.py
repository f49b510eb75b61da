"""Rules of cleaning on literal examples, and scripts of languages."""

import numpy as np
import pytest

from infoxlm_jax.data.prepare import unicode_scripts
from infoxlm_jax.data.prepare.filters import REASONS, Cleaning, judge
from infoxlm_jax.errors import InputError

OFF = Cleaning(
  max_ratio=None, drop_identical_sides=False, min_script_share=None
)


def verdicts(cleaning, lengths, limit=100, shares=None, identical=None):
  lengths = np.array(lengths)
  found = judge(
    cleaning,
    lengths,
    limit,
    None if shares is None else np.array(shares, float),
    None if identical is None else np.array(identical),
  )
  return [REASONS[number] for number in found]


def test_empty_goes_whatever_the_rules():
  assert verdicts(OFF, [[0], [1]]) == ["empty", ""]
  assert verdicts(OFF, [[0, 5], [5, 0], [5, 5]]) == ["empty", "empty", ""]


def test_too_short():
  rules = Cleaning(min_tokens=3, max_ratio=None)
  assert verdicts(rules, [[2], [3]]) == ["too_short", ""]
  assert verdicts(rules, [[3, 2], [3, 3]]) == ["too_short", ""]


@pytest.mark.parametrize(
  ("policy", "found"),
  [
    ("split", ["", ""]),
    ("truncate", ["", ""]),
    ("drop", ["", "too_long"]),
    ("error", ["", "too_long"]),
  ],
)
def test_too_long(policy, found):
  assert verdicts(Cleaning(on_long=policy), [[100], [101]]) == found
  if policy != "split":
    rules = Cleaning(on_long_side=policy, max_ratio=None)
    assert verdicts(rules, [[100, 1], [1, 101]]) == found


def test_length_ratio():
  rules = Cleaning(max_ratio=3, ratio_from=10)
  lengths = [[9, 3], [10, 3], [3, 10], [9, 1], [30, 10], [31, 10]]
  ratio = "length_ratio"
  assert verdicts(rules, lengths) == ["", ratio, ratio, "", "", ratio]
  assert verdicts(OFF, lengths) == [""] * 6


def test_identical_sides():
  same = [True, False]
  rules = Cleaning()
  assert verdicts(rules, [[5, 5]] * 2, identical=same) == [
    "identical_sides",
    "",
  ]
  assert verdicts(OFF, [[5, 5]] * 2, identical=same) == ["", ""]


def test_the_first_reason_counts():
  rules = Cleaning(min_tokens=2, on_long="drop", min_script_share=0.5)
  lengths, shares = [[0], [1], [101], [5]], [[0.1], [0.1], [1], [0.1]]
  assert verdicts(rules, lengths, shares=shares) == [
    "empty",
    "wrong_script",
    "too_long",
    "wrong_script",
  ]
  rules = Cleaning(on_long="drop", min_script_share=None)
  assert verdicts(rules, lengths, shares=shares) == [
    "empty",
    "",
    "too_long",
    "",
  ]


@pytest.mark.parametrize(
  "change",
  [
    {"on_long": "cut"},
    {"on_long_side": "split"},
    {"min_tokens": 0},
    {"max_ratio": 0.5},
    {"min_script_share": 1.5},
  ],
)
def test_bad_rules(change):
  (name,) = change
  with pytest.raises(InputError, match=f"Cleaning.{name} = "):
    Cleaning(**change).check()


@pytest.mark.parametrize(
  ("language", "text", "share"),
  [
    ("en", "Paul, an apostle", 1),
    ("en", "Павел Апостол", 0),
    ("ru", "Павел Апостол", 1),
    ("ru", "СССР USSR", 0.5),
    ("ru", "12:30 — 14:00!", 1),  # no letters: nothing to judge
    ("ru", "", 1),
    ("ja", "パウロはガラテヤ人へ", 1),
    ("ja", "データー", 1),  # the long vowel mark is of many scripts
    ("zh", "保罗写信", 1),
    ("zh", "Павел", 0),
    ("zh-Hant", "保羅", 1),
    ("ko", "바울은", 1),
    ("hi", "पौलुस की ओर से", 1),
    ("th", "เปาโล", 1),
    ("el", "Παῦλος", 1),
    ("sr", "Pavle", 1),
    ("sr", "Павле", 1),
    ("sr-Latn", "Павле", 0),
    ("sr_Cyrl", "Pavle", 0),
    ("fa", "پولس", 1),
    ("xx", "Павел abc", 1),  # not known: not judged
    ("zh-TW", "abc", 0),
  ],
)
def test_script_shares(language, text, share):
  # Neighbours of the same call do not mix.
  found = unicode_scripts.shares(["x", text, "", "Ж"], language)
  assert found[1] == share


def test_every_language_of_xlmr_has_a_script():
  languages = """af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu
    fa fi fr fy ga gd gl gu ha he hi hr hu hy id is it ja jv ka kk km kn ko ku
    ky la lo lt lv mg mk ml mn mr ms my ne nl no om or pa pl ps pt ro ru sa sd
    si sk sl so sq sr su sv sw ta te th tl tr ug uk ur uz vi xh yi zh"""
  for language in languages.split():
    assert unicode_scripts.scripts_of(language), language
