"""Logits against torch's, and masks in texts."""

import numpy as np
import oracle
import pytest
import small_model

import infoxlm_jax
from infoxlm_jax.checkpoint.importers.load import load_weights
from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.fill_mask import around_masks
from infoxlm_jax.evaluation.inference import Encoder
from infoxlm_jax.model import partitioning


@pytest.fixture(scope="module")
def model():
  return infoxlm_jax.load(small_model.folder(), devices=1)


class Numbers:
  """A tokenizer whose text is ids, such as "17 4"."""

  path, vocab_size, bos_id, eos_id = "numbers", 101, 0, 2
  mask_id = 100

  def encode(self, text):
    return np.array(text.split(), np.int32)

  def encode_batch(self, texts):
    return [self.encode(text) for text in texts]

  def pieces(self, ids):
    return [f"piece {i}" for i in ids]


def test_logits_are_those_of_torch():
  """Of the oracle, which transformers computed."""
  config, params, _ = load_weights(oracle.ORACLES / "xlmr_mlm")
  mesh = partitioning.make_mesh(partitioning.MeshShape(devices=1))
  model = Encoder(config, params, Numbers(), mesh)
  numbers = oracle.load("xlmr_mlm")
  compared = 0
  for ids, real, expected in zip(
    numbers["input_ids"],
    numbers["attention_mask"],
    numbers["logits"],
    strict=True,
  ):
    ids, expected = ids[real == 1], expected[real == 1]
    if (ids[0], ids[-1]) != (0, 2):
      continue
    inner = ids[1:-1].tolist()
    (logits,) = model.logits([" ".join(map(str, inner))])
    np.testing.assert_allclose(logits, expected, atol=2e-5)
    # The same with masks written as such.
    masked = [*inner[:1], "<mask>", *inner[2:]]
    inner[1] = Numbers.mask_id
    text = " ".join(map(str, masked))
    (logits,) = model.logits([text], mask="<mask>")
    (same,) = model.logits([" ".join(map(str, inner))])
    np.testing.assert_array_equal(logits, same)
    ((filled,),) = model.fill_mask([text], top=3)
    chances = np.exp(logits[2]) / np.exp(logits[2]).sum()
    order = np.argsort(-chances)[:3]
    assert [one.id for one in filled] == order.tolist()
    assert [one.piece for one in filled] == [f"piece {i}" for i in order]
    np.testing.assert_allclose(
      [one.probability for one in filled], chances[order], rtol=1e-5
    )
    compared += 1
  assert compared


def test_masks_are_text_except_where_they_are_asked_for(model):
  text = "In the <mask> God created."
  plain = model.tokenize([text])[0]
  assert model.tokenizer.mask_id not in plain
  assert len(model.logits([text])[0]) == len(plain)
  ids = around_masks(text, "<mask>", model.tokenizer)
  assert model.tokenizer.pieces(ids) == [
    *model.tokenizer.pieces(model.tokenizer.encode("In the")),
    "<mask>",
    *model.tokenizer.pieces(model.tokenizer.encode("God created.")),
  ]
  assert [len(one) for one in model.fill_mask([text, "<mask><mask>"])] == [1, 2]
  # Only ids that the tokenizer has, though the table has more rows.
  (every,) = model.fill_mask(["<mask>"], top=10_000)[0]
  assert len(every) == model.tokenizer.vocab_size < model.config.vocab_size


def test_masks_that_cannot_be_filled(model):
  with pytest.raises(InputError, match=r"text 1 .* has no mask '<mask>': 'b'"):
    model.fill_mask(["<mask>", "b"])
  with pytest.raises(InputError, match="text 0 .* has 402 tokens, .* 256 posi"):
    model.fill_mask(["<mask>" * 400])
  params = {k: v for k, v in model.params.items() if k != "heads"}
  headless = Encoder(model.config, params, model.tokenizer, model.mesh)
  with pytest.raises(InputError, match="no masked-LM head"):
    headless.logits(["a"])
