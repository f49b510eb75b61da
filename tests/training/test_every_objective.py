"""What holds for every objective: its losses fall, and all meshes are alike.

The cases are in tests/objective_cases.py; a class without one fails here.
"""

import functools
import importlib
import inspect
import pkgutil

import invented_languages
import jax
import numpy as np
import objective_cases
import pytest
import small_run
from invented_languages import IDS, RECORDS
from objective_cases import CASES, TOGETHER

import infoxlm_jax.objectives
from infoxlm_jax.evaluation import retrieval_eval
from infoxlm_jax.evaluation.embed import make_embed
from infoxlm_jax.model import partitioning
from infoxlm_jax.objectives.base import Objective
from infoxlm_jax.objectives.labelled import Labelled

UPDATES = 30
MESHES = {"8x1x1": (8, 1, 1), "2x2x2": (2, 2, 2)}
# Of the contrast-only task. With each of the seeds 0 to 4 all pairs find each
# other after so many.
TOY_UPDATES = 120


@pytest.fixture(scope="module", autouse=True)
def _quick(tmp_path_factory):
  with small_run.compiled_once(tmp_path_factory.mktemp("programs")):
    yield


def objective_classes() -> set[type]:
  """All classes of objectives in the package."""
  modules = [
    importlib.import_module(f"infoxlm_jax.objectives.{module.name}")
    for module in pkgutil.iter_modules(infoxlm_jax.objectives.__path__)
  ]
  return {
    member
    for module in modules
    for _, member in inspect.getmembers(module, inspect.isclass)
    if issubclass(member, Objective) and member not in (Objective, Labelled)
  }


def test_every_class_has_a_case():
  classes = objective_classes()
  assert len(classes) >= 4
  default = [case for case in CASES.values() if not case.slow]
  # Labelled examples are no records of languages: they have runs of their own.
  pretraining = {c for c in classes if not issubclass(c, Labelled)}
  for cases, wanted in ((default, classes), ([TOGETHER], pretraining)):
    trained = {type(o) for case in cases for o in case.objectives.values()}
    assert trained == wanted


def test_every_objective_of_a_case_has_a_loss_that_must_fall():
  for name, case in CASES.items():
    falling = {metric.partition("/")[0] for metric in case.falls}
    assert falling == set(case.objectives), name
    assert all(share <= 0.95 for share in case.falls.values()), name


@functools.cache
def _program(name, shape, microbatches):
  """The program that a run of this case would have, and its update."""
  case = TOGETHER if name == "together" else CASES[name]
  program = objective_cases.program(case, shape, microbatches)
  return case, program, program.train_step()


def _train(name, updates, shape=(1, 1, 1), microbatches=1):
  """Metrics of each update."""
  case, program, update = _program(name, shape, microbatches)
  place = partitioning.batch_sharding(program.mesh)
  state, rows = program.random_state(0), []
  for number in range(updates):
    batch = objective_cases.batch(case, number % case.period)
    state, metrics = update(state, jax.device_put(batch, place))
    rows.append({name: float(value) for name, value in metrics.items()})
  return rows


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=pytest.mark.slow if case.slow else ())
    for name, case in CASES.items()
  ],
)
def test_losses_fall(name):
  rows = _train(name, UPDATES)
  for metric, share in CASES[name].falls.items():
    losses = [row[metric] for row in rows]
    assert np.isfinite(losses).all()
    first, last = np.mean(losses[2:6]), np.mean(losses[-4:])
    assert 0 < first and last < share * first, (metric, last / first)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "mesh"),
  # All of pretraining's are in "together", those of fine-tuning are not.
  [("together", mesh) for mesh in MESHES]
  + [(name, "2x2x2") for name in CASES]
  + [(name, "8x1x1") for name in ("classification", "token_labelling")],
)
def test_losses_are_equal_on_every_mesh(name, mesh):
  """Two microbatches on each device of the mesh, one on the single device."""
  one = _train(name, 3)
  other = _train(name, 3, MESHES[mesh], microbatches=2)
  compared = [n for n in one[0] if n.endswith(("loss", "/terms"))]
  case = _program(name, (1, 1, 1), 1)[0]
  assert {f"{n}/{x}" for n in case.objectives for x in ("loss", "terms")} <= {
    *compared
  }
  for number, (mine, theirs) in enumerate(zip(one, other, strict=True)):
    for metric in compared:
      # Before the second update a contrast with a queue alone has no negative.
      assert theirs[metric] == pytest.approx(
        mine[metric], rel=3e-6, abs=1e-6
      ), (number, metric)


def _retrieval(program, params):
  """Shares of the invented pairs that find each other, at the contrast."""
  contrast = program.objectives["xlco"]
  pairs = invented_languages.STORE.pairs["en", "xx"]
  sentences = {
    language: [
      np.concatenate([[IDS.bos], pair[side], [IDS.eos]]) for pair in pairs
    ]
    for side, language in enumerate(("en", "xx"))
  }
  rows = dict.fromkeys(sentences, np.arange(RECORDS))
  embed = make_embed(program.model, program.mesh, row_length=20)
  scored = retrieval_eval.score(
    embed, params, retrieval_eval.Multiway(sentences, rows, 0)
  )
  found = scored.retrieval.at(contrast.layer, contrast.pooling)
  return found["en_to_xx"]["mean"], found["xx_to_en"]["mean"]


def _toy(translations):
  """Retrieval after the contrast-only run of the 64 pairs.

  Args:
    translations: whether items are pairs; if not, each query's key is that of
      the next item.
  """
  case, program, update = _program("contrast", (1, 1, 1), 1)
  place = partitioning.batch_sharding(program.mesh)
  state = program.random_state(0)
  for number in range(TOY_UPDATES):
    batch = objective_cases.batch(case, number)
    if not translations:
      key = batch["xlco"]["key"]
      batch["xlco"]["key"] = {k: np.roll(v, 1, axis=0) for k, v in key.items()}
    state, _ = update(state, jax.device_put(batch, place))
  return _retrieval(program, state.params)


def test_a_contrast_alone_solves_retrieval_of_64_pairs():
  """All pairs find each other, in both directions; see TOY_UPDATES."""
  assert RECORDS == 64
  assert _toy(translations=True) == (1.0, 1.0)


def test_control_retrieval_is_not_solved_without_training_or_translations():
  program = _program("contrast", (1, 1, 1), 1)[1]
  assert max(_retrieval(program, program.random_state(0).params)) < 0.5
  assert max(_toy(translations=False)) < 0.5
