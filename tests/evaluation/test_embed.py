"""Sentence vectors of every layer against Hugging Face's hidden states."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from infoxlm_jax.evaluation.embed import (
  batch_rows,
  by_row_length,
  embed_languages,
  make_embed,
)
from infoxlm_jax.model import partitioning


@pytest.fixture(scope="module")
def made():
  """embed with rows that hold two or three of the oracle's sentences."""
  config, params = oracle.model("xlmr_mlm")
  params = jax.tree.map(jnp.asarray, params)
  numbers = oracle.load("xlmr_mlm")
  mesh = partitioning.make_mesh(partitioning.MeshShape(devices=2))
  embed = make_embed(
    config, mesh, poolings=("mean", "first"), row_length=38, rows=2, items=3
  )
  sentences, expected = [], []
  for i, mask in enumerate(numbers["attention_mask"] == 1):
    ids = numbers["input_ids"][i][mask].astype(np.int32)
    hidden = np.stack([numbers[f"hidden_{n}"][i][mask] for n in range(3)])
    ordinary = ids >= 4
    sentences.append(ids)
    expected.append(
      np.stack([hidden[:, ordinary].mean(1), hidden[:, 0]], axis=1)
    )
  return embed, params, sentences, np.stack(expected, axis=2)


def test_every_layer_and_pooling(made):
  embed, params, sentences, expected = made
  vectors = embed(params, sentences)
  assert vectors.shape == expected.shape == (3, 2, 4, 32)
  np.testing.assert_allclose(vectors, expected, atol=2e-5)


def test_many_sentences_keep_their_order(made):
  embed, params, sentences, expected = made
  order = np.random.default_rng(0).integers(0, 4, 50)
  vectors = embed(params, [sentences[i] for i in order])
  np.testing.assert_allclose(vectors, expected[:, :, order], atol=2e-5)


def test_languages_get_their_own(made):
  embed, params, sentences, expected = made
  split = {"en": sentences[:1], "xx": sentences[1:]}
  vectors = embed_languages(embed, params, split)
  np.testing.assert_allclose(vectors["en"], expected[:, :, :1], atol=2e-5)
  np.testing.assert_allclose(vectors["xx"], expected[:, :, 1:], atol=2e-5)


def test_items_go_into_the_shortest_rows_that_hold_them():
  lengths = np.array([128, 5, 514, 129, 512, 300])
  rows = [(n, items.tolist()) for n, items in by_row_length(lengths, 514)]
  assert rows == [(128, [0, 1]), (256, [3]), (512, [4, 5]), (514, [2])]
  # A model with few positions has rows of that length only.
  rows = [(n, items.tolist()) for n, items in by_row_length(lengths[:2], 130)]
  assert rows == [(128, [0, 1])]


@pytest.mark.parametrize(
  ("needed", "row_length", "devices", "rows"),
  [
    (1, 128, 1, 1),
    (5, 128, 1, 16),
    (5, 128, 8, 1),
    (9, 128, 8, 4),
    (5, 512, 1, 8),  # 4096 tokens are 8 rows of 512
    (5, 8192, 1, 1),
  ],
)
def test_rows_of_a_batch(needed, row_length, devices, rows):
  assert batch_rows(needed, row_length, 4096, devices) == rows
