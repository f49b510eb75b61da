"""Every architecture and head, loaded as users load them, against HF's numbers.

Beyond these: test_encoder.py has XLM-R's gradients and packed rows.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from infoxlm_jax.checkpoint.importers.load import load_weights
from infoxlm_jax.model import encoder, heads

_TOLERANCE = 2e-5  # of float32 on a CPU, where the oracle is near it


@functools.cache
def loaded(name):
  """(config, params, the oracle's numbers, which positions are real)."""
  config, params, report = load_weights(oracle.ORACLES / name)
  assert not report.ignored and not report.initialised
  numbers = oracle.load(name)
  params = jax.tree.map(jnp.asarray, params)
  return config, params, numbers, numbers["attention_mask"] == 1


@functools.cache
def hidden(name, positions=None):
  """Hidden states of every layer [layers + 1, B, T, D]."""
  config, params, numbers, real = loaded(name)
  order = np.where(real, np.cumsum(real, -1) - 1, 0)
  rows = {
    "tokens": numbers["input_ids"],
    "segments": real,
    "positions": numbers[positions] if positions else order,
  }
  for types in ("token_type_ids", "langs"):
    if types in numbers:
      rows["types"] = numbers[types]
  rows = {k: np.asarray(v, np.int32) for k, v in rows.items()}
  encode = jax.jit(
    lambda p, r: encoder.encode(p, r, config, collect=lambda x: x)
  )
  return np.asarray(encode(params, rows))


def lm_logits(name, states):
  config, params, _, _ = loaded(name)
  logits = encoder.lm_logits(
    params["heads"]["masked_lm"], params["embed"]["token"], states, config
  )
  return np.asarray(logits)[..., : config.vocab_size]


def cross_entropy(logits, labels):
  """Mean over the labels that are not -100, in float64."""
  logits = np.asarray(logits, np.float64)[labels != -100]
  shifted = logits - logits.max(-1, keepdims=True)
  logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
  labels = labels[labels != -100]
  assert len(labels)
  return -logs[np.arange(len(labels)), labels].mean()


def assert_close(ours, theirs, where=...):
  np.testing.assert_allclose(
    ours[where], theirs[where], atol=_TOLERANCE, rtol=0
  )


@pytest.mark.parametrize(
  ("name", "form"),
  [
    ("xlmr_mlm", ""),
    ("bert_mlm", ""),
    ("bert_pretraining", ""),
    ("xlm_lm", ""),
    ("xlm_lm", "reset_"),
  ],
)
def test_hidden_states_logits_and_loss(name, form):
  _, _, numbers, real = loaded(name)
  states = hidden(name, "reset_position_ids" if form else None)
  assert len(states) == 3
  for layer, ours in enumerate(states):
    assert_close(ours, numbers[f"{form}hidden_{layer}"], real)
  logits = lm_logits(name, states[-1])
  prefix = "prediction_" if name == "bert_pretraining" else form
  assert_close(logits, numbers[f"{prefix}logits"], real)
  loss = cross_entropy(logits, numbers["labels"])
  if name == "bert_pretraining":
    pooled = heads.pooled(loaded(name)[1]["heads"]["pooler"], states[-1])
    second = heads.next_sentence_logits(
      loaded(name)[1]["heads"]["next_sentence"], pooled
    )
    assert_close(second, numbers["seq_relationship_logits"])
    loss += cross_entropy(second, numbers["next_sentence_label"])
  assert loss == pytest.approx(float(numbers[f"{form}loss"]), abs=_TOLERANCE)


def test_classification():
  _, params, numbers, _ = loaded("xlmr_cls")
  head = params["heads"]["classification"]
  logits = heads.classification_logits(head, hidden("xlmr_cls")[-1])
  assert_close(logits, numbers["logits"])
  loss = cross_entropy(logits, numbers["labels"])
  assert loss == pytest.approx(float(numbers["loss"]), abs=_TOLERANCE)


def test_token_classification():
  _, params, numbers, real = loaded("xlmr_tok")
  head = params["heads"]["token_classification"]
  logits = heads.token_logits(head, hidden("xlmr_tok")[-1])
  assert logits.shape[-1] == 5
  assert_close(logits, numbers["logits"], real)


def test_question_answering():
  _, params, numbers, real = loaded("xlmr_qa")
  head = params["heads"]["question_answering"]
  start, end = heads.span_logits(head, hidden("xlmr_qa")[-1])
  assert_close(start, numbers["start_logits"], real)
  assert_close(end, numbers["end_logits"], real)
  # Hugging Face's loss runs over padding too, where only theirs has a meaning.
  losses = [
    cross_entropy(
      np.where(real, ours, numbers[f"{side}_logits"]),
      numbers[f"{side}_positions"],
    )
    for side, ours in (("start", start), ("end", end))
  ]
  assert np.mean(losses) == pytest.approx(
    float(numbers["loss"]), abs=_TOLERANCE
  )


# What is asked, and what test_encoder.py compares (gradients).
_INPUTS = (
  *("input_ids", "attention_mask", "position_ids", "token_type_ids", "langs"),
  *("reset_position_ids", "labels", "next_sentence_label"),
  *("start_positions", "end_positions", "grad."),
)
_COMPARED = {
  "xlmr_mlm": ("hidden_0", "hidden_1", "hidden_2", "logits", "loss"),
  "xlmr_cls": ("logits", "loss"),
  "xlmr_qa": ("start_logits", "end_logits", "loss"),
  "xlmr_tok": ("logits",),
  "bert_mlm": ("hidden_0", "hidden_1", "hidden_2", "logits", "loss"),
  "bert_pretraining": (
    *("hidden_0", "hidden_1", "hidden_2", "loss"),
    *("prediction_logits", "seq_relationship_logits"),
  ),
  "xlm_lm": tuple(
    f"{form}{name}"
    for form in ("", "reset_")
    for name in ("hidden_0", "hidden_1", "hidden_2", "logits", "loss")
  ),
}


@pytest.mark.parametrize("name", _COMPARED)
def test_no_number_of_an_oracle_is_left_out(name):
  found = {k for k in oracle.load(name) if not k.startswith(_INPUTS)}
  assert found == set(_COMPARED[name])


def test_segments_and_languages_are_read():
  """Else the comparison above could not fail for them."""
  for name, types in (("bert_mlm", 2), ("xlm_lm", 3)):
    config, params, _, _ = loaded(name)
    assert config.type_vocab_size == types
    assert np.ptp(np.asarray(params["embed"]["type"]), axis=0).max() > 0.1
