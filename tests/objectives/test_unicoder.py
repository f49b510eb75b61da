"""Unicoder's word recovery and paraphrase classification, against numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.model import encoder
from infoxlm_jax.objectives import token_alignment, word_recovery
from infoxlm_jax.objectives.base import Context, all_losses
from infoxlm_jax.objectives.paraphrase import Paraphrase
from infoxlm_jax.objectives.word_recovery import WordRecovery

BOS, PAD, EOS = 0, 1, 2
GROUPS, WIDTH = 16, 28
# Two rows of two pairs: both sentences, and whether positions are restarted.
# One pair has an empty second sentence.
PAIRS = (
  (([7, 9, 7], [60, 61], False), ([12], [70, 71, 72], True)),
  (([20, 21], [], True), ([30, 3, 31], [80], True)),
)


@functools.cache
def model():
  """The model that the released code starts from, with both heads."""
  config, params = oracle.train_init()
  heads = WordRecovery().init(jax.random.key(3), config)
  heads |= Paraphrase().init(jax.random.key(4), config)
  # Larger than at the start, so that the attention is far from even.
  heads["word_recovery"] = jax.tree.map(
    lambda x: 60 * x, heads["word_recovery"]
  )
  heads["paraphrase"]["bias"] += jnp.array([0.3, -0.2])
  params["heads"] = heads | params["heads"]
  return config, jax.tree.map(jnp.asarray, params)


def packed(rows):
  """Rows of pairs -> arrays [rows, 1, WIDTH], a group each."""
  tokens = np.full((len(rows), WIDTH), PAD)
  segments, positions = np.zeros((2, len(rows), WIDTH), int)
  for row, pairs in enumerate(rows):
    at = 0
    for item, (a, b, restart) in enumerate(pairs, 1):
      first = [BOS, *a, EOS]
      second = [*[BOS] * restart, *b, EOS]
      here = slice(at, at + len(first) + len(second))
      tokens[row, here], segments[row, here] = first + second, item
      count = [*range(len(first)), *range(len(second))]
      positions[row, here] = (
        count if restart else range(len(first) + len(second))
      )
      at = here.stop
  arrays = {"tokens": tokens, "segments": segments, "positions": positions}
  return {k: jnp.asarray(v[:, None], jnp.int32) for k, v in arrays.items()}


def log_softmax(logits):
  logits = np.asarray(logits, np.float64)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def recovered(table, w, xs, ys):
  """x^t of the paper's formula, with all three parts of W, in loops."""
  out = []
  for x in table[xs]:
    scores = [w @ np.concatenate([x, y, x * y]) for y in table[ys]]
    weights = np.exp(np.array(scores) - max(scores))
    out.append(weights / weights.sum() @ table[ys])
  return np.array(out)


@functools.cache
def _alone():
  """Logits of a sentence that is encoded by itself, in a row of 8."""
  config = model()[0]

  def logits(params, rows):
    hidden = encoder.encode(params, rows, config)[0]
    head = params["heads"]["masked_lm"]
    return encoder.lm_logits(head, params["embed"]["token"], hidden, config)

  return jax.jit(logits)


def word_logits(params, words, start, vectors):
  count, left = len(words), 8 - len(words)
  rows = {
    "tokens": [*words, *[PAD] * left],
    "segments": [1] * count + [0] * left,
    "positions": [*range(start, start + count), *[0] * left],
  }
  rows = {k: jnp.array([v], jnp.int32) for k, v in rows.items()}
  rows["vectors"] = (
    jnp.zeros((1, 8, vectors.shape[1])).at[0, :count].set(vectors)
  )
  return _alone()(params, rows)


def recovery_in_numpy(params, rows):
  """(sum of -log p, words, hits); each sentence is encoded by itself."""
  table = np.asarray(params["embed"]["token"], np.float64)
  head = params["heads"]["word_recovery"]
  first = np.random.default_rng(5).normal(size=table.shape[1])
  w = np.concatenate([first, head["other"], head["product"]])
  total = count = hits = 0.0
  for pairs in rows:
    for *sides, restart in pairs:
      for number, own in enumerate(sides):
        other = sides[1 - number]
        words = [BOS, *own, EOS] if number == 0 or restart else [*own, EOS]
        start = 0 if number == 0 or restart else len(sides[0]) + 2
        vectors = table[words]
        begin = words.index(own[0]) if own else 0
        if own and other:
          vectors[begin : begin + len(own)] = recovered(table, w, own, other)
        elif own:
          vectors[begin : begin + len(own)] = 0
        logits = word_logits(params, words, start, vectors)
        logits = logits[begin : begin + len(own)]
        if not other:
          continue
        for word, row in zip(own, log_softmax(logits), strict=True):
          if word > 3:  # <unk> is no target
            total -= row[word]
            count += 1
            hits += int(row.argmax() == word)
  return total, count, hits


def losses(objectives, params, batch):
  """The losses of a batch in one microbatch, and the counts."""
  config = model()[0]
  rows, counts = {}, {}
  for name, objective in objectives.items():
    rows[name], counts[name] = objective.corrupt(
      None, batch[objective.stream], config
    )
  encode = functools.partial(encoder.encode, config=config)
  found = all_losses(objectives, params, encode, rows, config, Context())
  return found, counts


@functools.cache
def recovery():
  """((loss, (metrics, counts)), gradients) of parameters and rows."""

  def loss(params, rows):
    found, counts = losses({"own": WordRecovery()}, params, {"tlm": rows})
    return found.sum, (found.metrics, counts["own"])

  return jax.jit(jax.value_and_grad(loss, has_aux=True))


def test_recovery_against_numpy():
  _, params = model()
  (total, (metrics, counts)), _ = recovery()(params, packed(PAIRS))
  wanted, words, hits = recovery_in_numpy(params, PAIRS)
  # Words with a translation: 3 + 2 + 1 + 3, and 2 + 1 beside <unk>.
  assert words == counts["terms"] == 12
  assert float(total) == pytest.approx(wanted, rel=1e-5)
  assert metrics["own/loss"][0] == pytest.approx(wanted, rel=1e-5)
  assert metrics["own/accuracy"][0] == hits


def test_the_attention_is_trained():
  """Along its gradient the loss changes as the gradient says."""
  _, params = model()
  rows = packed(PAIRS)
  (_, _), grads = recovery()(params, rows)
  head = grads["heads"]["word_recovery"]
  for name, grad in head.items():
    size = float(jnp.linalg.norm(grad))
    assert size > 1e-3, name

    def at(distance, name=name, way=grad / size):
      moved = params["heads"]["word_recovery"] | {
        name: params["heads"]["word_recovery"][name] + distance * way
      }
      heads = params["heads"] | {"word_recovery": moved}
      return float(recovery()(params | {"heads": heads}, rows)[0][0])

    slope = (at(0.05) - at(-0.05)) / 0.1
    assert slope == pytest.approx(size, rel=0.02), name


def test_mixing_is_of_the_allowed_words_alone():
  """A pair's sentences attend to each other; other tokens get nothing."""
  rows, _ = WordRecovery().corrupt(None, packed(PAIRS), model()[0])
  allowed = np.asarray(word_recovery.translations(rows))[:, 0]
  wanted = np.zeros_like(allowed)
  # The first row: 0 aaa 2 bb 2 | 0 c 2 0 ddd 2.
  wanted[0, 1:4, 5:7] = wanted[0, 9, 12:15] = True
  # The second: 0 ee 2 0 2 | 0 fff 2 0 g 2.
  wanted[1, 7:10, 12] = True
  np.testing.assert_array_equal(allowed, wanted | wanted.swapaxes(1, 2))
  head = model()[1]["heads"]["word_recovery"]
  vectors = jnp.ones((2, 1, WIDTH, model()[0].hidden_size))
  mixed = word_recovery.mix(head, vectors, allowed[:, None])
  np.testing.assert_allclose(
    mixed[:, 0, :, 0], allowed.any(-1).astype(float), rtol=1e-6
  )
  # No sentence of a pair is in the other's segment, whatever the form.
  segments = np.asarray(rows["segments"])[:, 0].tolist()
  assert segments[0] == [1] * 5 + [2] * 3 + [3] * 3 + [4] * 5 + [0] * 12
  assert segments[1] == [1] * 4 + [2] * 2 + [3] * 5 + [4] * 3 + [0] * 14


def test_sides_with_restarted_positions():
  found = token_alignment.sides_of(packed(PAIRS), model()[0].ids)
  assert found[1, 0, :14].tolist() == [0, 1, 1, 0, 0, 0, 0] + [
    *(1, 1, 1, 0, 0, 2, 0)
  ]


def test_paraphrases_against_numpy():
  config, params = model()
  labels = np.array([[1, 0], [0, 0]], np.int32)
  batch = {"paraphrase": packed(PAIRS) | {"labels": jnp.asarray(labels)}}
  found, counts = jax.jit(
    lambda params: losses({"own": Paraphrase()}, params, batch)
  )(params)
  encode = jax.jit(lambda rows: encoder.encode(params, rows, config))
  head = params["heads"]["paraphrase"]
  total = hits = 0.0
  for pairs, classes in zip(PAIRS, labels, strict=True):
    for pair, label in zip(pairs, classes, strict=True):
      alone = {k: v[:, 0] for k, v in packed(((pair,),)).items()}
      first = np.asarray(encode(alone))[0, 0]
      logits = first @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
      total -= log_softmax(logits)[label]
      hits += int(logits.argmax() == label)
  assert counts["own"]["terms"] == 4
  assert float(found.sum) == pytest.approx(total, rel=1e-5)
  assert found.metrics["own/loss"][0] == pytest.approx(total, rel=1e-5)
  assert found.metrics["own/accuracy"] == (hits, 4)


def test_paraphrases_need_labels():
  with pytest.raises(InputError, match="must be a ParaphraseStream"):
    Paraphrase().corrupt(None, packed(PAIRS), model()[0])
