"""Retrieval, worked out by hand on angles in the plane."""

import json

import numpy as np
import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.retrieval import (
  Retrieval,
  nearest_is_own,
  read_multiway,
  sweep,
  unit,
)
from infoxlm_jax.evaluation.similarity import similarities, spread

# Nearest by cosine is nearest by angle. en 30 is nearer to xx 10 than to its
# own 55; all others find their own, in both directions.
EN = [0, 30, 90, 180]
XX = [10, 55, 95, 170]


def _plane(*layers_of_poolings):
  """[layers][poolings] lists of degrees -> float32 [layers, poolings, N, 2].

  Lengths differ from vector to vector: cosine must not see them.
  """
  radian = np.deg2rad(np.array(layers_of_poolings, np.float64))
  length = 0.5 + np.arange(radian.shape[-1])
  vectors = np.stack([np.cos(radian), np.sin(radian)], axis=-1)
  return (vectors * length[:, None]).astype(np.float32)


def _sweep(en, xx, en_rows=None, xx_rows=None):
  vectors = {"en": _plane([en]), "xx": _plane([xx])}
  rows = {
    "en": np.array(en_rows or range(len(en))),
    "xx": np.array(xx_rows or range(len(xx))),
  }
  retrieval = sweep(vectors, rows, ["mean"])
  return retrieval.accuracy[0, 0, 0].tolist(), retrieval.counts


def test_accuracy_by_hand():
  assert _sweep(EN, XX) == ([0.75, 1.0], {"xx": 4})


def test_only_shared_rows_are_compared_and_are_candidates():
  # xx has the rows 3 and 0, in that order. Row 0 lies at 25 degrees, nearest
  # to en's row 1 (30), which xx lacks: so row 0 (0 degrees) is its nearest.
  assert _sweep(EN, [170, 25], xx_rows=[3, 0]) == ([1.0, 1.0], {"xx": 2})


def test_rows_are_matched_by_number_not_by_place():
  accuracy, _ = _sweep(EN, XX[::-1], xx_rows=[3, 2, 1, 0])
  assert accuracy == [0.75, 1.0]
  accuracy, _ = _sweep(EN, XX[::-1])
  assert accuracy == [0.0, 0.0]


def test_constant_vectors_score_zero():
  assert _sweep([40] * 4, [40] * 4)[0] == [0.0, 0.0]
  # And with a size at which the products round in different ways.
  alike = unit(np.tile(np.random.default_rng(0).normal(size=768), (333, 1)))
  there, back = nearest_is_own(alike, alike, block=100)
  assert there.tolist() == back.tolist() == [False] * 333


def test_a_tie_with_one_wrong_sentence_is_wrong():
  # xx holds one sentence twice: en cannot tell rows 0 and 1 apart; the other
  # way round, 10 degrees is nearer to 0 than to 30, so row 0 is right.
  assert _sweep([0, 30, 90], [10, 10, 95])[0] == [
    pytest.approx(1 / 3),
    pytest.approx(2 / 3),
  ]


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_vectors_without_a_direction_score_zero(bad):
  broken = np.full((5, 3), bad, np.float32)
  good = np.eye(5, 3, dtype=np.float32)
  there, back = nearest_is_own(unit(broken), unit(good))
  assert there.tolist() == back.tolist() == [False] * 5


def test_blocks_change_nothing_and_agree_with_the_plain_argmax():
  random = np.random.default_rng(0)
  meaning = random.normal(size=(57, 8))
  a, b = (unit(meaning + random.normal(size=(57, 8))) for _ in range(2))
  cosine = a.astype(np.float64) @ b.T.astype(np.float64)
  own = np.arange(57)
  expected = (cosine.argmax(1) == own, cosine.argmax(0) == own)
  assert 0.2 < expected[0].mean() < 0.9
  assert (expected[0] != expected[1]).any()
  for block in (None, 1, 10, 56, 57, 100):
    for is_nearest, wanted in zip(
      nearest_is_own(a, b, block), expected, strict=True
    ):
      np.testing.assert_array_equal(is_nearest, wanted)


def _two_by_two() -> Retrieval:
  shuffled = [95, 170, 10, 55]
  vectors = {
    "de": _plane([shuffled, shuffled], [shuffled, XX]),
    "en": _plane([EN, EN], [EN, EN]),
    "fr": _plane([shuffled, XX], [shuffled, EN]),
  }
  rows = {language: np.arange(4) for language in vectors}
  return sweep(vectors, rows, ["first", "mean"])


def test_layers_poolings_and_languages_each_in_their_place():
  retrieval = _two_by_two()
  assert retrieval.languages == ("de", "fr")
  # [layer, pooling, language, direction]
  assert retrieval.accuracy[0].tolist() == [
    [[0, 0], [0, 0]],
    [[0, 0], [0.75, 1]],
  ]
  assert retrieval.accuracy[1].tolist() == [
    [[0, 0], [0, 0]],
    [[0.75, 1], [1, 1]],
  ]
  assert retrieval.mean()[1, 1].tolist() == [0.875, 1.0]


def test_choose_takes_the_best_mean():
  assert _two_by_two().choose() == (1, "mean")


def test_at_is_what_results_json_holds():
  expected = {
    "en_to_xx": {"mean": 0.875, "by_language": {"de": 0.75, "fr": 1.0}},
    "xx_to_en": {"mean": 1.0, "by_language": {"de": 1.0, "fr": 1.0}},
    "layer": 1,
    "pooling": "mean",
    "sentences": {"de": 4, "fr": 4},
  }
  retrieval = _two_by_two().at(1, "mean")
  assert json.loads(json.dumps(retrieval)) == expected
  assert _two_by_two().by_layer() == {
    "first": {"en_to_xx": [0.0, 0.0], "xx_to_en": [0.0, 0.0]},
    "mean": {"en_to_xx": [0.375, 0.875], "xx_to_en": [0.5, 1.0]},
  }


def test_another_pivot_names_its_directions():
  vectors = {"en": _plane([EN]), "fr": _plane([XX])}
  rows = {language: np.arange(4) for language in vectors}
  retrieval = sweep(vectors, rows, ["mean"], pivot="fr").at(0, "mean")
  assert retrieval["fr_to_xx"]["by_language"] == {"en": 1.0}
  assert retrieval["xx_to_fr"]["by_language"] == {"en": 0.75}


def test_what_cannot_be_compared_is_said():
  vectors = {"en": _plane([EN]), "xx": _plane([XX])}
  rows = {"en": np.arange(4), "xx": np.arange(4) + 4}
  with pytest.raises(InputError, match="both en and xx"):
    sweep(vectors, rows, ["mean"])
  with pytest.raises(InputError, match="needs de"):
    sweep(vectors, rows, ["mean"], pivot="de")
  with pytest.raises(ValueError, match="poolings"):
    sweep(vectors, rows, ["mean", "first"])
  with pytest.raises(ValueError, match="twice"):
    _sweep(EN, XX, xx_rows=[0, 1, 1, 2])


def test_similarities_of_translations_by_hand():
  vectors = {"en": _plane([EN]), "xx": _plane([XX])}
  rows = {language: np.arange(4) for language in vectors}
  similarity = similarities(vectors, rows, 0, 0, negatives=1000)
  degrees = np.deg2rad([10, 25, 5, 10])
  np.testing.assert_allclose(similarity.positives, np.cos(degrees), atol=1e-6)
  other = [
    np.cos(np.deg2rad(a - b))
    for i, a in enumerate(EN)
    for j, b in enumerate(XX)
    if i != j
  ]
  assert len(similarity.negatives) == 1000
  # Every other pair is drawn, and nothing else.
  np.testing.assert_allclose(
    np.unique(similarity.negatives.round(4)), np.unique(np.round(other, 4))
  )
  # One of the 12 others (20 degrees) is nearer than the pair of 25 degrees.
  above = similarity.summary()["positive_above_negative"]
  assert above == pytest.approx(1 - (1 / 12) / 4, abs=0.01)


def test_the_sample_of_other_pairs_depends_on_the_seed_alone():
  vectors = {"en": _plane([EN]), "xx": _plane([XX])}
  rows = {language: np.arange(4) for language in vectors}
  one, two, three = (
    similarities(vectors, rows, 0, 0, negatives=50, seed=seed).negatives
    for seed in (1, 1, 2)
  )
  assert one.tolist() == two.tolist() != three.tolist()


@pytest.mark.parametrize(
  "degrees, expected",
  [([0, 90], 1.0), ([7, 7, 7], 0.0), ([0, 180], 2.0), ([0, 0, 90], 2 / 3)],
)
def test_spread_by_hand(degrees, expected):
  assert spread(_plane([degrees])[0, 0]) == pytest.approx(expected, abs=1e-6)


def test_read_multiway(tmp_path):
  path = tmp_path / "dev.jsonl"
  # U+2028 ends no line.
  path.write_text(
    '{"id": "a", "en": "one\u2028two", "de": "eins"}\n'
    '{"id": "b", "en": "three"}\n'
    '{"id": "c", "de": "vier", "en": "four"}\n',
    encoding="utf-8",
  )
  ids, by_language = read_multiway(path)
  assert ids == ["a", "b", "c"]
  assert by_language["en"][0].tolist() == [0, 1, 2]
  assert by_language["en"][1] == ["one\u2028two", "three", "four"]
  assert by_language["de"][0].tolist() == [0, 2]
  assert by_language["de"][1] == ["eins", "vier"]


@pytest.mark.parametrize(
  "line, problem",
  [
    (b'{"id": "b", "en": ', "not JSON"),
    (b'{"id": "b", "en": "\xff"}', "not UTF-8"),
    (b"", "not JSON"),
    (b'["b"]', "no object"),
    (b'{"en": "text"}', "id"),
    (b'{"id": "b", "en": ""}', "missing translation"),
    (b'{"id": "b", "en": 3}', "not a text"),
    (b'{"id": "a", "en": "text"}', "second time"),
  ],
)
def test_read_multiway_names_the_broken_line(tmp_path, line, problem):
  path = tmp_path / "dev.jsonl"
  path.write_bytes(b'{"id": "a", "en": "x"}\n' + line + b"\n")
  with pytest.raises(InputError, match=r"dev\.jsonl, line 2") as caught:
    read_multiway(path)
  assert problem in str(caught.value)


def test_read_multiway_of_nothing(tmp_path):
  with pytest.raises(InputError, match="could not be read"):
    read_multiway(tmp_path / "none.jsonl")
  (tmp_path / "empty.jsonl").write_text("")
  with pytest.raises(InputError, match="no sentences"):
    read_multiway(tmp_path / "empty.jsonl")
