"""Encoder.encode against plain poolings of hidden states."""

import dataclasses
import logging
import subprocess
import sys

import numpy as np
import pytest
import small_model

import infoxlm_jax
from infoxlm_jax.checkpoint.importers.find_tokenizer import with_ids_of
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.pooling import Reading
from infoxlm_jax.special_ids import Ids

TEXTS = [
  "In the beginning God created the heavens and the earth.",
  "",
  "Wort",
  "Am Anfang schuf Gott Himmel und Erde. " * 5,
  "元始に神天地を創造たまへり",
]


@pytest.fixture(scope="module")
def model():
  return infoxlm_jax.load(small_model.folder(), devices=1)


@pytest.fixture(scope="module")
def hidden(model):
  return model.hidden_states(TEXTS)


def pooled(hidden, layer, pooling):
  rows = []
  for one in hidden:
    tokens = one[layer]
    if pooling == "first":
      rows.append(tokens[0])
    elif pooling == "mean_all":
      rows.append(tokens.mean(0))
    else:
      inner = tokens[1:-1]
      rows.append(inner.mean(0) if len(inner) else np.zeros(tokens.shape[1]))
  return np.stack(rows)


def test_hidden_states_have_a_vector_for_every_piece(model, hidden):
  for text, one in zip(TEXTS, hidden, strict=True):
    pieces = model.pieces(text)
    assert pieces[0] == "<s>"
    assert pieces[-1] == "</s>"
    assert one.shape == (4, len(pieces), 32)
    assert one.dtype == np.float32


@pytest.mark.parametrize(
  ("layer", "pooling"),
  [(0, "mean"), (2, "mean_all"), (2, "first"), (3, "mean"), (None, "mean")],
)
def test_vectors_are_pooled_hidden_states(model, hidden, layer, pooling):
  vectors = model.encode(TEXTS, layer=layer, pooling=pooling)
  assert vectors.dtype == np.float32
  expected = pooled(hidden, 3 if layer is None else layer, pooling)
  np.testing.assert_allclose(vectors, expected, atol=2e-6)


def test_batches_change_nothing_and_order_is_kept(model, hidden):
  order = np.random.default_rng(0).integers(0, len(TEXTS), 60)
  texts = [TEXTS[i] for i in order]
  done = []
  parts = list(
    model.encode_stream(
      iter(texts), Reading(batch_tokens=256), done=done.append
    )
  )
  vectors = np.concatenate(parts)
  np.testing.assert_allclose(
    vectors, pooled(hidden, 3, "mean")[order], atol=2e-6
  )
  assert sum(done) == 60
  assert len(done) > 5


def test_unit_length_and_prefix(model):
  plain = model.encode([f"query: {text}" for text in TEXTS], pooling="mean_all")
  vectors = model.encode(
    TEXTS, pooling="mean_all", prefix="query: ", normalize=True
  )
  expected = plain / np.linalg.norm(plain, axis=1, keepdims=True)
  np.testing.assert_allclose(vectors, expected, atol=1e-6)
  assert np.abs(vectors - model.encode(TEXTS, normalize=True)).max() > 0.01


def test_long_texts_are_cut_and_counted(model, caplog):
  long = "word " * 2000
  with caplog.at_level(logging.WARNING):
    vectors = model.encode([long, "short", long])
  assert "2 of 3 texts were longer than 256 tokens" in caplog.text
  ids = model.tokenize([long])[0]
  assert len(ids) == 256
  assert (ids[0], ids[-1]) == (0, 2)
  one = model.hidden_states([long])[0]
  np.testing.assert_allclose(vectors[0], one[3, 1:-1].mean(0), atol=2e-6)
  np.testing.assert_array_equal(vectors[0], vectors[2])
  short = model.encode([long], max_length=16)
  same = model.encode(["word " * 14])
  np.testing.assert_allclose(short, same, atol=2e-6)


def test_several_devices_give_the_same(model):
  other = infoxlm_jax.load(small_model.folder(), devices=4)
  np.testing.assert_allclose(
    other.encode(TEXTS), model.encode(TEXTS), atol=2e-6
  )


def test_no_texts(model):
  assert model.encode([]).shape == (0, 32)
  assert model.hidden_states([]) == []


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"layer": 4}, "layer 4: the model has 3 layers"),
    ({"layer": -1}, "layer -1"),
    ({"pooling": "meanall"}, "did you mean 'mean_all'"),
    ({"max_length": 257}, "the model has 256 positions"),
    ({"max_length": 1}, "max_length = 1"),
    ({"batch_tokens": 0}, "batch_tokens = 0"),
    ({"batch_size": 0}, "batch_size = 0"),
    ({"batch_size": 8.0}, r"batch_size = 8.0 \(float\): give a whole number"),
    ({"layer": 2.0}, r"layer = 2.0 \(float\): give a whole number"),
    ({"layer": True}, r"layer = True \(bool\)"),
    ({"max_length": "64"}, r"max_length = '64' \(str\)"),
    ({"normalize": "no"}, "normalize = 'no': give True or False"),
    ({"prompt": 3}, "prefix = 3: give text"),
  ],
)
def test_bad_options_are_named(model, options, message):
  with pytest.raises(InputError, match=message):
    model.encode(TEXTS, **options)


def test_no_more_texts_at_a_time_than_asked_for(model, hidden):
  done = []
  texts = TEXTS * 4
  reading = Reading(batch_size=3)
  parts = list(model.encode_stream(texts, reading, done=done.append))
  assert sum(done) == 20 and max(done) == 3
  np.testing.assert_allclose(
    np.concatenate(parts), np.tile(pooled(hidden, 3, "mean"), (4, 1)), atol=2e-6
  )
  np.testing.assert_array_equal(
    model.encode(texts, batch_size=3), np.concatenate(parts)
  )


def test_similarities_are_cosines(model):
  a, b = np.array([[3.0, 4.0], [0, 0]]), np.array([[1.0, 0], [0, 2], [-3, -4]])
  expected = np.array([[0.6, 0.8, -1], [0, 0, 0]], np.float32)
  np.testing.assert_allclose(model.similarity(a, b), expected, atol=1e-7)
  np.testing.assert_allclose(model.similarity(a[0], b), expected[:1], atol=1e-7)
  np.testing.assert_allclose(model.similarity(b, a[0]), expected[:1].T)
  assert float(model.similarity(a[0], b[1])) == pytest.approx(0.8)
  np.testing.assert_allclose(model.similarity_pairwise(a, b[:2]), [0.6, 0])


def test_an_encoder_says_in_a_line_what_it_is(model):
  assert repr(model) == (
    f"Encoder('{small_model.folder()}': xlm-roberta, 3 layers of 32, 8,002 ids,"
    " 256 positions, float32, 1 cpu)"
  )


def test_models_without_a_fitting_tokenizer_are_refused(expected):
  oracle = expected / "oracles" / "xlmr_mlm"
  with pytest.raises(InputError, match="holds no tokenizer"):
    infoxlm_jax.load(oracle)
  with pytest.raises(InputError, match="101 rows, the tokenizer .* 8002 ids"):
    infoxlm_jax.load(oracle, tokenizer=small_model.folder())


def test_a_padding_id_counts_where_positions_depend_on_it():
  tokenizer = load_tokenizer(small_model.folder())
  config = EncoderConfig(9000, 1, 8, 1, 8, pad_id=0, position_offset=1)
  with pytest.raises(InputError, match="pads with id 0, the tokenizer"):
    with_ids_of(config, tokenizer, "weights")
  # multilingual-e5: BERT's config.json, XLM-R's tokenizer.
  bert = dataclasses.replace(config, position_offset=0, architecture="bert")
  assert with_ids_of(bert, tokenizer, "weights").ids == Ids(
    mask=tokenizer.mask_id, size=tokenizer.vocab_size
  )


def test_importing_the_package_imports_nothing_else():
  code = "import sys, infoxlm_jax; print('jax' in sys.modules)"
  ran = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert ran.stdout.strip() == "False"
