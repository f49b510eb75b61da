"""Runs that start from given weights."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import small_corpus
import small_run
from weights_files import assert_same

from infoxlm_jax import initial, optimizer, schedules, train
from infoxlm_jax.errors import InputError
from infoxlm_jax.state import init_params
from infoxlm_jax.weights.load import load_weights, model_of


@pytest.fixture(scope="module", autouse=True)
def _compile_once(tmp_path_factory):
  with small_run.compiled_once(tmp_path_factory.mktemp("compiled")):
    yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
  return small_run.hugging_face(tmp_path_factory.mktemp("hf") / "model")


def options(folder, weights, **changes):
  return small_run.options(
    folder,
    model=model_of(weights, tokenizer=str(small_corpus.TOKENIZER)),
    init_from=str(weights),
    steps=2,
    **changes,
  )


def test_a_run_starts_from_weights(tmp_path, weights, capsys):
  chosen = options(tmp_path / "run", weights)
  rate = schedules.constant(0.0)
  untrained = chosen | {
    "learning_rate": rate,
    "optimizer": optimizer.adamw(rate),
    "momentum": schedules.constant(1.0),
  }
  train.pretrain(**untrained)
  printed = capsys.readouterr().out
  report = (tmp_path / "run" / "init_from.txt").read_text()
  assert report.strip() in printed
  assert "heads/contrast/projection" in report
  assert "not in the weights: random, from seed 0" in report
  identity = json.loads((tmp_path / "run" / "identity.json").read_text())
  assert identity["init_from"] == str(weights)
  # With a rate of 0 the checkpoint holds what the run began with.
  config, params, found = load_weights(tmp_path / "run")
  _, wanted, _ = load_weights(weights)
  projection = params["heads"].pop("contrast")["projection"]
  assert_same(params, wanted)
  random = init_params(jax.random.key(0), config, chosen["objectives"])
  np.testing.assert_allclose(
    projection, random["heads"]["contrast"]["projection"], atol=1e-8
  )
  kinds = {name.split("/")[0] for name in found.ignored}
  assert {"key_params", "opt_state", "queue"} <= kinds
  # The key encoder began as a copy.
  stored = json.loads(
    (tmp_path / "run/checkpoints/2/files/checksums.json").read_text()
  )["arrays"]
  assert (
    stored["key_params/embed/token"]["sum"]
    == stored["params/embed/token"]["sum"]
  )
  # Going on reads the weights no more.
  gone = untrained | {"init_from": str(weights), "steps": 3}
  away = weights.rename(weights.with_name("away"))
  try:
    train.pretrain(**gone)
  finally:
    away.rename(weights)
  assert (tmp_path / "run" / "checkpoints" / "3").is_dir()


def test_a_run_from_another_run_with_another_objective(tmp_path, weights):
  """Heads that no objective uses are left, and said."""
  chosen = options(tmp_path / "run", weights)
  mesh = chosen["mesh"]()
  only = {"xlco": chosen["objectives"]["xlco"]}
  params, report = initial.read_params(
    str(weights),
    allow_pickle=False,
    seed=0,
    model=chosen["model"],
    objectives=only,
    mesh=mesh,
  )
  assert list(params["heads"]) == ["contrast"]
  assert report.ignored["lm_head.bias"] == "a head that is not asked for"


@pytest.mark.parametrize(
  ("field", "value"),
  [("hidden_size", 32), ("num_layers", 3), ("vocab_size", 9)],
)
def test_another_model_is_told_with_both_values(
  tmp_path, weights, field, value
):
  chosen = options(tmp_path / "run", weights)
  right = getattr(chosen["model"], field)
  model = dataclasses.replace(chosen["model"], **{field: value})
  with pytest.raises(InputError) as refused:
    train.pretrain(**chosen | {"model": model})
  assert f"{field} is {value} in this configuration and {right} in" in str(
    refused.value
  )
  assert not (tmp_path / "run").exists()


def test_bad_weights_leave_no_run(tmp_path, weights):
  folder = Path(shutil.copytree(weights, tmp_path / "model"))
  file = folder / "model.safetensors"
  content = bytearray(file.read_bytes())
  content[-4:] = np.float32(np.nan).tobytes()
  file.write_bytes(bytes(content))
  with pytest.raises(InputError, match="holds NaN or infinity in 1 of"):
    train.pretrain(**options(tmp_path / "run", folder))
  assert not (tmp_path / "run").exists()
