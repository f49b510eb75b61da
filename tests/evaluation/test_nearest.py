"""The search in blocks against plain numpy, in float64."""

import numpy as np
import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.nearest import local_means, own_is_best, search
from infoxlm_jax.evaluation.retrieval import nearest_is_own, unit
from infoxlm_jax.evaluation.scoring import Scoring

BLOCK = (16, 24)  # several blocks each way, the last ones not full


def best(scores, k):
  """Values and places of the k best of each row; of equals, the first."""
  order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
  return np.take_along_axis(scores, order, axis=1), order


def means(cosine, k):
  """r of the rows and of the columns, written out."""
  rows = [sorted(row, reverse=True)[:k] for row in cosine.tolist()]
  columns = [sorted(row, reverse=True)[:k] for row in cosine.T.tolist()]
  return [sum(x) / len(x) for x in rows], [sum(x) / len(x) for x in columns]


def formula(cosine, scoring):
  """The scores of all pairs, one by one."""
  if scoring.name == "cosine":
    return cosine
  r_rows, r_columns = means(cosine, scoring.k)
  out = np.zeros_like(cosine)
  for (i, j), value in np.ndenumerate(cosine):
    if scoring.name == "csls":
      out[i, j] = 2 * value - r_rows[i] - r_columns[j]
    else:
      out[i, j] = value / (r_rows[i] / 2 + r_columns[j] / 2)
  return out


def translations(count=57, size=8, noise=0.7):
  random = np.random.default_rng(0)
  meaning = random.normal(size=(count, size)) + 0.5
  return (
    (meaning + noise * random.normal(size=meaning.shape)).astype(np.float32)
    for _ in range(2)
  )


def test_ties_go_to_the_lowest_index_in_any_block():
  # Small whole numbers: every product is exact, and many are equal.
  random = np.random.default_rng(0)
  a = random.integers(-1, 2, (37, 3)).astype(np.float32)
  b = random.integers(-1, 2, (53, 3)).astype(np.float32)
  scores = a @ b.T
  assert len(np.unique(scores)) < 10
  for block in (BLOCK, (1024, 1024)):
    there, back = search(a, b, 3, block=block)
    for nearest, matrix in ((there, scores), (back, scores.T)):
      values, places = best(matrix, 3)
      np.testing.assert_array_equal(nearest.scores, values)
      np.testing.assert_array_equal(nearest.indices, places)


def test_fewer_candidates_than_neighbours():
  a, b = np.eye(3, dtype=np.float32), np.eye(2, 3, dtype=np.float32)
  there, back = search(a, b, 5, block=BLOCK)
  assert there.indices.tolist() == [[0, 1], [1, 0], [0, 1]]
  assert back.indices.tolist() == [[0, 1, 2], [1, 0, 2]]
  assert there.scores.tolist() == [[1, 0], [1, 0], [0, 0]]


@pytest.mark.parametrize("name", ["csls", "ratio"])
def test_scores_are_their_formulas(name):
  scoring = Scoring(name, neighbours=5)
  a, b = (unit(x) for x in translations())
  b = b[:41]
  expected = formula(a.astype(np.float64) @ b.T.astype(np.float64), scoring)
  local = local_means(a, b, scoring, BLOCK)
  ways = search(a, b, 3, name, local, BLOCK)
  for nearest, matrix in zip(ways, (expected, expected.T), strict=True):
    values, places = best(matrix, 3)
    np.testing.assert_allclose(nearest.scores, values, rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(nearest.indices, places)


@pytest.mark.parametrize(
  "scoring",
  [
    Scoring(),
    Scoring(centre=True),
    Scoring("csls", 5),
    Scoring("ratio", 5, centre=True),
  ],
  ids=str,
)
def test_retrieval_is_the_brute_force_argmax(scoring):
  a, b = translations()
  b = b + 3 * scoring.centre  # a language's own direction
  x, y = (v.astype(np.float64) for v in (a, b))
  if scoring.centre:
    x, y = (v - v.mean(axis=0) for v in (x, y))
  x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
  scores = formula(x @ y.T, scoring)
  own = np.arange(len(a))
  ways = own_is_best(a, b, scoring, BLOCK)
  for hits, matrix in zip(ways, (scores, scores.T), strict=True):
    np.testing.assert_array_equal(hits.own, matrix.argmax(axis=1) == own)
    assert 0.2 < hits.own.mean() < 0.95
    assert hits.ties == 0


def test_each_scoring_finds_others():
  a, b = translations()
  cosine, csls, ratio = (
    own_is_best(a, b, Scoring(name, 5), BLOCK)[0].own.tolist()
    for name in ("cosine", "csls", "ratio")
  )
  assert cosine not in (csls, ratio)


def test_cosine_agrees_with_the_evaluation_of_a_run():
  a, b = translations()
  a[5], b[7], b[9] = 0, b[8], np.nan
  ways = own_is_best(a, b, Scoring(), BLOCK)
  with np.errstate(invalid="ignore"):
    expected = nearest_is_own(unit(a), unit(b))
  for hits, wanted in zip(ways, expected, strict=True):
    np.testing.assert_array_equal(hits.own, wanted)


def plane(*degrees):
  radian = np.deg2rad(np.array(degrees, np.float64))
  return np.stack([np.cos(radian), np.sin(radian)], axis=1).astype(np.float32)


def test_a_tie_is_wrong_and_is_counted():
  # b has one sentence twice: rows 0 and 1 of a cannot tell which is theirs.
  there, back = own_is_best(plane(0, 30, 90), plane(10, 10, 95), Scoring())
  assert (there.own.tolist(), there.ties) == ([False, False, True], 2)
  # From 10 degrees, 0 is nearer than 30: row 1 is wrong without a tie.
  assert (back.own.tolist(), back.ties) == ([True, False, True], 0)


@pytest.mark.parametrize("name", ["cosine", "csls", "ratio"])
def test_constant_vectors_score_zero(name):
  alike = np.tile(np.random.default_rng(0).normal(size=8), (57, 1))
  for hits in own_is_best(alike, alike, Scoring(name, 5), BLOCK):
    assert (hits.own.sum(), hits.ties) == (0, 57)


@pytest.mark.parametrize("name", ["cosine", "csls", "ratio"])
def test_zero_vectors_spoil_no_others(name):
  a, b = translations(noise=0.01)
  a[3] = 0
  there, back = own_is_best(a, b, Scoring(name, 5), BLOCK)
  assert np.flatnonzero(~there.own).tolist() == [3]
  assert not back.own[3]
  assert back.own.sum() == len(a) - 1


def test_what_scoring_refuses():
  with pytest.raises(InputError, match="'margin' is none of cosine, csls"):
    Scoring("margin")
  with pytest.raises(InputError, match="neighbours = 0"):
    Scoring("csls", 0)
  assert str(Scoring("ratio", centre=True)) == (
    "ratio (k = 4), centred per language"
  )
