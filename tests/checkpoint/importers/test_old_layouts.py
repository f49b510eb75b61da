"""Folders and config.json files of older releases."""

import json
import shutil

import numpy as np
import oracle
import pytest
import small_corpus
from weights_files import assert_same

from infoxlm_jax.checkpoint.importers.find_tokenizer import (
  find_tokenizer,
  imported_folder,
)
from infoxlm_jax.checkpoint.importers.hf_config import from_hugging_face
from infoxlm_jax.checkpoint.importers.load import load_weights, model_of
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError

KIND = "sentence_transformers.models"


def modules(*parts):
  return json.dumps(
    [
      {"idx": i, "name": str(i), "path": path, "type": f"{KIND}.{kind}"}
      for i, (path, kind) in enumerate(parts)
    ]
  )


@pytest.fixture
def old(tmp_path):
  """sentence-transformers of 2019: the encoder in a folder of its own."""
  folder = tmp_path / "model"
  shutil.copytree(oracle.ORACLES / "xlmr_mlm", folder / "0_Transformer")
  shutil.copy(
    small_corpus.TOKENIZER,
    folder / "0_Transformer" / "sentencepiece.bpe.model",
  )
  (folder / "modules.json").write_text(
    modules(
      ("0_Transformer", "Transformer"),
      ("1_Pooling", "Pooling"),
      ("2_Dense", "Dense"),
    )
  )
  return folder


def test_a_transformer_in_a_folder_of_its_own(old):
  config, params, report = load_weights(old)
  assert_same(params, load_weights(oracle.ORACLES / "xlmr_mlm")[1])
  assert config == model_of(old) == model_of(old / "0_Transformer")
  assert report.ignored == {
    "2_Dense": "a Dense of sentence-transformers after the encoder, not part"
    " of it"
  }
  wanted = load_tokenizer(small_corpus.TOKENIZER).sha256
  assert find_tokenizer(old).sha256 == wanted
  assert load_tokenizer(old).sha256 == wanted
  assert imported_folder(old) == old / "0_Transformer"
  # As it is today: at the top.
  for path in (old / "0_Transformer").iterdir():
    shutil.move(path, old)
  (old / "modules.json").write_text(modules(("", "Transformer")))
  assert_same(load_weights(old)[1], params)
  assert find_tokenizer(old).sha256 == wanted


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (modules(("0_Transformer", "CLIPModel")), r"no Transformer .CLIPModel"),
    (modules(("gone", "Transformer")), "the folder gone, which is not there"),
    (modules(("../out", "Transformer")), "modules.json"),
    ('{"0": 1}', "no list of modules"),
    ('[{"type": 1}]', "modules.json"),
  ],
)
def test_broken_modules(old, content, message):
  (old / "modules.json").write_text(content)
  with pytest.raises(InputError, match=message):
    load_weights(old)


@pytest.mark.parametrize(
  ("name", "left_out", "defaults"),
  [
    (
      "bert_mlm",
      ("type_vocab_size", "layer_norm_eps", "pad_token_id", "hidden_act"),
      {"type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_id": 0},
    ),
    (
      "xlmr_mlm",
      ("layer_norm_eps", "pad_token_id", "type_vocab_size"),
      {"type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_id": 1},
    ),
    (
      "xlm_lm",
      ("n_langs", "layer_norm_eps", "gelu_activation", "pad_token_id"),
      {
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-12,
        "activation": "gelu",
        "pad_id": 2,
      },
    ),
  ],
)
def test_defaults_of_transformers(name, left_out, defaults):
  raw = json.loads((oracle.ORACLES / name / "config.json").read_text())
  assert set(left_out) <= set(raw)
  short = {k: v for k, v in raw.items() if k not in left_out}
  found = from_hugging_face(short, "here")
  assert {k: getattr(found, k) for k in defaults} == defaults


def test_an_old_bert_is_the_same_model(tmp_path):
  """Its defaults are what its config.json says today."""
  raw = json.loads((oracle.ORACLES / "bert_mlm" / "config.json").read_text())
  for name in ("type_vocab_size", "layer_norm_eps", "pad_token_id"):
    del raw[name]
  (tmp_path / "config.json").write_text(json.dumps(raw))
  shutil.copy(oracle.ORACLES / "bert_mlm" / "model.safetensors", tmp_path)
  config, params, _ = load_weights(tmp_path)
  wanted, expected, _ = load_weights(oracle.ORACLES / "bert_mlm")
  assert config == wanted
  np.testing.assert_array_equal(
    params["embed"]["type"], expected["embed"]["type"]
  )


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "camembert", "xlm"])
def test_defaults_are_those_of_transformers(kind):
  import transformers

  theirs = transformers.AutoConfig.for_model(kind)
  sizes = {
    "xlm": ("n_layers", "emb_dim", "n_heads", "max_position_embeddings"),
  }.get(
    kind,
    (
      *("num_hidden_layers", "hidden_size", "num_attention_heads"),
      *("intermediate_size", "max_position_embeddings"),
    ),
  )
  said = {name: getattr(theirs, name) for name in ("vocab_size", *sizes)}
  ours = from_hugging_face({"model_type": kind, **said}, "here")
  assert ours.layer_norm_eps == theirs.layer_norm_eps
  assert ours.pad_id == theirs.pad_token_id
  if kind == "xlm":
    assert ours.type_vocab_size == theirs.n_langs - 1
    assert (ours.activation == "gelu") == theirs.gelu_activation
  else:
    assert ours.type_vocab_size == theirs.type_vocab_size
    assert ours.activation == theirs.hidden_act
