"""Files that store one of two tied names, and names inside wrappers."""

import json

import numpy as np
import oracle
import pytest
import weights_files
from safetensors.numpy import save_file
from weights_files import assert_same, tensors_of

from infoxlm_jax.checkpoint.importers.load import load_weights
from infoxlm_jax.errors import InputError

# (the table, the output matrix, the output bias, its second name)
TIED = {
  "xlmr_mlm": (
    "roberta.embeddings.word_embeddings.weight",
    "lm_head.decoder.weight",
    "lm_head.bias",
    "lm_head.decoder.bias",
  ),
  "bert_mlm": (
    "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.weight",
    "cls.predictions.bias",
    "cls.predictions.decoder.bias",
  ),
  "xlm_lm": (
    "transformer.embeddings.weight",
    "pred_layer.proj.weight",
    "pred_layer.proj.bias",
    "pred_layer.proj.bias",
  ),
}


@pytest.fixture(scope="module")
def wanted():
  return {name: load_weights(oracle.ORACLES / name)[1] for name in TIED}


def kept_by_the_second_name(name):
  """As safetensors.torch.save_model and Accelerate may choose."""
  table, matrix, bias, second = TIED[name]
  tensors = tensors_of(name)
  tensors[matrix] = tensors.pop(table)
  tensors[second] = tensors.pop(bias)
  return tensors


@pytest.mark.parametrize("name", TIED)
def test_either_name_of_a_tie(tmp_path, wanted, name):
  tensors = kept_by_the_second_name(name)
  weights_files.write(tmp_path, tensors, like=name)
  _, params, report = load_weights(tmp_path)
  assert_same(params, wanted[name])
  assert not report.ignored
  assert {n for e in report.loaded for n in e.tensors} == set(tensors)


def test_an_index_lists_both_names(tmp_path, wanted):
  """transformers lists them, and the shards hold one."""
  table, matrix, bias, second = TIED["xlmr_mlm"]
  tensors = kept_by_the_second_name("xlmr_mlm")
  weights_files.write_config(tmp_path)
  names = sorted(tensors)
  places = {}
  for part, members in (("a", names[::2]), ("b", names[1::2])):
    save_file(
      {n: tensors[n] for n in members}, tmp_path / f"{part}.safetensors"
    )
    places |= dict.fromkeys(members, f"{part}.safetensors")
  places |= {table: "a.safetensors", bias: "b.safetensors"}
  index = tmp_path / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": places}))
  assert_same(load_weights(tmp_path)[1], wanted["xlmr_mlm"])
  # Any other name that is listed must be there.
  places["roberta.encoder.layer.9.output.dense.bias"] = "a.safetensors"
  index.write_text(json.dumps({"weight_map": places}))
  with pytest.raises(InputError, match=r"holds the tensor .*layer\.9"):
    load_weights(tmp_path)


def test_a_file_names_its_aliases(tmp_path, wanted):
  """safetensors.torch.save_model: {the name left out: the name kept}."""
  table, matrix, _, _ = TIED["xlmr_mlm"]
  tensors = tensors_of("xlmr_mlm")
  tensors[matrix] = tensors.pop(table)
  pooler = np.ones((32, 32), np.float32)
  tensors |= {"other": pooler, "roberta.pooler.dense.bias": pooler[0]}
  weights_files.write_config(tmp_path, tie_word_embeddings=False)
  alias = {table: matrix, "roberta.pooler.dense.weight": "other"}
  save_file(
    tensors, tmp_path / "model.safetensors", metadata={"format": "pt"} | alias
  )
  _, params, _ = load_weights(tmp_path)
  table = wanted["xlmr_mlm"]["embed"]["token"]
  np.testing.assert_array_equal(params["embed"]["token"], table)
  np.testing.assert_array_equal(params["heads"]["masked_lm"]["decoder"], table)
  np.testing.assert_array_equal(params["heads"]["pooler"]["kernel"], pooler.T)


def test_without_a_tie_the_table_is_missing(tmp_path):
  tensors = kept_by_the_second_name("xlmr_mlm")
  weights_files.write(tmp_path, tensors, tie_word_embeddings=False)
  with pytest.raises(InputError, match="word_embeddings.weight is missing"):
    load_weights(tmp_path)


@pytest.mark.parametrize(
  "rename",
  [
    lambda name: f"module.module.{name}",
    lambda name: f"_orig_mod.module.{name}",
    lambda name: f"module._fsdp_wrapped_module.{name}".replace(
      "encoder.layer.0.", "encoder.layer.0._fsdp_wrapped_module."
    ),
    lambda name: name.replace(
      "layer.1.", "layer.1._checkpoint_wrapped_module."
    ),
    lambda name: f"_forward_module.model.{name}",
    lambda name: f"0.auto_model.{name.removeprefix('roberta.')}",
  ],
)
def test_wrappers(tmp_path, wanted, rename):
  found = {rename(k): v for k, v in tensors_of("xlmr_mlm").items()}
  weights_files.write(tmp_path, found)
  _, params, report = load_weights(tmp_path)
  assert_same(params["embed"], wanted["xlmr_mlm"]["embed"])
  assert_same(params["layers"], wanted["xlmr_mlm"]["layers"])
  assert {n for e in report.loaded for n in e.tensors} == set(found)


def test_an_unknown_tensor_of_the_encoder_is_refused_in_a_wrapper(tmp_path):
  found = {f"module.{k}": v for k, v in tensors_of("xlmr_mlm").items()}
  adapter = "module.roberta.encoder.layer.0.adapter.weight"
  found[adapter] = np.ones((2, 2), np.float32)
  weights_files.write(tmp_path, found)
  with pytest.raises(InputError, match=f"not part of this .*{adapter}"):
    load_weights(tmp_path)
