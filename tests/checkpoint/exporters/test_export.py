"""Folders for other libraries: their tensors, cards, trimming, refusals."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import small_corpus
import small_model
import small_run
import yaml
from safetensors.numpy import load_file

import infoxlm_jax
from infoxlm_jax.checkpoint.exporters import (
  export,
  safetensors_writer,
  source,
  trim_vocabulary,
)
from infoxlm_jax.checkpoint.exporters.hf_tensors import Tensor, model_class
from infoxlm_jax.checkpoint.exporters.model_card import About
from infoxlm_jax.checkpoint.importers.load import load_weights
from infoxlm_jax.checkpoint.manager import Checkpoints
from infoxlm_jax.checkpoint.metadata import MODEL, describe_model
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.training import state as train_state
from tools import export as tool

MODELS = (
  "xlmr_mlm",
  "xlmr_cls",
  "xlmr_qa",
  "xlmr_tok",
  "bert_mlm",
  "bert_pretraining",
  "xlm_lm",
)
ABOUT = About("test")


@pytest.mark.parametrize("name", MODELS)
def test_import_then_export_is_the_same_file(tmp_path, name):
  """Every tensor bit by bit, and nothing else; config.json says the same."""
  original = oracle.ORACLES / name
  output = tmp_path / "out"
  found = source.open_source(original)
  export.export_transformers(found, output, ABOUT, check=False)
  theirs = load_file(original / "model.safetensors")
  ours = load_file(output / "model.safetensors")
  assert sorted(ours) == sorted(theirs)
  for key, value in theirs.items():
    assert ours[key].dtype == value.dtype
    np.testing.assert_array_equal(ours[key], value, err_msg=key)
  wanted = json.loads((original / "config.json").read_text())
  written = json.loads((output / "config.json").read_text())
  described = set(written) & set(wanted) - {
    # What fine-tuning will use; ids that the oracle has no tokenizer for.
    *("attention_dropout", "attention_probs_dropout_prob"),
    *("dropout", "hidden_dropout_prob"),
    *("bos_token_id", "eos_token_id"),
  }
  for key in described:
    assert written[key] == wanted[key], key
  assert {"architectures", "model_type", "vocab_size"} <= described
  again, params, _ = load_weights(output)
  assert again == load_weights(original)[0]
  jax.tree.map(np.testing.assert_array_equal, params, dict(found.params))


def test_a_model_without_type_embedding_gets_a_row_of_zeros(tmp_path):
  export.export_transformers(
    small_model.source(), tmp_path / "out", ABOUT, check=False
  )
  tensors = load_file(tmp_path / "out" / "model.safetensors")
  types = tensors["roberta.embeddings.token_type_embeddings.weight"]
  assert types.shape == (1, 32)
  assert not types.any()


def test_positions_begin_after_the_padding_id():
  """A model from scratch whose tokenizer pads with another id than 1."""
  config, params = oracle.model("xlmr_mlm")
  other = dataclasses.replace(config, pad_id=4)
  moved, new = source._with_their_positions(other, params)
  assert moved.position_offset == 5
  table = params["embed"]["position"]
  np.testing.assert_array_equal(new["embed"]["position"][5:], table[2:])
  assert len(new["embed"]["position"]) == config.max_positions + 5
  assert source._with_their_positions(config, params) == (config, params)


@pytest.mark.parametrize(
  ("architecture", "heads", "name", "kept"),
  [
    ("xlm-roberta", ["masked_lm", "contrast"], "ForMaskedLM", ["masked_lm"]),
    ("xlm-roberta", ["contrast"], "XLMRobertaModel", []),
    (
      "xlm-roberta",
      ["masked_lm", "classification"],
      "ForSequenceClassification",
      ["classification"],
    ),
    ("bert", ["masked_lm", "pooler"], "BertForMaskedLM", ["masked_lm"]),
    ("bert", ["pooler"], "BertModel", ["pooler"]),
    ("xlm", [], "XLMModel", []),
  ],
)
def test_class_of_a_model(architecture, heads, name, kept):
  config = dataclasses.replace(small_model.CONFIG, architecture=architecture)
  found, held = model_class(config, dict.fromkeys(heads))
  assert found.endswith(name)
  assert held == kept


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_the_nearest_number(tmp_path, dtype):
  found = small_model.source()
  export.export_transformers(
    found, tmp_path / "out", ABOUT, dtype=dtype, check=False
  )
  config = json.loads((tmp_path / "out" / "config.json").read_text())
  assert config["dtype"] == dtype
  _, params, _ = load_weights(tmp_path / "out")
  ours = found.params["layers"]["ffn_in"]["kernel"]
  expected = jnp.asarray(ours).astype(dtype).astype(jnp.float32)
  np.testing.assert_array_equal(params["layers"]["ffn_in"]["kernel"], expected)


@pytest.mark.parametrize(
  ("value", "dtype"), [(np.nan, "float32"), (1e6, "float16")]
)
def test_numbers_that_cannot_be_stored_leave_nothing(tmp_path, value, dtype):
  found = small_model.source()
  found.params["embed"]["norm"]["bias"][3] = value
  with pytest.raises(InputError, match="LayerNorm.bias holds values"):
    export.export_transformers(
      found, tmp_path / "out", ABOUT, dtype=dtype, check=False
    )
  assert not list(tmp_path.iterdir())


def test_writer_writes_what_the_library_reads(tmp_path):
  values = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "empty": np.zeros((0, 4), np.float32),
    "scalar": np.float32(2.5),
  }
  tensors = [
    Tensor(name, np.shape(x), lambda x=x: np.asarray(x))
    for name, x in values.items()
  ]
  size = safetensors_writer.write(
    tmp_path / "x.safetensors", tensors, "float32"
  )
  assert size == 28
  found = load_file(tmp_path / "x.safetensors")
  assert sorted(found) == sorted(values)
  for name, value in values.items():
    np.testing.assert_array_equal(found[name], value)


def _head(card: str) -> dict:
  _, head, _ = card.split("---\n", 2)
  return yaml.safe_load(head)


def test_card_states_what_is_known(tmp_path):
  results = {
    "steps": 1200,
    "tokens": 5_000_000,
    "seconds": 421.0,
    "retrieval": {
      "test": {
        "en_to_xx": {"mean": 0.806, "by_language": {"fr": 0.83, "no": 0.78}},
        "xx_to_en": {"mean": 0.803, "by_language": {"fr": 0.83, "no": 0.77}},
        "layer": 1,
        "pooling": "mean",
        "sentences": {"fr": 1006, "no": 1006},
      }
    },
  }
  found = dataclasses.replace(small_model.source(), results=results)
  about = About("A: name", (), "mit", "FacebookAI/xlm-roberta-base")
  export.export_transformers(found, tmp_path / "out", about, check=False)
  card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
  head = _head(card)
  # "no" is Norwegian, not false.
  assert head["language"] == ["en", "fr", "no"]
  assert head["license"] == "mit"
  assert head["base_model"] == "FacebookAI/xlm-roberta-base"
  assert head["library_name"] == "transformers"
  assert head["pipeline_tag"] == "fill-mask"
  assert head["metrics"] == ["accuracy"]
  (result,) = head["model-index"][0]["results"]
  assert [m["value"] for m in result["metrics"]] == [0.806, 0.803]
  assert "| en to xx | 80.6 | 83.0 | 78.0 |" in card
  assert "| tokens seen | 5,000,000 |" in card
  assert 'XLMRobertaForMaskedLM.from_pretrained("out")' in card
  assert "infoxlm" in card


def test_card_of_a_model_of_which_nothing_is_known(tmp_path):
  export.export_transformers(
    small_model.source(), tmp_path / "out", ABOUT, check=False
  )
  head = _head((tmp_path / "out" / "README.md").read_text())
  assert set(head) == {"library_name", "pipeline_tag", "tags"}


def _texts(language):
  return [row[language] for row in small_corpus.table() if row[language]]


def test_a_trimmed_model_gives_the_same_vectors_on_its_corpus(tmp_path):
  corpus = tmp_path / "corpus.txt"
  texts = [*_texts("en"), *_texts("ja"), "unknown: \u1401"]
  corpus.write_text("\n".join(texts), encoding="utf-8")
  whole = small_model.source()
  trimmed, saved = trim_vocabulary.trim_vocabulary(whole, [corpus], "query: ")
  assert saved.before == 8010
  assert trimmed.config.vocab_size == saved.after < 3000
  # A row of the table and of the output bias for every id.
  assert saved.bytes == 4 * 33 * (saved.before - saved.after)
  outputs = []
  for name, one in (("whole", whole), ("trimmed", trimmed)):
    export.export_transformers(one, tmp_path / name, ABOUT, check=False)
    outputs.append(infoxlm_jax.load(tmp_path / name, devices=1))
  before, after = outputs
  for text in (*texts, "query: " + texts[0]):
    assert after.pieces(text) == before.pieces(text)
  for prefix in ("", "query: "):
    np.testing.assert_allclose(
      after.encode(texts, prefix=prefix),
      before.encode(texts, prefix=prefix),
      atol=1e-6,
    )
  assert "was cut to" in (tmp_path / "trimmed" / "README.md").read_text()
  sizes = [
    (tmp_path / name / "model.safetensors").stat().st_size
    for name in ("whole", "trimmed")
  ]
  assert sizes[0] - sizes[1] == pytest.approx(saved.bytes, abs=1000)


def test_cells_of_a_table_are_texts_of_their_own(tmp_path):
  table = tmp_path / "corpus.tsv"
  table.write_text("en\tde\nGod\tGott\n")
  plain = tmp_path / "corpus.txt"
  plain.write_text("a\tb\n")
  assert list(trim_vocabulary.texts_of([table, plain], "q: ")) == [
    text
    for cell in ("en", "de", "God", "Gott", "a\tb")
    for text in (cell, "q: " + cell)
  ]


def test_sentence_transformers_folder_is_the_cut_encoder(tmp_path):
  whole = small_model.source()
  export.export_sentence_transformers(
    whole,
    tmp_path / "out",
    ABOUT,
    layer=2,
    pooling="mean",
    normalize=True,
    prefix="query: ",
    check=False,
  )
  folder = tmp_path / "out"
  config, params, _ = load_weights(folder)
  assert config.num_layers == 2
  assert params["heads"] == {}
  jax.tree.map(
    lambda ours, theirs: np.testing.assert_array_equal(ours, theirs[:2]),
    params["layers"],
    whole.params["layers"],
  )
  modules = json.loads((folder / "modules.json").read_text())
  kinds = [module["type"].rpartition(".")[2] for module in modules]
  assert kinds == ["Transformer", "WordWeights", "Pooling", "Normalize"]
  for module in modules[1:]:
    assert (folder / module["path"] / "config.json").is_file()
  weights = json.loads((folder / "1_WordWeights" / "config.json").read_text())
  assert len(weights["vocab"]) == config.vocab_size
  zero = [k for k, v in weights["word_weights"].items() if v == 0]
  assert sorted(zero) == ["</s>", "<pad>", "<s>"]
  options = json.loads(
    (folder / "config_sentence_transformers.json").read_text()
  )
  assert options["prompts"] == {"default": "query: "}
  assert _head((folder / "README.md").read_text())["library_name"] == (
    "sentence-transformers"
  )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run's folder with a full checkpoint; (folder, its state)."""
  folder = tmp_path_factory.mktemp("run")
  options = small_run.options(folder)
  mesh = options["parallelism"].mesh()
  model, objectives = options["model"], options["objectives"]
  state = train_state.init_sharded(
    0, model, objectives, options["update"].optimizer, 8, mesh
  )
  # A key encoder that differs from the encoder.
  state = state.replace(
    key_params=jax.tree.map(lambda x: x + 1, state.key_params)
  )
  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  files = {
    MODEL: describe_model(model, tokenizer, objectives["xlco"]),
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
  assert tool.main([*argv, "--output", str(tmp_path / "out")]) == 0
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
  assert tool.main(argv) == 0
  config, params, _ = load_weights(tmp_path / "out")
  assert config.num_layers == 1
  assert params["heads"] == {}
  jax.tree.map(
    np.testing.assert_array_equal,
    params["layers"],
    jax.device_get(state.key_params["layers"]),
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
    ({"layer": "4"}, "layer 4: .* has 3 layers"),
    ({"format": "sentence-transformers", "layer": "0"}, "layer 0"),
    ({"format": "sentence-transformers", "pooling": "cls"}, "pooling 'cls'"),
    ({"normalize": ""}, "--normalize belongs to"),
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
def test_tool_refuses_bad_input_and_leaves_nothing(
  tmp_path, monkeypatch, capsys, options, message
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "there").mkdir()
  (tmp_path / "there" / "file").write_text("text\n")
  assert tool.main(_argv(**options)) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ")
  assert error.count("\n") == 1
  assert re.search(message, error)
  assert [p.name for p in tmp_path.iterdir()] == ["there"]
  assert [p.name for p in (tmp_path / "there").iterdir()] == ["file"]
