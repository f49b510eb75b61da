"""Word alignment: error rates by hand, numpy twins, gold files, the job."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import small_model

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation import inference
from infoxlm_jax.evaluation.alignment import job, methods, predict
from infoxlm_jax.evaluation.alignment.files import Gold, read_set
from infoxlm_jax.evaluation.alignment.job import AlignmentFiles
from infoxlm_jax.evaluation.alignment.score import Counts, measures


def test_error_rate_by_hand():
  """Pair 1: A = 00 12 22, S = 00 11, P = S + 12. Pair 2: A = S = P = 00.

  |A & S| = 2, |A & P| = 3, |A| = 4, |S| = 3.
  """
  first = Gold(frozenset({(0, 0), (1, 1)}), frozenset({(0, 0), (1, 1), (1, 2)}))
  second = Gold(frozenset({(0, 0)}), frozenset({(0, 0)}))
  counts = Counts().plus([(0, 0), (1, 2), (2, 2)], first)
  assert measures(counts)["aer"] == pytest.approx(1 - (1 + 2) / (3 + 2))
  found = measures(counts.plus([(0, 0)], second))
  assert found == pytest.approx(
    {
      "aer": 1 - (2 + 3) / (4 + 3),
      "precision": 3 / 4,
      "recall": 2 / 3,
      "f1": 2 * (3 / 4) * (2 / 3) / (3 / 4 + 2 / 3),
    }
  )
  nothing = measures(Counts().plus([], first))
  assert nothing == {"aer": 1, "precision": 0, "recall": 0, "f1": 0}


def mutual(x):
  """Places that are the first maximum of their row and their column."""
  m, n = x.shape
  return {
    (i, j)
    for i in range(m)
    for j in range(n)
    if x[i].tolist().index(max(x[i])) == j
    and x[:, j].tolist().index(max(x[:, j])) == i
  }


def twin(method, x):
  """Links of one pair, in loops."""
  if method == "sinkhorn":
    x = np.maximum(x, 0) + 1e-6 * (x <= 0)
    for _ in range(2):
      x = x / x.sum(0, keepdims=True)
      x = x / x.sum(1, keepdims=True)
  else:
    x = (x + 1) / 2
  found = mutual(x)
  if method == "argmax" or min(x.shape) <= 2:
    return found
  rows, columns = ({link[side] for link in found} for side in (0, 1))
  if len(rows) == x.shape[0] or len(columns) == x.shape[1]:
    return found
  y = x.copy()
  for i in range(x.shape[0]):
    for j in range(x.shape[1]):
      y[i, j] *= (1, 0.9, 0)[(i in rows) + (j in columns)]
  return found | {
    (i, j) for i, j in mutual(y) if i not in rows or j not in columns
  }


SIZES = [(7, 5), (2, 6), (1, 1), (4, 8), (8, 8), (3, 3)]


@pytest.mark.parametrize("method", methods.METHODS)
def test_methods_against_a_twin(method):
  """Two layers of pairs of several sizes, padded with what must not count."""
  draw = np.random.default_rng(0)
  similarity = draw.uniform(-1, 1, (2, len(SIZES), 8, 8)).astype(np.float32)
  added = 0
  for layer in range(2):
    for n, (i, j) in enumerate(SIZES):
      similarity[layer, n, i:] = similarity[layer, n, :, j:] = 5.0
  found = np.asarray(
    methods.links(method, jnp.asarray(similarity), jnp.asarray(SIZES))
  )
  for layer in range(2):
    for n, (i, j) in enumerate(SIZES):
      wanted = twin(method, similarity[layer, n, :i, :j].astype(np.float64))
      assert set(zip(*found[layer, n].nonzero(), strict=True)) == wanted
      added += len(wanted) - len(twin("argmax", similarity[layer, n, :i, :j]))
  assert added > 0 or method == "argmax"


def test_words_of_pieces_by_hand():
  """Words of 2, 1 and of 1, 3 pieces; the last column and row are padding."""
  aligned = np.zeros((4, 5), bool)
  aligned[[1, 2, 2, 3, 0], [0, 2, 3, 1, 4]] = True
  source = [np.zeros(2), np.zeros(1)]
  target = [np.zeros(1), np.zeros(3)]
  assert predict.word_links(aligned, source, target) == {(0, 0), (1, 1)}


PAIRS = "der König sprach ||| the king said\nja ||| yes indeed\nso ||| so\n"
GOLD = "0-0 1-1 2?2 1p2\n0-0 0-1 0p0\n\n"


def write(folder, **texts):
  for name, text in texts.items():
    (folder / name).write_text(text, "utf-8")
  return str(folder / "pairs"), str(folder / "gold")


def test_files(tmp_path):
  data = read_set(*write(tmp_path, pairs=PAIRS, gold=GOLD), 0)
  assert data.pairs[0] == ("der König sprach".split(), "the king said".split())
  assert data.gold[0] == ({(0, 0), (1, 1)}, {(0, 0), (1, 1), (2, 2), (1, 2)})
  assert data.gold[1] == ({(0, 0), (0, 1)}, {(0, 0), (0, 1)})
  assert data.gold[2] == (set(), set())
  # The same as TSV, with words counted from 1.
  other = read_set(
    *write(
      tmp_path,
      pairs=PAIRS.replace(" ||| ", "\t"),
      gold="1-1 2-2 3?3 2p3\n1-1 1-2 1p1\n\n",
    ),
    1,
  )
  assert other == data


@pytest.mark.parametrize(
  ("pairs", "gold", "first", "message"),
  [
    (PAIRS, "0-0\n0-0\n", 0, "pairs has 3 lines and .*gold 2"),
    ("a ||| b\na\n", "0-0\n\n", 0, "pairs, line 2: 1 parts .*|||"),
    ("a\tb\na\tb\tc\n", "0-0\n\n", 0, "pairs, line 2: 3 parts .*<TAB>"),
    ("a ||| b\n ||| b\n", "0-0\n\n", 0, "pairs, line 2: the source has no"),
    ("a ||| b\n", "0-0 0:0\n", 0, "gold, line 1: '0:0' is no link"),
    ("a ||| b\n", "1-1\n", 0, "line 1: .* 1 and 1 words.*set FIRST_WORD=1"),
    ("a ||| b\n", "1-2\n", 1, "line 1: the link of words 1 and 2 is outside"),
    ("a ||| b\n", "0-1\n", 1, "line 1: the link '0-1' has word 0"),
    ("a ||| b\n", "0?0\n", 0, "gold has no sure link"),
    ("a ||| b\n", "0-0\n", 2, "FIRST_WORD = 2"),
  ],
)
def test_broken_files(tmp_path, pairs, gold, first, message):
  with pytest.raises(InputError, match=message):
    read_set(*write(tmp_path, pairs=pairs, gold=gold), first)


SENTENCES = (
  ("and the king said unto Moab", "und der König sprach zu Moab"),
  ("Noah and Esau", "Esau ging zu dem Jordan und Noah"),
  ("go up", "up"),
)


@pytest.fixture(scope="module")
def encoder():
  return inference.load(small_model.folder(), devices=1)


def test_every_layer_against_a_twin(encoder, tmp_path):
  """Cosines of the hidden states of the texts, in numpy."""
  pairs = "\n".join(" ||| ".join(pair) for pair in SENTENCES)
  data = read_set(*write(tmp_path, pairs=pairs, gold="0-0 1?1\n0-1\n1-0"), 0)
  found = predict.count(encoder, data)
  counts = [Counts()] * (encoder.config.num_layers + 1)
  for (source, target), gold in zip(SENTENCES, data.gold, strict=True):
    sides = []
    for text in (source, target):
      (hidden,) = encoder.hidden_states([text])
      # A piece that begins with the mark of a space begins a word.
      starts = [p.startswith("▁") for p in encoder.pieces(text)[1:-1]]
      norm = np.linalg.norm(hidden, axis=-1, keepdims=True)
      sides.append(((hidden / norm)[:, 1:-1], np.cumsum(starts) - 1))
    (a, of_a), (b, of_b) = sides
    for layer in range(len(counts)):
      links = mutual(a[layer] @ b[layer].T)
      links = {(int(of_a[i]), int(of_b[j])) for i, j in links}
      counts[layer] = counts[layer].plus(links, gold)
  assert found["argmax"] == counts
  assert len({own.links for own in counts}) > 1  # layers differ
  assert found["itermax"] != counts


def test_the_job(tmp_path, capsys):
  """A sentence aligns with itself: no error, whatever the weights."""
  text = "and the king said unto Moab ||| and the king said unto Moab\n"
  same = write(tmp_path, pairs=text, gold="0-0 1-1 2-2 3-3 4-4 5-5\n")
  (tmp_path / "dev").mkdir()
  other = write(tmp_path / "dev", pairs=PAIRS, gold=GOLD)
  out = tmp_path / "out"

  def run(*dev, **options):
    job.alignment(
      model_dir=str(out),
      model=str(small_model.folder()),
      files=AlignmentFiles(*same, *dev),
      devices=1,
      **options,
    )
    path = out / "results.json"
    return json.loads(path.read_text())["alignment"] if path.exists() else None

  with pytest.raises(InputError, match="LAYER = 4: the model has 3 layers"):
    run(layer=4)
  with pytest.raises(InputError, match="METHOD = 'itremax'.*'itermax'"):
    run(method="itremax")
  with pytest.raises(InputError, match="DEV_PAIRS and DEV_GOLD"):
    run(other[0])
  assert run(dry_run=True) is None
  assert "1 pairs of" in capsys.readouterr().out
  assert not out.exists()

  chosen = run()
  assert chosen["layer_chosen_on"] == "test" and chosen["layer"] == 0
  assert chosen["test"]["aer"] == 0
  assert set(chosen["test"]["by_layer"]) == set(methods.METHODS)
  assert chosen["test"]["by_layer"]["argmax"]["aer"] == [0, 0, 0, 0]
  report = (out / "report.md").read_text()
  assert "chosen on the test pairs themselves" in report
  assert "| 3 | 0.0 | 0.0 | 0.0 |" in report
  assert (out / "figures" / "alignment.png").stat().st_size > 5000

  chosen = run(*other, method="argmax")
  errors = chosen["dev"]["by_layer"]["argmax"]["aer"]
  assert chosen["layer_chosen_on"] == "dev"
  assert chosen["layer"] == errors.index(min(errors))
  assert run(layer=2)["layer"] == 2
  assert "The layer was given." in (out / "report.md").read_text()
