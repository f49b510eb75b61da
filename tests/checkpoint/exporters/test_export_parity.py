"""Exported folders in transformers and sentence-transformers."""

import dataclasses

import jax
import numpy as np
import oracle
import pytest
import small_corpus
import small_model
import small_tokenizers

import infoxlm_jax
from infoxlm_jax.checkpoint.exporters import (
  compare_torch,
  export,
  source,
  trim_vocabulary,
)
from infoxlm_jax.checkpoint.exporters.model_card import About
from infoxlm_jax.checkpoint.importers.find_tokenizer import with_ids_of
from infoxlm_jax.cli.export import encode
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.evaluation import inference
from infoxlm_jax.model import encoder, partitioning

pytestmark = pytest.mark.parity
ABOUT = About("test")
MODELS = {
  "xlmr_mlm": "XLMRobertaForMaskedLM",
  "xlmr_cls": "XLMRobertaForSequenceClassification",
  "xlmr_qa": "XLMRobertaForQuestionAnswering",
  "xlmr_tok": "XLMRobertaForTokenClassification",
  "bert_mlm": "BertForMaskedLM",
  "bert_pretraining": "BertForPreTraining",
  "xlm_lm": "XLMWithLMHeadModel",
}
TEXTS = [
  *(row["en"] for row in small_corpus.table()[:20]),
  "",
  "Am Anfang schuf Gott Himmel und Erde.",
  "word " * 600,
]


def _loaded(folder, kind):
  """(model, missing keys, unexpected keys) of one of transformers' classes."""
  import torch
  import transformers

  model, info = getattr(transformers, kind).from_pretrained(
    folder, dtype=torch.float32, output_loading_info=True
  )
  return (
    model.eval(),
    set(info["missing_keys"]),
    set(info["unexpected_keys"]),
  )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  """folder_of(oracle's name), each exported once."""
  base = tmp_path_factory.mktemp("exported")

  def folder_of(name):
    folder = base / name
    if not folder.exists():
      found = source.open_source(oracle.ORACLES / name)
      export.export_transformers(found, folder, ABOUT, check=False)
    return folder

  return folder_of


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_the_oracles(exported, name):
  """Imported, exported, and loaded again: what torch gave at first."""
  import torch

  model, missing, unknown = _loaded(exported(name), MODELS[name])
  assert not missing
  assert not unknown
  numbers = oracle.load(name)
  inputs = {
    key: torch.tensor(numbers[key])
    for key in ("input_ids", "attention_mask", "token_type_ids", "langs")
    if key in numbers
  }
  with torch.no_grad():
    outputs = model(**inputs)
  real = numbers["attention_mask"] == 1
  compared = 0
  for key, ours in outputs.items():
    theirs = numbers.get(key)
    if theirs is None:
      continue
    ours = ours.numpy()
    assert ours.shape == theirs.shape
    if ours.shape[:2] == real.shape:
      ours, theirs = ours[real], theirs[real]
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=0)
    compared += 1
  assert compared


@pytest.mark.parametrize("name", ["xlmr_mlm", "bert_mlm", "xlm_lm"])
def test_which_keys_the_automatic_classes_find(exported, name):
  _, missing, unknown = _loaded(exported(name), "AutoModelForMaskedLM")
  assert not missing
  assert not unknown
  _, missing, unknown = _loaded(exported(name), "AutoModel")
  assert all("pooler." in key for key in missing)
  heads = ("lm_head.", "cls.predictions.", "pred_layer.")
  assert unknown
  assert all(key.startswith(heads) for key in unknown)


def _twin(model, config, params, ids, mask, **inputs):
  """Largest differences of all hidden states and of logits, real tokens."""
  import torch

  with torch.no_grad():
    theirs = model(
      input_ids=torch.tensor(ids),
      attention_mask=torch.tensor(mask.astype(np.int64)),
      output_hidden_states=True,
      **inputs,
    )
  positions = np.where(mask, np.cumsum(mask, -1) - 1, 0)
  rows = {
    "tokens": ids.astype(np.int32),
    "segments": mask.astype(np.int32),
    "positions": positions.astype(np.int32),
  }

  @jax.jit
  def ours(params):
    hidden = encoder.encode(params, rows, config, collect=lambda x: x)
    logits = encoder.lm_logits(
      params["heads"]["masked_lm"], params["embed"]["token"], hidden[-1], config
    )
    return hidden, logits[..., : config.vocab_size]

  hidden, logits = map(np.asarray, ours(params))
  pairs = [
    *zip(hidden, (x.numpy() for x in theirs.hidden_states), strict=True),
    (logits, theirs.logits.numpy()),
  ]
  return max(np.abs(a - b)[mask].max() for a, b in pairs)


def test_left_padding(exported):
  """Positions follow the tokens, not the columns."""
  config, params = oracle.model("xlmr_mlm")
  model, *_ = _loaded(exported("xlmr_mlm"), MODELS["xlmr_mlm"])
  numbers = oracle.load("xlmr_mlm")
  ids, mask = np.full((4, 24), 1), np.zeros((4, 24), bool)
  lengths = [24, 17, 5, 2]
  for i, length in enumerate(lengths):
    source_ids = np.resize(numbers["input_ids"][0][:12], length)
    ids[i, -length:], mask[i, -length:] = source_ids, True
  assert not (ids[mask] == 1).any()
  assert _twin(model, config, params, ids, mask) < 2e-5
  # It would show: the same with positions by column differs.
  flipped = np.where(mask, np.arange(24), 0)
  assert (flipped != np.where(mask, np.cumsum(mask, -1) - 1, 0)).any()


# Layers, width, heads: all of the released models but their vocabularies.
SHAPES = {
  "XLM-R large": ("xlm-roberta", 24, 1024, 16, {}),
  "mBERT": (
    *("bert", 12, 768, 12),
    {"position_offset": 0, "type_vocab_size": 2, "layer_norm_eps": 1e-12},
  ),
  "XLM-15": (
    *("xlm", 12, 1024, 8),
    {"position_offset": 0, "type_vocab_size": 15, "layer_norm_eps": 1e-12},
  ),
  "XLM-100": (
    *("xlm", 16, 1280, 16),
    {"position_offset": 0, "layer_norm_eps": 1e-12},
  ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_full_length_and_the_released_shapes(tmp_path, name):
  """512 tokens; all hidden states and logits, as torch computes them."""
  architecture, layers, width, heads, changes = SHAPES[name]
  config = dataclasses.replace(
    small_model.CONFIG,
    architecture=architecture,
    vocab_size=1000,
    num_ids=None,
    num_layers=layers,
    hidden_size=width,
    num_heads=heads,
    ffn_size=4 * width,
    max_positions=512,
    **changes,
  )
  params = small_model.params(config, scale=0.03)
  found = source.Source("here", config, params, None, {})
  folder = tmp_path / "out"
  export.export_transformers(found, folder, ABOUT, check=False)
  model, missing, unknown = _loaded(folder, "AutoModelForMaskedLM")
  assert not missing | unknown
  ids = np.random.default_rng(3).integers(4, 999, (2, 512))
  mask = np.arange(512) < np.array([[512], [300]])
  ids = np.where(mask, ids, config.pad_id)
  assert _twin(model, config, params, ids, mask) < 2e-5


@pytest.mark.parametrize(
  ("pooling", "normalize", "prefix"),
  [("mean", False, ""), ("mean_all", True, "query: "), ("first", False, "")],
)
def test_sentence_transformers_gives_our_vectors(
  tmp_path, pooling, normalize, prefix
):
  from sentence_transformers import SentenceTransformer

  whole = small_model.source()
  lines = export.export_sentence_transformers(
    whole,
    tmp_path / "out",
    ABOUT,
    layer=2,
    pooling=pooling,
    normalize=normalize,
    prefix=prefix,
    encode=encode,
  )
  assert "sentence vectors: largest difference" in lines[-1]
  theirs = SentenceTransformer(str(tmp_path / "out"), device="cpu")
  model = infoxlm_jax.load(small_model.folder(), devices=1)
  expected = model.encode(
    TEXTS, layer=2, pooling=pooling, normalize=normalize, prefix=prefix
  )
  found = theirs.encode(TEXTS)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  # One by one too: padding takes no part.
  alone = np.stack([theirs.encode(text) for text in TEXTS[:3]])
  np.testing.assert_allclose(alone, expected[:3], atol=1e-5)


def test_a_trimmed_model_in_sentence_transformers(tmp_path):
  from sentence_transformers import SentenceTransformer

  corpus = tmp_path / "corpus.txt"
  texts = TEXTS[:20]
  corpus.write_text(
    "\n".join([*texts, *compare_torch.SENTENCES]), encoding="utf-8"
  )
  trimmed, saved = trim_vocabulary.trim_vocabulary(
    small_model.source(), [corpus]
  )
  assert saved.after < 2000
  export.export_sentence_transformers(
    trimmed,
    tmp_path / "out",
    ABOUT,
    layer=3,
    pooling="mean",
    encode=encode,
  )
  model = infoxlm_jax.load(small_model.folder(), devices=1)
  found = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(texts)
  np.testing.assert_allclose(found, model.encode(texts), atol=1e-5)


def test_the_comparison_sees_a_wrong_export(tmp_path):
  """Weights that are changed after writing are found out."""
  from safetensors.numpy import load_file, save_file

  from infoxlm_jax.errors import InputError

  found = small_model.source()
  folder = tmp_path / "out"
  lines = export.export_transformers(found, folder, ABOUT)
  assert "logits: largest difference from torch" in lines[-1]
  file = folder / "model.safetensors"
  tensors = load_file(file)
  name = "roberta.encoder.layer.1.output.dense.bias"
  tensors[name] = tensors[name].copy()
  tensors[name][0] += 0.5
  save_file(tensors, file, metadata={"format": "pt"})
  with pytest.raises(InputError, match="more than 0.001"):
    compare_torch.compare_model(
      folder, found, "XLMRobertaForMaskedLM", "float32"
    )
  del tensors["lm_head.dense.bias"]
  save_file(tensors, file, metadata={"format": "pt"})
  with pytest.raises(InputError, match="missing .lm_head.dense.bias"):
    compare_torch.compare_model(
      folder, found, "XLMRobertaForMaskedLM", "float32"
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_compared_too(tmp_path, dtype):
  lines = export.export_transformers(
    small_model.source(), tmp_path / "out", ABOUT, dtype=dtype
  )
  assert float(lines[-1].rpartition(" ")[2]) < 2e-5


@pytest.mark.parametrize(
  ("kind", "architecture", "pooling"),
  [
    ("wordpiece", "bert", "mean"),
    ("byte_bpe", "xlm-roberta", "first"),
    ("sentencepiece bpe", "xlm-roberta", "mean"),
    ("xlm", "xlm", "mean"),
  ],
)
def test_tokenizers_of_all_architectures_travel(
  tmp_path, kind, architecture, pooling
):
  """The command compares ids, outputs and vectors; here also the trimmed."""
  from sentence_transformers import SentenceTransformer

  files = tmp_path / "tokenizer"
  if kind == "xlm":
    small_tokenizers.xlm_folder(files)
  elif kind == "sentencepiece bpe":
    files.mkdir()
    model = small_tokenizers.sentencepiece_files(model_type="bpe")
    (files / "tokenizer.model").write_bytes(model["tokenizer.model"])
  else:
    files.mkdir()
    content = getattr(small_tokenizers, kind)()
    (files / "tokenizer.json").write_bytes(content)
  tokenizer = load_tokenizer(files)
  config = dataclasses.replace(
    small_model.CONFIG,
    architecture=architecture,
    position_offset=2 if architecture == "xlm-roberta" else 0,
    type_vocab_size=2 if architecture == "bert" else 0,
    ffn_size=128,
    vocab_size=tokenizer.vocab_size + 3,
    pad_id=tokenizer.pad_id,
  )
  config = with_ids_of(config, tokenizer, "here")
  params = small_model.params(config)
  whole = source.Source("here", config, params, tokenizer, {})
  corpus = tmp_path / "corpus.txt"
  texts = [text for text in TEXTS[:20] if text]
  corpus.write_text(
    "\n".join([*texts, *compare_torch.SENTENCES]), encoding="utf-8"
  )
  trimmed, _ = trim_vocabulary.trim_vocabulary(whole, [corpus])
  mesh = partitioning.make_mesh(partitioning.MeshShape(devices=1))
  expected = inference.Encoder(config, params, tokenizer, mesh).encode(
    texts, layer=2, pooling=pooling
  )
  for name, one in (("whole", whole), ("trimmed", trimmed)):
    folder = tmp_path / name
    lines = export.export_sentence_transformers(
      one, folder, ABOUT, layer=2, pooling=pooling, encode=encode
    )
    assert "sentence vectors" in lines[-1]
    model = SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(model.encode(texts), expected, atol=1e-5)
