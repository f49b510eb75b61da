"""The same weights from every kind of file are the same, bit for bit."""

import json

import jax
import ml_dtypes
import numpy as np
import oracle
import pytest
import weights_files
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from weights_files import assert_same, tensors_of

from infoxlm_jax.checkpoint.importers import (
  lazy_tensor,
  load,
  safetensors_files,
)
from infoxlm_jax.checkpoint.importers.load import load_weights, model_of
from infoxlm_jax.errors import InputError
from infoxlm_jax.model import partitioning
from infoxlm_jax.model.config import EncoderConfig

QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.fixture(scope="module")
def wanted():
  return load_weights(oracle.ORACLES / "xlmr_mlm")[1]


def write_shards(folder, found, name="model"):
  """Two safetensors files and their index, split in the middle of a layer."""
  names = sorted(found)
  halves = {"1-of-2": names[::2], "2-of-2": names[1::2]}
  places = {}
  for part, members in halves.items():
    file = f"{name}-{part}.safetensors"
    save_file({k: found[k] for k in members}, folder / file)
    places |= dict.fromkeys(members, file)
  index = folder / f"{name}.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": places}))
  return index


def test_sharded_equals_single(tmp_path, wanted):
  weights_files.write_config(tmp_path)
  index = write_shards(tmp_path, tensors_of("xlmr_mlm"))
  for path in (tmp_path, index):
    assert_same(load_weights(path)[1], wanted)


@pytest.mark.parametrize("name", ["xlmr_mlm", "bert_pretraining", "xlm_lm"])
def test_a_mesh_holds_what_one_device_holds(name):
  found = load_weights(oracle.ORACLES / name)[1]
  mesh = partitioning.make_mesh(partitioning.MeshShape(data=4, fsdp=2))
  laid_out = load_weights(oracle.ORACLES / name, mesh=mesh)[1]
  assert_same(laid_out, found)
  rules = partitioning.shardings({"params": laid_out}, mesh)["params"]
  places = jax.tree.map(lambda x: x.sharding, laid_out)
  assert places == rules
  assert "fsdp" in places["embed"]["token"].spec
  assert "fsdp" in places["layers"]["qkv"]["kernel"].spec


@pytest.mark.parametrize(
  "rename",
  [
    lambda name: name.removeprefix("roberta."),  # a bare encoder
    lambda name: "model." + name,
    lambda name: "module." + name.removeprefix("roberta."),
    lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
      "LayerNorm.bias", "LayerNorm.beta"
    ),
  ],
)
def test_prefixes_and_old_names(tmp_path, wanted, rename):
  found = {rename(k): v for k, v in tensors_of("xlmr_mlm").items()}
  weights_files.write(tmp_path, found)
  _, params, report = load_weights(tmp_path)
  assert_same(params, wanted)
  # The report has the file's own names.
  assert {n for e in report.loaded for n in e.tensors} == set(found)
  assert not report.ignored


def test_bare_bert_and_xlm(tmp_path):
  for name, prefix in (("bert_mlm", "bert."), ("xlm_lm", "transformer.")):
    found = tensors_of(name)
    bare = {k.removeprefix(prefix): v for k, v in found.items()}
    weights_files.write(tmp_path / name, bare, like=name)
    assert_same(
      load_weights(tmp_path / name)[1], load_weights(oracle.ORACLES / name)[1]
    )


def test_copies_and_counters_are_ignored_with_a_reason(tmp_path, wanted):
  found = tensors_of("xlmr_mlm")
  table = found["roberta.embeddings.word_embeddings.weight"]
  found |= {
    "lm_head.decoder.weight": table,
    "lm_head.decoder.bias": found["lm_head.bias"],
    "roberta.embeddings.position_ids": np.arange(40)[None],
    "my_head.weight": np.ones((2, 32), np.float32),
  }
  weights_files.write(tmp_path, found)
  _, params, report = load_weights(tmp_path)
  assert_same(params, wanted)
  assert report.ignored == {
    "lm_head.decoder.weight": "the same as"
    " roberta.embeddings.word_embeddings.weight",
    "lm_head.decoder.bias": "the same as lm_head.bias",
    "roberta.embeddings.position_ids": "row numbers, which are computed",
    "my_head.weight": "of a head that is not known here",
  }
  assert "my_head.weight" in str(report)
  # The tie is config.json's; that the file says otherwise is told.
  found["lm_head.decoder.weight"] = table + 1
  weights_files.write(tmp_path, found)
  why = load_weights(tmp_path)[2].ignored["lm_head.decoder.weight"]
  assert "although its values differ" in why


@pytest.mark.parametrize("name", ["xlmr_mlm", "bert_mlm", "xlm_lm"])
def test_untied_head(tmp_path, name):
  found = tensors_of(name)
  decoder = {
    "xlmr_mlm": "lm_head.decoder.weight",
    "bert_mlm": "cls.predictions.decoder.weight",
    "xlm_lm": "pred_layer.proj.weight",
  }[name]
  own = np.random.default_rng(0).normal(size=(101, 32)).astype(np.float32)
  weights_files.write(
    tmp_path, found | {decoder: own}, like=name, tie_word_embeddings=False
  )
  config, params, report = load_weights(tmp_path)
  assert not config.tied and not report.ignored
  np.testing.assert_array_equal(
    params["heads"]["masked_lm"]["decoder"][:101], own
  )
  assert not params["heads"]["masked_lm"]["decoder"][101:].any()


def test_no_language_model_head(tmp_path, wanted):
  found = {
    k: v for k, v in tensors_of("xlmr_mlm").items() if "lm_head" not in k
  }
  weights_files.write(tmp_path, found)
  _, params, _ = load_weights(tmp_path)
  assert params["heads"] == {}
  assert_same(params["layers"], wanted["layers"])


@pytest.mark.parametrize("missing", ["lm_head.dense.weight", "lm_head.bias"])
def test_half_a_head_is_named(tmp_path, missing):
  found = tensors_of("xlmr_mlm")
  del found[missing]
  weights_files.write(tmp_path, found)
  _, params, report = load_weights(tmp_path)
  assert params["heads"] == {}
  assert report.ignored["lm_head.layer_norm.bias"] == (
    f"the head masked_lm is not whole: {missing} is missing"
  )


def test_what_is_there_twice_is_told(tmp_path, wanted):
  found = tensors_of("xlmr_mlm")
  double = "roberta." + QUERY
  found[QUERY] = found[double]
  weights_files.write(tmp_path, found)
  _, params, report = load_weights(tmp_path)
  assert_same(params, wanted)
  assert list(report.ignored.values()) in (
    [f"the same as {QUERY}"],
    [f"the same as {double}"],
  )
  found[QUERY] = found[QUERY] + 1
  weights_files.write(tmp_path, found)
  with pytest.raises(InputError, match="the file holds two models"):
    load_weights(tmp_path)


def test_config_of_the_released_xlm(tmp_path):
  """Its names of old, and a mask_token_id that is not <mask>'s."""
  config = json.loads(
    (oracle.ORACLES / "xlm_lm" / "config.json").read_text()
  ) | {"mask_token_id": 0, "bos_index": 0, "eos_index": 1, "pad_index": 2}
  config["n_words"] = config.pop("vocab_size")
  (tmp_path / "config.json").write_text(json.dumps(config))
  save_file(tensors_of("xlm_lm"), tmp_path / "model.safetensors")
  found = model_of(tmp_path)
  assert found == model_of(oracle.ORACLES / "xlm_lm")
  assert found.ids.mask == 5
  assert {found.bos_id, found.eos_id, found.pad_id} == {0, 1, 2}


def test_heads_that_are_not_asked_for():
  place = oracle.ORACLES / "bert_pretraining"
  _, params, report = load_weights(place, heads=["pooler"])
  assert list(params["heads"]) == ["pooler"]
  assert report.ignored["cls.predictions.bias"] == load._NOT_WANTED
  loaded = {name for entry in report.loaded for name in entry.tensors}
  assert loaded | set(report.ignored) == set(tensors_of("bert_pretraining"))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
  found = {k: v.astype(dtype) for k, v in tensors_of("xlmr_mlm").items()}
  weights_files.write(tmp_path, found)
  params = load_weights(tmp_path)[1]
  token = params["embed"]["token"][:101]
  assert token.dtype == np.float32
  np.testing.assert_array_equal(
    token, found["roberta.embeddings.word_embeddings.weight"].astype("f4")
  )


def test_more_rows_than_ids(tmp_path):
  """multilingual-e5: 250,037 rows for 250,002 ids."""
  import small_corpus

  from infoxlm_jax.data.tokenizers.base import load_tokenizer

  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  rows = tokenizer.vocab_size + 35
  found = tensors_of("xlmr_mlm")
  grown = np.ones((rows, 32), np.float32)
  found["roberta.embeddings.word_embeddings.weight"] = grown
  found["lm_head.bias"] = grown[:, 0]
  weights_files.write(tmp_path, found, vocab_size=rows)
  config, params, _ = load_weights(tmp_path)
  assert params["embed"]["token"].shape == (config.padded_vocab, 32)
  config = model_of(tmp_path, tokenizer=str(small_corpus.TOKENIZER))
  assert config.vocab_size == rows
  assert config.ids.size == tokenizer.vocab_size
  assert config.ids.mask == tokenizer.mask_id


def test_model_of_reads_no_tensors(tmp_path):
  folder = weights_files.copy(tmp_path / "model")
  (folder / "model.safetensors").write_bytes(b"not weights")
  config = model_of(folder, dtype="bfloat16", dropout=0.1, unroll=2)
  assert config == EncoderConfig(
    vocab_size=101,
    num_layers=2,
    hidden_size=32,
    num_heads=4,
    ffn_size=64,
    max_positions=38,
    type_vocab_size=1,
    dtype="bfloat16",
    dropout=0.1,
    unroll=2,
  )


def test_what_jax_takes_over_is_aligned():
  """So that an import on a CPU needs the memory of one copy."""
  out = lazy_tensor.empty((250, 7))
  assert out.ctypes.data % 64 == 0
  assert jax.device_put(out).unsafe_buffer_pointer() == out.ctypes.data


_SHAPES = st.lists(st.integers(0, 9), min_size=1, max_size=3)


@given(
  shape=_SHAPES,
  seed=st.integers(0, 2**32 - 1),
  piece=st.sampled_from([8, 24, 4096]),
  part=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_rows_in_pieces_of_any_size(tmp_path_factory, shape, seed, piece, part):
  """The reader against plain slicing, with pieces that end anywhere."""
  draw = np.random.default_rng(seed)
  arrays = {
    "a": draw.normal(size=shape).astype(np.float32),
    "b": draw.normal(size=shape).astype(np.float16),
    "c": draw.normal(size=shape).astype(ml_dtypes.bfloat16),
  }
  file = tmp_path_factory.mktemp("pieces") / "x.safetensors"
  save_file(arrays | {"scalar": np.array(2.5, np.float32)}, file)
  start, stop = sorted(round(p * shape[0]) for p in part)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(safetensors_files, "PIECE_BYTES", piece)
    tensors = safetensors_files.open_safetensors(file)
    assert tensors.pop("scalar").read() == 2.5
    assert list(tensors) == list(arrays)
    for name, tensor in tensors.items():
      expected = arrays[name].astype(np.float32)
      np.testing.assert_array_equal(tensor.read(), expected)
      np.testing.assert_array_equal(
        tensor.rows(start, stop).read(), expected[start:stop]
      )
      assert tensor.same_as(tensor)


def test_a_piece_is_read_without_the_rest():
  """No piece is larger than PIECE_BYTES, so no copy of a table is."""
  tensors = safetensors_files.open_safetensors(
    oracle.ORACLES / "xlmr_mlm" / "model.safetensors"
  )
  table = tensors["roberta.embeddings.word_embeddings.weight"]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(safetensors_files, "PIECE_BYTES", 10 * 32 * 4)
    sizes = [piece.size for piece in table.pieces(0, table.size)]
  assert sizes == [320] * 10 + [32]  # 101 rows of 32


def test_a_file_that_is_gone_is_named(tmp_path):
  folder = weights_files.copy(tmp_path / "model")
  file = folder / "model.safetensors"
  tensors = safetensors_files.open_safetensors(file)
  file.unlink()
  with pytest.raises(InputError, match="model.safetensors: cannot be read"):
    next(iter(tensors.values())).read()
