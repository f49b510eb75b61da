"""Word alignment against hand-worked cases and numpy, and in updates."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.model import partitioning
from infoxlm_jax.objectives import token_alignment, word_alignment
from infoxlm_jax.objectives.word_alignment import WordAlignment
from infoxlm_jax.training import schedules, step
from infoxlm_jax.training import state as train_state

GROUPS, WIDTH = 16, 28


def test_normalization_by_hand():
  """Columns, then rows; what is not above 0 counts as 1e-6."""
  similarity = jnp.array([[4.0, 2.0, 7.0], [-1.0, 3.0, 7.0]])
  allowed = jnp.array([[True, True, False]] * 2)
  # Columns: 1 and .4 above, 2.5e-7 and .6 below; then rows.
  wanted = [[1 / 1.4, 0.4 / 1.4, 0], [2.5e-7 / 0.6, 1, 0]]
  found = token_alignment.normalize(similarity, allowed, 1)
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_itermax_by_hand():
  """Mutual best: (0, 0) and (2, 2).

  In the second round places with one free token weigh .9: row 1 chooses
  column 0 (.72), row 2 column 1 (.18), and these columns choose them.
  """
  weight = jnp.array([[0.9, 0.1, 0.0], [0.8, 0.15, 0.05], [0.1, 0.2, 0.7]])
  yes = jnp.ones((3, 3), bool)

  def places(rounds, repeated):
    found = token_alignment.itermax(
      weight, yes, yes, jnp.full((3, 1), repeated), rounds
    )
    return set(zip(*np.nonzero(np.asarray(found)), strict=True))

  assert places(1, True) == places(2, False) == {(0, 0), (2, 2)}
  assert places(2, True) == {(0, 0), (2, 2), (1, 0), (2, 1)}


def test_the_last_of_several_partners_counts():
  aligned = np.zeros((6, 6), bool)
  for i, j in ((0, 3), (2, 5), (1, 3), (2, 4)):
    aligned[i, j] = True
  found = token_alignment.partners(jnp.asarray(aligned))
  assert found.tolist() == [3, 3, 5, 1, 2, 2]


def _aligned_in_numpy(similarity):
  """One pair, in loops: similarity [m, n] -> set of (i, j)."""
  m, n = similarity.shape
  x = [[max(v, 0) or 1e-6 for v in row] for row in similarity.tolist()]
  x = np.array(x)
  for _ in range(2):
    x = x / x.sum(0)
    x = (x.T / x.sum(1)).T
  found = set()
  for number in range(1 if min(m, n) <= 2 else 2):
    rows = {i for i, _ in found}
    columns = {j for _, j in found}
    if number and (len(rows) == m or len(columns) == n):
      break
    y = x.copy()
    for i in range(m):
      for j in range(n):
        free = (i not in rows) + (j not in columns)
        y[i, j] *= (0, 0.9, 1)[free]
    new = set()
    for i in range(m):
      j = int(y[i].argmax())
      closed = i in rows and j in columns
      if int(y[:, j].argmax()) == i and not closed:
        new.add((i, j))
    found |= new
  return found


def test_packed_pairs_against_loops():
  draw = np.random.default_rng(0)
  for _ in range(40):
    pairs = [tuple(draw.integers(0, 6, 2)) for _ in range(3)]
    segments, sides, starts = [], [], []
    for number, (m, n) in enumerate(pairs, 1):
      at = len(segments)
      starts.append((at + 1, at + m + 2))
      segments += [number] * (m + n + 3)
      sides += [0, *[1] * m, 0, *[2] * n, 0]
    size = 24
    segments += [0] * (size - len(segments))
    if len(segments) > size:
      continue
    sides += [0] * (size - len(sides))
    similarity = draw.normal(0.5, 1, (size, size)).astype(np.float32)
    wanted = set()
    for (m, n), (i, j) in zip(pairs, starts, strict=True):
      if m and n:
        own = _aligned_in_numpy(similarity[i : i + m, j : j + n])
        wanted |= {(i + a, j + b) for a, b in own}
    found = token_alignment.align(
      jnp.asarray(similarity), jnp.asarray(segments), jnp.asarray(sides), 2, 2
    )
    assert set(zip(*np.nonzero(np.asarray(found)), strict=True)) == wanted


def test_sides_of_packed_pairs():
  ids = oracle.train_init()[0].ids
  words = [0, 9, 9, 2, 9, 2, 0, 2, 9, 2, 0, 9, 9, 2, 1, 1]
  segments = [1] * 6 + [2] * 4 + [3] * 4 + [0] * 2
  positions = [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 0, 1, 2, 3, 0, 0]
  rows = {"tokens": words, "segments": segments, "positions": positions}
  found = token_alignment.sides_of(
    {k: jnp.array(v) for k, v in rows.items()}, ids
  )
  # The second pair has an empty first side; the third was cut to one.
  assert found.tolist() == [0, 1, 1, 0, 2, 0, 0, 0, 2, 0, 0, 1, 1, 0, 0, 0]


def test_pointer_against_numpy():
  draw = np.random.default_rng(1)
  d, slots, length = 4, 3, 6
  head = {
    name: {"kernel": draw.normal(size=(d, d)), "bias": draw.normal(size=d)}
    for name in ("query", "key")
  }
  hidden, masked = draw.normal(size=(length, d)), draw.normal(size=(slots, d))
  allowed = np.zeros((slots, length), bool)
  allowed[0, 1:4] = allowed[1, 4:6] = True
  target = np.array([2, 5, -1])
  nll, hit = word_alignment.point(
    jax.tree.map(jnp.asarray, head), masked, hidden, allowed, target
  )
  for p, (low, high) in enumerate(((1, 4), (4, 6))):
    q = masked[p] @ head["query"]["kernel"] + head["query"]["bias"]
    scores = [
      q @ (hidden[t] @ head["key"]["kernel"] + head["key"]["bias"]) / 2
      for t in range(low, high)
    ]
    own = scores[target[p] - low]
    wanted = math.log(sum(map(math.exp, scores))) - own
    assert float(nll[p]) == pytest.approx(wanted, rel=1e-5)
    assert bool(hit[p]) == (own == max(scores))
  assert float(nll[2]) == 0 and not bool(hit[2])


def test_bad_options():
  config = oracle.train_init()[0]
  with pytest.raises(InputError, match="layer = 10"):
    WordAlignment().check("alignment", config)
  with pytest.raises(InputError, match="rounds = 0"):
    WordAlignment(layer=1, rounds=0).check("alignment", config)


def _batch(number):
  """Two pairs a row: words 4..51, their translations 48 higher, reversed."""
  draw = np.random.default_rng(number)
  rows = np.full((GROUPS, WIDTH), oracle.PAD)
  segments, positions = np.zeros((2, GROUPS, WIDTH), int)
  for group in range(GROUPS):
    at = 0
    for item in (1, 2):
      words = draw.integers(4, 52, draw.integers(2, 6))
      pair = [0, *words, 2, *(words[::-1] + 48), 2]
      here = slice(at, at + len(pair))
      rows[group, here], segments[group, here] = pair, item
      positions[group, here] = range(len(pair))
      at += len(pair)
  arrays = {"tokens": rows, "segments": segments, "positions": positions}
  return {"tlm": {k: v[:, None].astype(np.int32) for k, v in arrays.items()}}


def _train(updates):
  """Metrics of each update."""
  config, params = oracle.train_init()
  objectives = {"alignment": WordAlignment(layer=1)}
  heads = objectives["alignment"].init(jax.random.key(0), config)
  params["heads"] = heads | params["heads"]
  rate = schedules.constant(1e-2)
  recipe = train_state.Recipe(
    config, objectives, optax.adam(rate), {"tlm": GROUPS}
  )
  mesh = partitioning.make_mesh(partitioning.MeshShape(devices=1))
  params = jax.tree.map(jnp.asarray, params)
  state = train_state.create(recipe, params, train_state.first_rng(0))
  state = jax.device_put(state, partitioning.shardings(state, mesh))
  update = step.make_train_step(recipe, state, mesh, learning_rate=rate)
  place = partitioning.batch_sharding(mesh)
  metrics = []
  for number in range(updates):
    state, measured = update(state, jax.device_put(_batch(number % 4), place))
    metrics.append({k: float(v) for k, v in measured.items()})
  return metrics


def test_both_losses_are_one_sum_over_all_terms():
  for row in _train(4):
    # "aligned" is the share of the masked tokens that have a translation.
    masked = row["alignment/terms"] / (1 + row["alignment/aligned"])
    assert masked == pytest.approx(round(masked), abs=1e-3)
    pointers = row["alignment/terms"] - masked
    total = (
      masked * row["alignment/tlm_loss"] + pointers * row["alignment/loss"]
    )
    assert row["loss"] == pytest.approx(
      total / row["alignment/terms"], rel=1e-5
    )
