"""Models are chosen by dev, by the paper's two rules; hand-worked."""

from typing import Any

import numpy as np
import pytest

from infoxlm_jax.data.labelled.examples import Examples, Ragged
from infoxlm_jax.finetuning import choice, published, report, tables
from infoxlm_jax.finetuning.task import EvalSet, Task
from infoxlm_jax.objectives.classification import Classification

SET = EvalSet(Examples(Ragged.of([[0, 2]]), np.zeros(1, np.int32)))


def task(dev=("en", "de"), test=("en", "de")) -> Task:
  return Task(
    name="classification",
    source="here",
    metric="accuracy",
    objective=Classification(),
    train={},
    dev=dict.fromkeys(dev, SET),
    test=dict.fromkeys(test, SET),
    score=lambda own, scores: {},
  )


def row(step: int, **values: float) -> dict[str, Any]:
  names = {k.replace("_", "/accuracy/"): v for k, v in values.items()}
  return {"step": step, "time": 1.0, **names}


ROWS = [
  row(0, dev_mean=0.99, dev_en=0.99, dev_de=0.99),  # before training
  {"step": 1, "time": 0.5, "train/loss": 1.0},
  row(
    10, dev_mean=0.5, dev_en=0.7, dev_de=0.3,
    test_mean=0.41, test_en=0.61, test_de=0.21,
  ),
  row(
    20, dev_mean=0.6, dev_en=0.6, dev_de=0.6,
    test_mean=0.42, test_en=0.52, test_de=0.32,
  ),
  row(30, dev_mean=0.55, dev_en=0.4, dev_de=0.7, test_de=0.9),
  row(
    40, dev_mean=0.6, dev_en=0.5, dev_de=0.7,
    test_mean=0.5, test_en=0.3, test_de=0.7,
  ),
]  # fmt: skip


def test_one_model_and_a_model_per_language():
  out = choice.chosen(ROWS, task())
  one, each = out[choice.ONE_MODEL], out[choice.MODEL_EACH]
  assert one["step"] == 40  # of 20 and 40, equal, the later
  assert one["test"]["accuracy"] == {"mean": 0.5, "en": 0.3, "de": 0.7}
  assert each["step"] == {"en": 10, "de": 40}
  accuracy = each["test"]["accuracy"]
  assert (accuracy["en"], accuracy["de"]) == (0.61, 0.7)
  assert accuracy["mean"] == pytest.approx((0.61 + 0.7) / 2)


def test_without_dev_of_a_language_there_is_one_model():
  out = choice.chosen(ROWS, task(dev=("en",)))
  assert set(out) == {choice.ONE_MODEL}


def test_nothing_is_chosen_before_training():
  assert choice.chosen(ROWS[:2], task()) == {}
  assert choice.best(ROWS[:3], "accuracy") == {
    "mean": (0.5, 10), "en": (0.7, 10), "de": (0.3, 10),
  }  # fmt: skip


def test_means_and_deviations_over_seeds():
  def results(value: float) -> dict[str, Any]:
    tables = {"accuracy": {"en": value, "mean": value}}
    one = {"step": 5, "dev": tables, "test": tables}
    return {
      "steps": 10,
      "seconds": 1.0,
      "classification": {choice.ONE_MODEL: one},
    }

  runs = {0: results(0.4), 1: results(0.5), 2: results(0.9)}
  out = report.summary(task(), 1e-5, {1e-5: runs[0], 2e-5: results(0.1)}, runs)
  main = out["classification"]
  assert main["test"]["accuracy"]["en"] == pytest.approx(0.6)
  # Deviations .2, .1, .3 from the mean: sqrt((.04 + .01 + .09) / 2).
  assert main["test_std"]["accuracy"]["mean"] == pytest.approx(0.07**0.5)
  assert out["dev_by_rate"] == {"1e-05": 0.4, "2e-05": 0.1}


def test_published_rows_average_as_printed():
  """Both rows of XLM without TLM have each other's average in the paper."""
  printed = {
    (row.setting, row.system, row.models): row.mean for row in published.XNLI
  }
  transfer = published.TRANSFER
  assert printed[transfer, "InfoXLM", "1"] == pytest.approx(76.5, abs=0.05)
  assert printed[transfer, "XLM (w/o TLM)*", "N"] == pytest.approx(
    70.7, abs=0.06
  )
  assert printed[transfer, "XLM (w/o TLM)*", "1"] == pytest.approx(
    71.3, abs=0.06
  )
  train = published.TRANSLATE_TRAIN
  assert printed[train, "InfoXLM", ""] == pytest.approx(80.0, abs=0.05)
  assert all(len(row.accuracy) == 15 for row in published.XNLI)


def test_gap_and_scripts():
  values = {"en": 0.8, "de": 0.6, "ru": 0.4, "bg": 0.2, "mean": 0.5}
  assert tables.gap(values, "en") == pytest.approx(0.4)
  assert tables.gap({"en": 0.8, "mean": 0.8}, "en") is None
  assert tables.by_script(values) == {
    "Latin": pytest.approx(0.7),
    "Cyrillic": pytest.approx(0.3),
  }
