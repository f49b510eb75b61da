"""Folders for other libraries: their tensors, cards, refusals."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import small_model
import yaml
from safetensors.numpy import load_file
from small_tokenizers import sentencepiece_files

from infoxlm_jax.checkpoint.exporters import (
  compare_torch,
  export,
  safetensors_writer,
  source,
)
from infoxlm_jax.checkpoint.exporters.hf_tensors import Tensor, model_class
from infoxlm_jax.checkpoint.exporters.model_card import About
from infoxlm_jax.checkpoint.importers.find_tokenizer import with_ids_of
from infoxlm_jax.checkpoint.importers.load import load_weights
from infoxlm_jax.data.tokenizers.base import tokenizer_from_files
from infoxlm_jax.errors import InputError
from infoxlm_jax.model.pooling import Reading

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


@pytest.fixture(scope="module")
def inexpressible():
  """A model whose SentencePiece no tokenizer.json expresses."""
  files = sentencepiece_files(model_type="char", vocab_size=200)
  tokenizer = tokenizer_from_files(files, "char.model")
  whole = small_model.source()
  config = with_ids_of(whole.config, tokenizer, "here")
  return dataclasses.replace(whole, tokenizer=tokenizer, config=config)


def test_weights_alone_where_the_tokenizer_cannot_be_written(
  tmp_path, inexpressible
):
  lines = export.export_transformers(
    inexpressible, tmp_path / "out", ABOUT, check=False
  )
  said = "char.model cannot be written for transformers .it is neither a uni"
  assert re.search(f"no tokenizer: The tokenizer {said}", "\n".join(lines))
  names = {path.name for path in (tmp_path / "out").iterdir()}
  assert names == {"model.safetensors", "config.json", "README.md"}
  assert re.search(said, (tmp_path / "out" / "README.md").read_text("utf-8"))
  stored = load_file(tmp_path / "out" / "model.safetensors")
  np.testing.assert_array_equal(
    stored["roberta.embeddings.word_embeddings.weight"],
    inexpressible.params["embed"]["token"][: inexpressible.config.vocab_size],
  )


def test_sentence_transformers_needs_a_tokenizer(tmp_path, inexpressible):
  with pytest.raises(InputError, match="cannot be written .*use --format hf"):
    export.export_sentence_transformers(
      inexpressible,
      tmp_path / "out",
      ABOUT,
      layer=1,
      pooling="mean",
      encode=None,
    )
  assert not list(tmp_path.iterdir())


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
    encode=None,
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


def test_vectors_to_compare_are_of_the_stored_weights(tmp_path, monkeypatch):
  """Rounded as they are stored, computed in float32 and at full precision."""
  compared = []
  monkeypatch.setattr(compare_torch, "available", lambda *packages: True)
  monkeypatch.setattr(
    compare_torch,
    "compare_model",
    lambda folder, source, name, dtype: compared.append((name, dtype)) or "A",
  )
  monkeypatch.setattr(
    compare_torch,
    "compare_vectors",
    lambda folder, vectors: compared.append(vectors) or "B",
  )

  def encode(source, texts, reading):
    assert jax.config.jax_default_matmul_precision == "highest"
    assert reading == Reading(pooling="first", normalize=True, prefix="query: ")
    assert source.config.dtype == "float32"
    assert source.config.num_layers == 2
    kernel = np.asarray(source.params["layers"]["ffn_in"]["kernel"])
    assert kernel.dtype == np.float32
    # bfloat16 is the upper half of a float32; rounding may change its end.
    bits = kernel.view(np.uint32)
    assert kernel.any() and not (bits & 0xFFFF).any()
    np.testing.assert_allclose(
      kernel, whole.params["layers"]["ffn_in"]["kernel"][:2], rtol=2**-8
    )
    return [len(text) for text in texts]

  whole = small_model.source(dtype="bfloat16")
  lines = export.export_sentence_transformers(
    whole,
    tmp_path / "out",
    ABOUT,
    layer=2,
    pooling="first",
    normalize=True,
    prefix="query: ",
    dtype="bfloat16",
    encode=encode,
  )
  lengths = [len(text) for text in compare_torch.SENTENCES]
  assert compared == [("XLMRobertaModel", "bfloat16"), lengths]
  assert lines[-2:] == ["A", "B"]
  assert jax.config.jax_default_matmul_precision is None
