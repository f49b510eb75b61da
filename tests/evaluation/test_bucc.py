"""Mining, its threshold and its F1, worked out by hand; BUCC's files."""

import numpy as np
import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.bucc import (
  Mined,
  at_threshold,
  choose_threshold,
  f1_scores,
  mine,
  read_bucc,
)
from infoxlm_jax.evaluation.scoring import Scoring

# Pairs in the order of their scores: right, wrong, right, wrong. Of three gold
# pairs the last is never mined. F1 after each pair: 2/4, 2/5, 4/6, 4/7.
MINED = Mined(
  np.array([0.9, 0.8, 0.7, 0.6], np.float32),
  np.array([[0, 0], [1, 3], [2, 2], [3, 1]]),
)
GOLD = frozenset({(0, 0), (2, 2), (4, 4)})


def test_the_threshold_has_the_best_f1():
  threshold = choose_threshold(MINED, GOLD)
  assert threshold == pytest.approx(0.65)
  pairs = at_threshold(MINED, threshold)
  assert pairs == [(0, 0), (1, 3), (2, 2)]
  assert f1_scores(pairs, GOLD) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_precision_and_recall_are_not_mixed_up():
  assert f1_scores([(0, 0)], GOLD) == pytest.approx((1.0, 1 / 3, 0.5))
  assert f1_scores([], GOLD) == (0.0, 0.0, 0.0)


def test_no_threshold_between_equal_scores():
  # After the first pair F1 is 2/4, but its score is the second pair's too.
  scores = np.array([0.9, 0.9, 0.7, 0.6], np.float32)
  tied = Mined(scores, MINED.pairs)
  assert choose_threshold(tied, frozenset({(0, 0)})) == pytest.approx(0.8)


def test_the_last_pair_may_be_kept():
  gold = frozenset({(0, 0), (3, 1)})
  all_right = Mined(MINED.scores[[0, 3]], MINED.pairs[[0, 3]])
  threshold = choose_threshold(all_right, gold)
  assert at_threshold(all_right, threshold) == [(0, 0), (3, 1)]


def test_no_threshold_without_a_right_pair():
  with pytest.raises(InputError, match="none of the 1 gold pairs"):
    choose_threshold(MINED, frozenset({(9, 9)}))


def _plane(*degrees):
  radian = np.deg2rad(np.array(degrees, np.float64))
  return np.stack([np.cos(radian), np.sin(radian)], axis=1).astype(np.float32)


def test_mining_gives_each_sentence_away_once():
  # a0 and a1 both propose b0, and b0 proposes a0: a0 gets it. b1 proposes a1,
  # 50 degrees away, which is still free. a2 and b2 propose each other.
  mined = mine(_plane(0, 10, 180), _plane(2, 60, 181), Scoring())
  assert mined.pairs.tolist() == [[2, 2], [0, 0], [1, 1]]
  np.testing.assert_allclose(
    mined.scores, np.cos(np.deg2rad([1, 2, 50])), atol=1e-6
  )


def test_equal_scores_are_mined_in_the_order_of_the_lists():
  mined = mine(_plane(0, 90, 90), _plane(90, 0, 90), Scoring())
  assert mined.pairs.tolist() == [[0, 1], [1, 0]]


FILES = {
  "fr-en.training.fr": "fr-000000001\tUn.\nfr-000000002\tDeux\u2028!\n",
  "fr-en.training.en": "en-000000001\tTwo!\nen-000000002\tThree.\n"
  "en-000000003\tOne.\n",
  "fr-en.training.gold": "fr-000000001\ten-000000003\n"
  "fr-000000002\ten-000000001\n",
}


@pytest.fixture
def folder(tmp_path):
  for name, text in FILES.items():
    (tmp_path / name).write_text(text, encoding="utf-8")
  return tmp_path


def test_the_official_layout(folder):
  [one] = read_bucc(folder, "training")
  assert one.name == "fr-en"
  assert one.sides[0].texts == ["Un.", "Deux\u2028!"]
  assert one.sides[1].ids == ["en-000000001", "en-000000002", "en-000000003"]
  assert one.gold == {(0, 2), (1, 0)}


def test_the_official_archive_has_a_folder_for_each_pair(folder):
  inner = folder / "bucc2018" / "fr-en"
  inner.mkdir(parents=True)
  for name in FILES:
    if not name.endswith("gold"):  # BUCC's test split has none
      new = name.replace("training", "test")
      (inner / new).write_bytes((folder / name).read_bytes())
  [one] = read_bucc(folder / "bucc2018", "test")
  assert one.gold is None


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("fr-en.training.en", "en-1 Two!\n", r"\.en, line 1: expected an id"),
    ("fr-en.training.en", "en-1\t \n", r"\.en, line 1: expected an id"),
    ("fr-en.training.fr", "fr-1\ta\nfr-1\tb\n", r"\.fr, line 2: .*second time"),
    (
      "fr-en.training.gold",
      "fr-000000001\ten-000000009\n",
      "line 1: the id 'en-000000009' is in no",
    ),
    ("fr-en.training.gold", "fr-000000001\n", "line 1: expected two ids"),
    (
      "fr-en.training.gold",
      2 * "fr-000000001\ten-000000003\n",
      "line 2: this pair",
    ),
    ("fr-en.training.en", None, r"fr-en\.training\.en: no such file"),
  ],
)
def test_broken_files_are_named(folder, name, text, message):
  if text is None:
    (folder / name).unlink()
  else:
    (folder / name).write_text(text)
  with pytest.raises(InputError, match=message):
    read_bucc(folder, "training")


def test_a_split_that_is_not_there(folder):
  with pytest.raises(InputError, match="no files of the split 'test'"):
    read_bucc(folder, "test")
  with pytest.raises(InputError, match="no such folder"):
    read_bucc(folder / "none", "test")
