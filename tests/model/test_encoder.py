"""The encoder against Hugging Face's XLM-R, and against itself packed.

test_weight_oracles.py compares hidden states, logits and loss of unpacked rows.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import trees

from infoxlm_jax.checkpoint.importers.load import load_weights
from infoxlm_jax.errors import InputError
from infoxlm_jax.model import encoder
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.base import Context, all_losses
from infoxlm_jax.objectives.masked_lm import MaskedLM


def _encode(params, rows, config, **options):
  """encoder.encode, compiled: op by op costs a second a call."""
  return jax.jit(lambda p, r: encoder.encode(p, r, config, **options))(
    params, rows
  )


@pytest.fixture(scope="module")
def xlmr():
  config, params = oracle.model("xlmr_mlm")
  params = jax.tree.map(jnp.asarray, params)
  numbers = oracle.load("xlmr_mlm")
  rows = oracle.rows(numbers["input_ids"])
  return config, params, numbers, rows


def test_padding_of_the_vocabulary_has_no_probability(xlmr):
  config, params, numbers, rows = xlmr
  hidden = _encode(params, rows, config)[:, 0]
  logits = encoder.lm_logits(
    params["heads"]["masked_lm"], params["embed"]["token"], hidden, config
  )
  probability = jax.nn.softmax(logits)[..., config.vocab_size :]
  assert probability.shape == (*numbers["input_ids"].shape, 27)
  assert not probability.any()


def _loss(objective, params, drawn, config):
  encode = functools.partial(encoder.encode, config=config)
  own, rows = {"mlm": objective}, {"mlm": drawn}
  return all_losses(own, params, encode, rows, config, Context()).sum


def test_loss_and_gradients(xlmr):
  config, params, numbers, _ = xlmr
  labels = np.where(numbers["labels"] == -100, oracle.PAD, numbers["labels"])
  assert not (numbers["labels"] == oracle.PAD).any()
  rows = oracle.masked_rows(numbers["input_ids"], labels)
  objective = MaskedLM("mlm")
  drawn, counts = objective.corrupt(None, rows, config)

  def mean_loss(params):
    return _loss(objective, params, drawn, config) / counts["terms"]

  loss, grads = jax.jit(jax.value_and_grad(mean_loss))(params)
  assert loss == pytest.approx(float(numbers["loss"]), rel=1e-5)
  ours = oracle.hugging_face_names(grads, config)
  theirs = {k[5:]: v for k, v in numbers.items() if k.startswith("grad.")}
  tied = theirs.pop("lm_head.decoder.weight")  # one matrix, stored by this name
  theirs["roberta.embeddings.word_embeddings.weight"] = tied
  assert set(ours) == set(theirs)
  for name, expected in theirs.items():
    np.testing.assert_allclose(
      ours[name], expected, atol=2e-5, rtol=0, err_msg=name
    )


def _packed(numbers):
  """The oracle's sentences, packed two to a row after their own lengths."""
  ids = [
    row[mask == 1]
    for row, mask in zip(
      numbers["input_ids"], numbers["attention_mask"], strict=True
    )
  ]
  rows = []
  for pair in (ids[:2], ids[2:]):
    tokens = np.concatenate(pair)
    segments = np.repeat([1, 2], [len(x) for x in pair])
    positions = np.concatenate([np.arange(len(x)) for x in pair])
    rows.append((tokens, segments, positions))
  width = 40
  arrays = []
  for place, fill in enumerate((oracle.PAD, 0, 0)):
    padded = [
      np.pad(row[place], (0, width - len(row[place])), constant_values=fill)
      for row in rows
    ]
    arrays.append(np.stack(padded).astype(np.int32))
  return dict(zip(("tokens", "segments", "positions"), arrays, strict=True))


def test_packed_rows_give_the_same_hidden_states(xlmr):
  config, params, numbers, _ = xlmr
  rows = _packed(numbers)
  hidden = np.asarray(_encode(params, rows, config))
  lengths = numbers["attention_mask"].sum(1)
  starts = [(0, 0), (0, lengths[0]), (1, 0), (1, lengths[2])]
  for i, (row, start) in enumerate(starts):
    ours = hidden[row, start : start + lengths[i]]
    expected = numbers["hidden_2"][i][numbers["attention_mask"][i] == 1]
    np.testing.assert_allclose(ours, expected, atol=2e-5, rtol=0)


def test_packed_rows_give_the_same_loss_and_gradient(xlmr):
  config, params, numbers, _ = xlmr
  objective = MaskedLM("mlm")
  real = numbers["attention_mask"] == 1
  labels = np.where(numbers["labels"] == -100, -1, numbers["labels"])
  packed = _packed(numbers)
  targets = np.full_like(packed["tokens"], -1)
  for row, both in enumerate(((0, 1), (2, 3))):
    ours = np.concatenate([labels[i][real[i]] for i in both])
    targets[row, : len(ours)] = ours
  padded = oracle.rows(numbers["input_ids"]) | {"targets": labels[:, None]}

  def loss_and_gradient(rows):
    drawn, counts = objective.corrupt(None, rows, config)

    def total(params):
      return _loss(objective, params, drawn, config)

    return counts["terms"], *jax.jit(jax.value_and_grad(total))(params)

  terms, loss, grads = loss_and_gradient(packed | {"targets": targets})
  expected_terms, expected, theirs = loss_and_gradient(padded)
  assert int(terms) == int(expected_terms) > 5
  assert float(loss) == pytest.approx(float(expected), rel=1e-6)
  trees.assert_close(grads, theirs, rtol=1e-5, atol=2e-5)


def test_items_of_a_row_do_not_see_each_other(xlmr):
  config, params, numbers, _ = xlmr
  rows = _packed(numbers)
  before = np.asarray(_encode(params, rows, config))
  other = rows["segments"] == 2
  rows["tokens"] = np.where(other, 50, rows["tokens"])
  after = np.asarray(_encode(params, rows, config))
  first = rows["segments"] == 1
  np.testing.assert_array_equal(before[first], after[first])
  assert np.abs(before[other] - after[other]).max() > 0.1


def test_stopping_early_is_the_full_pass_cut(xlmr):
  """Loss and gradient of something read after layer 1 of 2."""
  config, params, _, rows = xlmr

  def read(params, **options):
    hidden = encoder.encode(params, rows, config, **options)
    hidden = hidden[1] if "collect" in options else hidden
    return jnp.sum(jnp.sin(hidden[..., 0, :]))

  full = jax.jit(jax.grad(lambda p: read(p, collect=lambda x: x)))(params)
  short = jax.jit(jax.grad(lambda p: read(p, num_layers=1)))(params)
  assert not any(x[1].any() for x in jax.tree.leaves(full["layers"]))
  trees.assert_close(short, full, rtol=1e-5, atol=1e-5)


def test_remat_and_unroll_change_nothing(xlmr):
  config, params, _, rows = xlmr

  def grads(config):
    return jax.jit(
      jax.grad(lambda p: jnp.sum(jnp.sin(encoder.encode(p, rows, config))))
    )(params)

  plain = grads(config)
  for change in ({"remat": "full"}, {"remat": "dots", "unroll": 2}):
    other = grads(dataclasses.replace(config, **change))
    trees.assert_close(other, plain, rtol=1e-5, atol=5e-5)


def test_remat_computes_again_what_it_says(xlmr):
  """A layer has two products of attention, and four with parameters."""
  config, params, _, rows = xlmr

  def products(remat):
    changed = dataclasses.replace(config, remat=remat)
    gradient = jax.grad(lambda p: jnp.sum(encoder.encode(p, rows, changed)))
    return str(jax.make_jaxpr(gradient)(params)).count("dot_general[")

  assert products("dots") == products("none") + 2
  assert products("full") == products("none") + 6


def test_dropout_depends_on_the_row_alone(xlmr):
  config, params, _, rows = xlmr
  config = dataclasses.replace(config, dropout=0.5, attention_dropout=0.5)
  keys = jax.random.split(jax.random.key(0), 4)[:, None]
  whole = _encode(params, rows | {"dropout_keys": keys}, config)
  part = {k: v[2:] for k, v in rows.items()} | {"dropout_keys": keys[2:]}
  np.testing.assert_allclose(
    whole[2:], _encode(params, part, config), atol=1e-5
  )
  without = _encode(params, rows, config)
  assert np.abs(np.asarray(whole - without)).max() > 0.1
  other = rows | {"dropout_keys": keys[::-1]}
  assert np.abs(whole - _encode(params, other, config)).max() > 0.1


def test_bfloat16_computes_near_float32(xlmr):
  config, params, _, rows = xlmr
  exact = np.asarray(_encode(params, rows, config))
  half = _encode(params, rows, dataclasses.replace(config, dtype="bfloat16"))
  assert half.dtype == jnp.bfloat16
  real = rows["segments"] > 0
  assert np.abs(np.asarray(half, np.float32) - exact)[real].mean() < 0.02


def test_init_has_roberta_scale():
  config = EncoderConfig(
    vocab_size=1000, num_layers=2, hidden_size=64, num_heads=4, ffn_size=128
  )
  params = jax.jit(lambda key: encoder.init(key, config))(jax.random.key(0))
  token = np.asarray(params["embed"]["token"])
  assert token.shape == (1024, 64)
  assert not token[config.pad_id].any()
  assert not token[1000:].any()
  kernel = np.asarray(params["layers"]["qkv"]["kernel"])
  assert kernel.shape == (2, 64, 3, 4, 16)
  assert kernel.std() == pytest.approx(0.02, rel=0.03)
  assert np.abs(kernel[0] - kernel[1]).max() > 0.01  # layers differ


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
    ({"vocab_size": 102}, "word_embeddings.weight has shape"),
    ({"num_hidden_layers": 1}, "not part of this architecture"),
    ({"num_hidden_layers": 3}, "encoder.layer.2.* is missing"),
  ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, message):
  import json
  import shutil

  folder = shutil.copytree(oracle.ORACLES / "xlmr_mlm", tmp_path / "model")
  config = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(config | change))
  with pytest.raises(InputError, match=message):
    load_weights(folder)
