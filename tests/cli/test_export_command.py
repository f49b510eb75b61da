"""The command infoxlm-export, and the encoder that it compares with."""

import json
import re

import jax
import numpy as np
import oracle
import pytest
import small_corpus
import small_model
import small_run

import infoxlm_jax
from infoxlm_jax.checkpoint.exporters import compare_torch, source
from infoxlm_jax.checkpoint.importers.load import load_weights
from infoxlm_jax.checkpoint.manager import Checkpoints
from infoxlm_jax.checkpoint.metadata import MODEL, describe_model
from infoxlm_jax.cli import export
from infoxlm_jax.cli.export import main
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.model import partitioning
from infoxlm_jax.model.pooling import Reading
from infoxlm_jax.objectives import contrast
from infoxlm_jax.training import state as train_state


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run's folder with a full checkpoint; (folder, its state)."""
  folder = tmp_path_factory.mktemp("run")
  options = small_run.options(folder)
  mesh = partitioning.make_mesh(options["parallelism"].mesh)
  model, objectives = options["model"], options["objectives"]
  batches = {"mlm": 4, "xlco": 8}
  recipe = train_state.Recipe(
    model, objectives, options["update"].optimizer, batches
  )
  state = train_state.init_sharded(recipe, 0, mesh)
  # A key encoder that differs from the encoder.
  own = state.objective_state["xlco"]
  own = own.replace(key_params=jax.tree.map(lambda x: x + 1, own.key_params))
  state = state.replace(objective_state={"xlco": own})
  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  files = {
    MODEL: describe_model(
      model, tokenizer, contrast=contrast.describe(objectives)
    ),
    **tokenizer.files,
  }
  identity = {"init_from": "/somewhere/xlm-roberta-base/"}
  (folder / "identity.json").write_text(json.dumps(identity))
  with Checkpoints(folder / "checkpoints") as checkpoints:
    checkpoints.save(state, files, wait=True)
  return folder, state


def test_query_encoder_of_a_run(run, tmp_path, capsys):
  folder, state = run
  argv = ["--checkpoint", str(folder), "--format", "hf", "--skip_comparison"]
  assert main([*argv, "--output", str(tmp_path / "out")]) == 0
  said = capsys.readouterr().out
  assert "XLMRobertaForMaskedLM" in said
  assert "left out: contrast" in said
  card = (tmp_path / "out" / "README.md").read_text()
  assert "| started from | xlm-roberta-base |" in card
  assert "somewhere" not in card
  _, params, _ = load_weights(tmp_path / "out")
  for part in ("layers", "heads"):
    ours = jax.device_get(state.params[part])
    ours.pop("contrast", None)
    jax.tree.map(np.testing.assert_array_equal, params[part], ours)


def test_key_encoder_of_a_run(run, tmp_path):
  folder, state = run
  argv = ["--checkpoint", str(folder), "--format", "hf", "--skip_comparison"]
  argv += ["--encoder", "key", "--output", str(tmp_path / "out")]
  assert main(argv) == 0
  config, params, _ = load_weights(tmp_path / "out")
  assert config.num_layers == 1
  assert params["heads"] == {}
  jax.tree.map(
    np.testing.assert_array_equal,
    params["layers"],
    jax.device_get(state.objective_state["xlco"].key_params["layers"]),
  )
  described = json.loads((tmp_path / "out" / "config.json").read_text())
  assert described["architectures"] == ["XLMRobertaModel"]


def _argv(**options):
  words = {
    "checkpoint": str(small_model.folder()),
    "format": "hf",
    "output": "out",
  } | options
  argv = ["--skip_comparison"]
  for name, value in words.items():
    argv += [f"--{name}", *([value] if value else [])]
  return argv


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"checkpoint": "absent"}, "absent: no such file or folder"),
    ({"output": "there"}, "there exists"),
    ({"encoder": "key"}, "only those have a key encoder"),
    ({"encoder": "value"}, "--encoder: invalid choice: 'value'"),
    ({"layer": "4"}, "layer 4: .* has 3 layers"),
    ({"layer": "two"}, "--layer: invalid int value: 'two'"),
    ({"format": "sentence-transformers", "layer": "0"}, "layer 0"),
    ({"format": "sentence-transformers", "pooling": "cls"}, "pooling 'cls'"),
    ({"normalize": ""}, "--normalize belongs to"),
    ({"prefix": "query: "}, "--prefix belongs to"),
    ({"keep_pieces_from": "absent.txt"}, "absent.txt"),
    ({"output": "there/file/out"}, "cannot be written"),
    ({"tokenizer": "there/file"}, "there/file"),
    (
      {
        "checkpoint": str(oracle.ORACLES / "xlmr_mlm"),
        "format": "sentence-transformers",
      },
      "holds no tokenizer",
    ),
    (
      {
        "checkpoint": str(oracle.ORACLES / "xlmr_mlm"),
        "keep_pieces_from": "there/file",
      },
      "holds no tokenizer",
    ),
  ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
  tmp_path, monkeypatch, refused, options, message
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "there").mkdir()
  (tmp_path / "there" / "file").write_text("text\n")
  assert re.search(message, refused(main, *_argv(**options)))
  assert [p.name for p in tmp_path.iterdir()] == ["there"]
  assert [p.name for p in (tmp_path / "there").iterdir()] == ["file"]


@pytest.mark.parametrize(
  "reading",
  [
    Reading(pooling="first"),
    Reading(layer=1, pooling="mean_all", prefix="query: ", normalize=True),
  ],
)
def test_vectors_to_compare_with_are_those_of_encode(reading):
  model = source.open_source(small_model.folder())
  texts = compare_torch.SENTENCES[:3]
  vectors = export.encode(model, texts, reading)
  prefixed = [reading.prefix + text for text in texts]
  states = infoxlm_jax.load(small_model.folder()).hidden_states(prefixed)
  layer = -1 if reading.layer is None else reading.layer
  tokens = [one[layer] for one in states]
  expected = np.stack(
    [one[0] if reading.pooling == "first" else one.mean(0) for one in tokens]
  )
  if reading.normalize:
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
  np.testing.assert_allclose(vectors, expected, atol=1e-6)


@pytest.fixture
def results(run):
  """Writes results.json into the run's folder."""
  file = run[0] / "results.json"
  yield file.write_text
  file.unlink()


def test_layer_and_pooling_are_those_that_the_run_chose(
  run, results, tmp_path, capsys
):
  folder, _ = run
  chosen = {"layer": 1, "pooling": "mean_all"}
  results(json.dumps({"seed": 7, "retrieval": {"dev": chosen}}))
  argv = ["--checkpoint", str(folder), "--format", "sentence-transformers"]
  argv += ["--skip_comparison", "--output", str(tmp_path / "out")]
  assert main(argv) == 0
  assert "layer 1, pooling mean_all" in capsys.readouterr().out
  assert load_weights(tmp_path / "out")[0].num_layers == 1
  card = (tmp_path / "out" / "README.md").read_text()
  assert "mean_all pooling after layer 1" in card
  assert "| seed | 7 |" in card


def test_broken_results_are_told(run, results, tmp_path, refused):
  folder, _ = run
  results("{")
  error = refused(
    *(main, "--checkpoint", folder, "--format", "hf"),
    *("--output", tmp_path / "out"),
  )
  assert "results.json is not JSON" in error
