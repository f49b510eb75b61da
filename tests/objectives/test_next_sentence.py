"""BERT's objective: Hugging Face's numbers and numpy's."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest

from infoxlm_jax.checkpoint.importers.load import load_weights
from infoxlm_jax.errors import InputError
from infoxlm_jax.model import encoder, partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.base import Context, Targets, all_losses
from infoxlm_jax.objectives.identity import identity
from infoxlm_jax.objectives.masked_lm import MaskedLM
from infoxlm_jax.objectives.next_sentence import NextSentence
from infoxlm_jax.training import schedules, step
from infoxlm_jax.training import state as train_state

ITEMS = 16


@functools.cache
def loaded(name="bert_pretraining"):
  config, params, _ = load_weights(oracle.ORACLES / name)
  return config, jax.tree.map(jnp.asarray, params), oracle.load(name)


def rows_of(numbers, positions=None):
  """One item a row, one row a group, with ready-made targets."""
  real = numbers["attention_mask"] == 1
  order = np.where(real, np.cumsum(real, -1) - 1, 0)
  types = "langs" if "langs" in numbers else "token_type_ids"
  rows = {
    "tokens": numbers["input_ids"],
    "segments": real,
    "positions": order if positions is None else numbers[positions],
    "types": numbers[types],
    "targets": np.where(numbers["labels"] == -100, -1, numbers["labels"]),
  }
  rows = {k: np.asarray(v, np.int32)[:, None] for k, v in rows.items()}
  if "next_sentence_label" in numbers:
    labels = np.asarray(numbers["next_sentence_label"], np.int32)
    rows["labels"] = labels[:, None]
  return rows


def loss_of(objective, config, params, rows):
  """The loss with per-task means, and metrics."""
  drawn, counts = objective.corrupt(None, rows, config)
  targets = {}
  micro = jax.tree.map(lambda x: x[None], drawn)
  own = objective.targets(params, None, None, micro, None, ())
  if own is not None:
    targets["own"] = Targets(own.each, own.shared)
  context = Context(factors={"own": 1.0 / counts["terms"]}, targets=targets)
  encode = functools.partial(encoder.encode, config=config)
  return all_losses(
    {"own": objective}, params, encode, {"own": drawn}, config, context
  )


def cross_entropy(logits, labels):
  """-log softmax at the labels, float64."""
  logits = np.asarray(logits, np.float64)
  logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return -logs[np.arange(len(labels)), labels]


def test_the_loss_is_hugging_faces():
  config, params, numbers = loaded()
  found = jax.jit(lambda p, r: loss_of(NextSentence(), config, p, r))(
    params, rows_of(numbers)
  )
  assert found.sum == pytest.approx(float(numbers["loss"]), rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_both_parts_against_numpy(weight):
  config, params, numbers = loaded()
  real = numbers["labels"] != -100
  words = cross_entropy(
    numbers["prediction_logits"][real], numbers["labels"][real]
  )
  labels = numbers["next_sentence_label"]
  second = cross_entropy(numbers["seq_relationship_logits"], labels)
  objective = NextSentence(next_weight=weight)
  found = jax.jit(lambda p, r: loss_of(objective, config, p, r))(
    params, rows_of(numbers)
  )
  wanted = words.mean() + weight * second.mean()
  assert found.sum == pytest.approx(wanted, rel=1e-5)
  metrics = {k: (float(s), float(w)) for k, (s, w) in found.metrics.items()}
  assert metrics["own/loss"] == pytest.approx((words.sum(), real.sum()), 1e-5)
  assert metrics["own/next_loss"] == pytest.approx((second.sum(), 4), 1e-5)
  hits = (numbers["seq_relationship_logits"].argmax(-1) == labels).sum()
  assert metrics["own/next_accuracy"] == (hits, 4)


@pytest.mark.parametrize("form", ["", "reset_"])
def test_xlms_loss_with_languages_and_positions(form):
  config, params, numbers = loaded("xlm_lm")
  rows = rows_of(numbers, "reset_position_ids" if form else None)
  found = jax.jit(lambda p, r: loss_of(MaskedLM(), config, p, r))(params, rows)
  assert found.sum == pytest.approx(float(numbers[f"{form}loss"]), rel=1e-5)


def test_xlms_two_forms_differ():
  """Or the test above could pass with positions that are not used."""
  numbers = loaded("xlm_lm")[2]
  assert abs(numbers["loss"] - numbers["reset_loss"]) > 1e-3


def _batch():
  """Items of different lengths in rows of 12, one a row, two rows a group."""
  draw = np.random.default_rng(3)
  lengths = draw.integers(6, 13, (ITEMS // 2, 2, 1))
  place = np.arange(12)
  real = place < lengths
  tokens = draw.integers(5, 100, (ITEMS // 2, 2, 12))
  rows = {
    "tokens": np.where(real, tokens, 0),
    "segments": real * np.array([[1], [2]]),
    "positions": np.where(real, place, 0),
    "types": real & (place > 3),
    "labels": draw.integers(0, 2, (ITEMS // 2, 2)),
  }
  return {"bert": {k: v.astype(np.int32) for k, v in rows.items()}}


def _updates(mesh, count=3):
  config, params, _ = loaded()
  objective = NextSentence(mask_prob=0.3)
  rate = schedules.constant(0.1)
  recipe = train_state.Recipe(
    dataclasses.replace(config, num_ids=101),
    {"bert": objective},
    optax.sgd(0.1),
    {"bert": ITEMS},
  )
  state = train_state.create(recipe, params, train_state.first_rng(0))
  copied = jax.tree.map(jnp.copy, state)
  state = jax.device_put(copied, partitioning.shardings(copied, mesh))
  update = step.make_train_step(
    recipe, state, mesh, learning_rate=rate, loss_norm="per_task_mean"
  )
  out = []
  for _ in range(count):
    batch = jax.device_put(_batch(), partitioning.batch_sharding(mesh))
    state, metrics = update(state, batch)
    out.append({k: float(v) for k, v in metrics.items()})
  return out


@pytest.fixture(scope="module")
def alone():
  return _updates(partitioning.make_mesh(partitioning.MeshShape(devices=1)))


def test_the_update_adds_two_means(alone):
  for metrics in alone:
    wanted = metrics["bert/loss"] + metrics["bert/next_loss"]
    assert metrics["loss"] == pytest.approx(wanted, rel=1e-5)
    assert metrics["bert/overflow"] == 0
  assert alone[-1]["loss"] < 0.97 * alone[0]["loss"]


def test_one_pass_of_the_encoder():
  """As many products as MLM alone, and the pooler's and the head's two."""
  config, params, numbers = loaded()

  def products(objective, rows):
    text = str(
      jax.make_jaxpr(lambda p: loss_of(objective, config, p, rows).sum)(params)
    )
    return text.count("dot_general[")

  rows = rows_of(numbers)
  alone = products(MaskedLM(), {k: v for k, v in rows.items() if k != "labels"})
  assert products(NextSentence(), rows) == alone + 2


def test_what_it_cannot_train():
  config, _, numbers = loaded()
  rows = rows_of(numbers)
  del rows["labels"]
  with pytest.raises(InputError, match="must be a NextSentenceStream"):
    NextSentence().corrupt(None, rows, config)
  model = EncoderConfig(10, 1, 8, 2, 8)
  with pytest.raises(InputError, match="type_vocab_size = 0"):
    NextSentence().check("bert", model)


def test_heads_of_a_new_model():
  config = loaded()[0]
  made = NextSentence().init(jax.random.key(0), config)
  shapes = jax.tree.map(jnp.shape, made)
  assert shapes["pooler"] == {"kernel": (32, 32), "bias": (32,)}
  assert shapes["next_sentence"] == {"kernel": (32, 2), "bias": (2,)}
  assert 0.015 < float(made["pooler"]["kernel"].std()) < 0.025


def test_an_earlier_runs_identity_is_the_same():
  assert "frequency_power" not in identity(MaskedLM())
  assert identity(MaskedLM(frequency_power=0.5)).endswith(
    ", frequency_power=0.5)"
  )
