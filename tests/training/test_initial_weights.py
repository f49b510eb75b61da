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
from safetensors.numpy import load_file, save_file
from sentencepiece import sentencepiece_model_pb2
from weights_files import assert_same

from infoxlm_jax import gin_utils
from infoxlm_jax.analysis.plan import plan
from infoxlm_jax.checkpoint.importers.load import load_weights, model_of
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.model import partitioning
from infoxlm_jax.training import initial_weights, optimizer, pretrain, schedules
from infoxlm_jax.training import state as train_state


@pytest.fixture(scope="module", autouse=True)
def _compile_once(tmp_path_factory):
  with small_run.compiled_once(tmp_path_factory.mktemp("compiled")):
    yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
  return small_run.hugging_face(tmp_path_factory.mktemp("hf") / "model")


def options(folder, weights, **changes):
  given = {
    "model": model_of(weights, tokenizer=str(small_corpus.TOKENIZER)),
    "init_from": str(weights),
    "steps": 2,
  }
  return small_run.options(folder, **given | changes)


def test_a_run_starts_from_weights(tmp_path, weights, capsys):
  rate = schedules.constant(0.0)
  chosen = options(
    tmp_path / "run",
    weights,
    learning_rate=rate,
    optimizer=optimizer.adamw(rate),
    steps=1,
  )
  del chosen["objectives"]["xlco"]
  pretrain.pretrain(**chosen)
  report = (tmp_path / "run" / "init_from.txt").read_text()
  assert report.strip() in capsys.readouterr().out
  assert "initialised  nothing" in report
  identity = json.loads((tmp_path / "run" / "identity.json").read_text())
  assert identity["init_from"] == str(weights)
  # With a rate of 0 the checkpoint holds what the run began with.
  _, params, report_of_run = load_weights(tmp_path / "run")
  assert_same(params, load_weights(weights)[1])
  assert "of the run, not of the model" in report_of_run.ignored.values()
  # Going on reads the weights no more.
  away = weights.rename(weights.with_name("away"))
  try:
    pretrain.pretrain(**small_run.changed(chosen, steps=2))
  finally:
    away.rename(weights)
  assert_same(load_weights(tmp_path / "run" / "checkpoints")[1], params)
  assert (tmp_path / "run" / "checkpoints" / "2").is_dir()
  sha256 = load_tokenizer(small_corpus.TOKENIZER).sha256
  assert load_tokenizer(tmp_path / "run").sha256 == sha256


def first_state(weights, objectives, mesh):
  model = model_of(weights, tokenizer=str(small_corpus.TOKENIZER))
  rate = optimizer.adamw(schedules.constant(1e-4))
  params, report = initial_weights.read_params(
    str(weights),
    allow_pickle=False,
    seed=0,
    model=model,
    objectives=objectives,
    mesh=mesh,
  )
  batches = {"mlm": 4, "tlm": 4, "xlco": 8}
  recipe = train_state.Recipe(model, objectives, rate, batches)
  abstract = train_state.abstract(recipe, mesh)
  state = initial_weights.state_of(params, 0, recipe, abstract)
  random = train_state.init_sharded(recipe, 0, mesh)
  return state, random, report


def test_the_first_state(tmp_path, weights):
  """Encoder from the weights, projection random, key encoder a copy."""
  objectives = small_run.options(tmp_path)["objectives"]
  mesh = partitioning.make_mesh(partitioning.MeshShape(data=4, fsdp=2))
  state, random, report = first_state(weights, objectives, mesh)
  assert list(report.initialised) == ["heads/contrast/projection"]
  assert "not in the weights: random, from seed 0" in str(report)
  params = dict(state.params) | {"heads": dict(state.params["heads"])}
  projection = params["heads"].pop("contrast")["projection"]
  assert_same(params, load_weights(weights)[1])
  drawn = random.params["heads"]["contrast"]["projection"]
  np.testing.assert_allclose(projection, drawn, atol=1e-8)
  assert_same(
    state.objective_state["xlco"].key_params,
    objectives["xlco"].key_params(state.params),
  )
  # All but the values is as in a run from random numbers.
  assert jax.tree.map(describe, state) == jax.tree.map(describe, random)
  assert_same(state.opt_state, random.opt_state)


def test_a_missing_head_is_initialised_and_told(tmp_path, weights):
  """Weights of a bare encoder; the head is that of a run from nothing."""
  bare = Path(shutil.copytree(weights, tmp_path / "bare"))
  tensors = load_file(bare / "model.safetensors")
  encoder = {k: v for k, v in tensors.items() if "lm_head" not in k}
  assert len(encoder) == len(tensors) - 5
  save_file(encoder, bare / "model.safetensors")
  mlm = small_run.options(tmp_path)["objectives"]["mlm"]
  state, random, report = first_state(
    bare, {"mlm": mlm}, small_run.one_device()
  )
  assert sorted(report.initialised) == [
    f"heads/masked_lm/{name}"
    for name in (
      *("bias", "dense/bias", "dense/kernel"),
      *("norm/bias", "norm/scale"),
    )
  ]
  assert "initialised  5" in str(report)
  assert_same(state.params["heads"], random.params["heads"])
  assert_same(state.params["layers"], load_weights(weights)[1]["layers"])


def describe(x):
  return x.shape, x.dtype, x.sharding


def test_heads_that_no_objective_uses(tmp_path, weights):
  xlco = small_run.options(tmp_path)["objectives"]["xlco"]
  mesh = small_run.one_device()
  state, _, report = first_state(weights, {"xlco": xlco}, mesh)
  assert list(state.params["heads"]) == ["contrast"]
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
    pretrain.pretrain(**chosen | {"model": model})
  assert f"{field} is {value} in this configuration and {right} in" in str(
    refused.value
  )
  assert not (tmp_path / "run").exists()


def test_a_tokenizer_of_the_same_size_but_other_pieces(tmp_path, weights):
  """Else the run would learn fluent nonsense."""
  folder = Path(shutil.copytree(weights, tmp_path / "model"))
  stored = next(p for p in folder.iterdir() if p.suffix == ".model")
  proto = sentencepiece_model_pb2.ModelProto.FromString(stored.read_bytes())
  a, b = proto.pieces[99].piece, proto.pieces[100].piece
  proto.pieces[99].piece, proto.pieces[100].piece = b, a
  stored.write_bytes(proto.SerializeToString())
  with pytest.raises(InputError) as refused:
    pretrain.pretrain(**options(tmp_path / "run", folder))
  assert f"id 100 is {b!r}, in the data's" in str(refused.value)
  assert f"it is {a!r}: they do not belong together" in str(refused.value)
  # Another file of the same pieces is the same vocabulary.
  proto = sentencepiece_model_pb2.ModelProto.FromString(
    small_corpus.TOKENIZER.read_bytes()
  )
  proto.pieces[99].score -= 0.5
  stored.write_bytes(proto.SerializeToString())
  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  assert load_tokenizer(folder).sha256 != tokenizer.sha256
  initial_weights.check_tokenizer(str(folder), tokenizer)


def test_bad_weights_leave_no_run(tmp_path, weights):
  folder = Path(shutil.copytree(weights, tmp_path / "model"))
  file = folder / "model.safetensors"
  content = bytearray(file.read_bytes())
  content[-4:] = np.float32(np.nan).tobytes()
  file.write_bytes(bytes(content))
  with pytest.raises(InputError, match="holds NaN or infinity in 1 of"):
    pretrain.pretrain(**options(tmp_path / "run", folder))
  assert not (tmp_path / "run").exists()


def test_the_gin_part(tmp_path, weights, capsys):
  """The quickstart's data and objectives on the weights' own model."""
  file = tmp_path / "run.gin"
  file.write_text(
    "from __gin__ import dynamic_registration\n"
    "from infoxlm_jax.data import streams\n"
    "include 'gin/quickstart.gin'\n"
    "include 'gin/models/of_weights.gin'\n"
    f"TOKENIZER = '{small_corpus.TOKENIZER}'\n"
    f"ROW_LENGTH = {small_run.LENGTH}\n"
    f"tlm/streams.PairStream.row_length = {small_run.LENGTH}\n"
  )
  config = gin_utils.load(
    [str(file)],
    [
      f"--gin.MODEL_DIR={tmp_path / 'run'}",
      f"--gin.INIT_FROM={weights}",
      "--gin.load.model_of.dropout=0.125",
    ],
  )
  plan(config.arguments())
  assert "dropout" not in capsys.readouterr().err
  assert "load.model_of.dropout = 0.125" in config.text
  assert "pretrain.pretrain.model = @load.model_of()" in config.text
  assert not (tmp_path / "run").exists()
  config = gin_utils.load([str(file)], ["--gin.INIT_FROM=/absent/model"])
  with pytest.raises(InputError, match="no such file or folder"):
    plan(config.arguments())
