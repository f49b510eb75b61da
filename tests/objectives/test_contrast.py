"""The contrast against the released code and a numpy twin."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from infoxlm_jax.evaluation import collapse
from infoxlm_jax.model import encoder
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives import key_queue
from infoxlm_jax.objectives.base import Context, all_losses
from infoxlm_jax.objectives.contrast import Contrast
from infoxlm_jax.objectives.info_nce import info_nce


def _nce(q, k, queue, *, size, tau, negatives_from="queue", batch=None):
  context = Context(
    keys=k, batch_keys=k if batch is None else batch, first=0, queue=queue
  )
  return info_nce(
    q,
    context,
    temperature=tau,
    negatives_from=negatives_from,
    queue_size=size,
  )


def test_three_batches_of_the_released_criterion():
  """Loss, gradient and queue; K = 10, batch 4: the third push wraps."""
  numbers = oracle.load("xlco")
  tau = float(numbers["tau"])
  queue = key_queue.fill(jnp.asarray(numbers["queue_0"]), 4)

  @jax.jit
  def loss(q, k, queue):
    return _nce(q, k, queue, size=10, tau=tau).sum

  for i in (1, 2, 3):
    q, k = numbers[f"q_{i}"], jnp.asarray(numbers[f"k_{i}"])
    value, dq = jax.value_and_grad(loss)(q, k, queue)
    assert value == pytest.approx(float(numbers[f"loss_sum_{i}"]), rel=1e-5)
    np.testing.assert_allclose(
      dq, numbers[f"dloss_dq_{i}"], atol=1e-5, rtol=1e-5
    )
    queue = key_queue.push(queue, k)


def test_projection_is_a_product_from_the_right():
  numbers = oracle.load("xlco")
  np.testing.assert_allclose(
    numbers["proj_in"] @ numbers["proj_w"], numbers["proj_out"], atol=1e-5
  )
  config = EncoderConfig(
    vocab_size=20, num_layers=1, hidden_size=16, num_heads=2, ffn_size=16
  )
  objective = Contrast(layer=1, mask_prob=0.0)
  params = {"heads": {"contrast": {"projection": numbers["proj_w"]}}}
  rows = _rows_of_items(4)
  hidden = np.zeros((1, 4, 3, 16), np.float32)
  hidden[0, :, 0] = numbers["proj_in"]  # <s> of each item

  def encode(params, rows, num_layers, read):
    assert num_layers == 1
    return jnp.take_along_axis(jnp.asarray(hidden), read[..., None], axis=2)

  drawn, _ = objective.corrupt(None, rows, config)
  keys = objective.keys(params, encode, drawn)
  np.testing.assert_allclose(keys[0], numbers["proj_out"], atol=1e-5)


def _rows_of_items(count):
  """`count` items of three tokens, one a row, one group."""
  side = {
    "tokens": np.tile(np.array([0, 9, 2], np.int32), (1, count, 1)),
    "segments": np.repeat(1 + np.arange(count), 3).reshape(1, count, 3),
    "positions": np.tile(np.arange(3, dtype=np.int32), (1, count, 1)),
  }
  return {"query": side, "key": side, "items": np.zeros((1, count), np.int32)}


@pytest.mark.parametrize("negatives_from", ["queue", "batch", "queue+batch"])
def test_negatives_against_numpy(negatives_from):
  random = np.random.default_rng(0)
  q, k = random.normal(size=(2, 4, 8)).astype(np.float32)
  queue = key_queue.init(6, 4, 8)  # 6 of 8 places count
  for _ in range(3):
    queue = key_queue.push(queue, random.normal(size=(4, 8)))
  got = _nce(
    jnp.asarray(q),
    jnp.asarray(k),
    queue,
    size=6,
    tau=0.3,
    negatives_from=negatives_from,
  )
  old = np.asarray(key_queue.in_order(queue, 6), np.float64)
  expected, hits = 0.0, 0
  for i in range(4):
    own = q[i] @ k[i] / 0.3
    others = [q[i] @ k[j] / 0.3 for j in range(4) if j != i]
    candidates = [own]
    if "queue" in negatives_from:
      candidates += list(old @ q[i] / 0.3)
    if "batch" in negatives_from:
      candidates += others
    expected += np.log(np.sum(np.exp(candidates))) - own
    hits += own > max(others)
  assert got.sum == pytest.approx(expected, rel=1e-5)
  metrics = {name: s / w for name, (s, w) in got.metrics.items()}
  assert metrics["accuracy"] == pytest.approx(hits / 4)
  assert metrics["chance"] == pytest.approx(1 / 4)
  unit_q, unit_k = (x / np.linalg.norm(x, axis=1)[:, None] for x in (q, k))
  cosine = unit_q @ unit_k.T
  off = cosine[~np.eye(4, dtype=bool)]
  assert metrics["spread"] == pytest.approx(1 - off.mean(), abs=1e-5)
  assert metrics["positive_similarity"] == pytest.approx(
    np.diag(cosine).mean(), abs=1e-5
  )


def test_an_empty_queue_gives_no_negatives():
  q = jnp.ones((2, 4))
  got = _nce(q, q, key_queue.init(6, 2, 4), size=6, tau=1.0)
  assert float(got.sum) == pytest.approx(0.0, abs=1e-6)
  grad = jax.grad(
    lambda q: _nce(q, q, key_queue.init(6, 2, 4), size=6, tau=1.0).sum
  )(q)
  assert np.isfinite(grad).all()


def test_similarity_to_the_queue_by_age():
  queue = key_queue.init(6, 2, 2)
  for angle in (0.0, np.pi / 3, np.pi / 2):  # oldest to newest
    keys = np.array([[np.cos(angle), np.sin(angle)]] * 2, np.float32)
    queue = key_queue.push(queue, keys)
  q = jnp.array([[1.0, 0.0], [1.0, 0.0]])
  metrics = _nce(q, q, queue, size=6, tau=1.0).metrics
  assert metrics["queue_similarity_old"][0] / 2 == pytest.approx(1.0)
  assert metrics["queue_similarity_new"][0] / 2 == pytest.approx(0, abs=1e-6)


def test_constant_vectors_raise_the_alarm():
  """Nearly constant vectors, fresh ones a little apart from the queue's.

  They win against the queue (what the released accuracy counts), and lose
  among the batch's own keys.
  """
  random = np.random.default_rng(0)
  noise = 1e-6 * random.normal(size=(2, 16, 8)).astype(np.float32)
  fresh = np.ones(8, np.float32) + noise
  queue = key_queue.init(32, 16, 8)
  for _ in range(2):
    queue = key_queue.push(queue, 0.9 * np.ones((16, 8), np.float32))
  q, k = jnp.asarray(fresh[0]), jnp.asarray(fresh[1])
  own = np.sum(q * k, axis=1)
  against_queue = np.asarray(q @ queue.keys.reshape(-1, 8).T).max(axis=1)
  assert (own > against_queue).all()
  metrics = _nce(q, k, queue, size=32, tau=0.25).metrics
  plain = {f"xlco/{n}": float(s / w) for n, (s, w) in metrics.items()}
  assert plain["xlco/accuracy"] == 0.0
  assert plain["xlco/spread"] < 1e-3
  assert collapse.collapsed(plain)

  healthy = random.normal(size=(16, 8)).astype(np.float32)
  metrics = _nce(
    jnp.asarray(healthy), jnp.asarray(healthy), queue, size=32, tau=0.25
  ).metrics
  plain = {f"xlco/{n}": float(s / w) for n, (s, w) in metrics.items()}
  assert collapse.collapsed(plain) is None


@pytest.fixture(scope="module")
def small():
  config, params = oracle.train_init()
  numbers = oracle.load("train_official")
  params["heads"]["contrast"] = {"projection": numbers["proj_0"]}
  params = jax.tree.map(jnp.asarray, params)
  rows = oracle.batch(numbers, 1)["xlco"]
  return config, params, rows


def _losses(objective, params, encode, drawn, config, context):
  own, rows = {"xlco": objective}, {"xlco": drawn}
  return all_losses(own, params, encode, rows, config, context).sum


def test_keys_and_queue_get_no_gradient(small):
  config, params, rows = small
  objective = Contrast(layer=1, queue_size=8, negatives="queue+batch")
  encode = functools.partial(encoder.encode, config=config)
  queue = key_queue.fill(
    jax.random.normal(jax.random.key(0), (8, config.hidden_size)), 4
  )
  drawn, _ = objective.corrupt(
    jax.random.split(jax.random.key(1), 4), rows, config
  )

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1))
  def grads(params, key_params):
    keys = objective.keys(key_params, encode, drawn)
    context = Context(keys, keys, 0, queue, ())
    return _losses(objective, params, encode, drawn, config, context)

  own, key = grads(params, objective.key_params(params))
  assert not any(np.asarray(x).any() for x in jax.tree.leaves(key))
  assert np.asarray(own["heads"]["contrast"]["projection"]).any()
  # Nothing above the contrast layer, and no other head, is touched.
  assert not any(x[1:].any() for x in jax.tree.leaves(own["layers"]))
  head = own["heads"]["masked_lm"]
  assert not any(np.asarray(x).any() for x in jax.tree.leaves(head))


def test_both_directions_are_two_contrasts(small):
  config, params, rows = small
  encode = functools.partial(encoder.encode, config=config)
  swapped = {"query": rows["key"], "key": rows["query"], "items": rows["items"]}
  options = {"layer": 1, "mask_prob": 0.0, "negatives": "batch"}

  def total(objective, rows):
    def value(params):
      drawn, counts = objective.corrupt(None, rows, config)
      keys = objective.keys(objective.key_params(params), encode, drawn)
      context = Context(keys, keys, 0, None, ())
      loss = _losses(objective, params, encode, drawn, config, context)
      return loss, counts["terms"]

    return jax.jit(value)(params)

  one, one_terms = total(Contrast(**options), rows)
  other, _ = total(Contrast(**options), swapped)
  both, both_terms = total(Contrast(**options, directions="both"), rows)
  assert float(both) == pytest.approx(float(one + other), rel=1e-5)
  assert int(both_terms) == 2 * int(one_terms) == 8


def test_key_parameters_are_only_what_a_key_reads(small):
  config, params, _ = small
  part = Contrast(layer=1).key_params(params)
  assert set(part) == {"embed", "layers", "heads"}
  assert set(part["heads"]) == {"contrast"}
  assert all(x.shape[0] == 1 for x in jax.tree.leaves(part["layers"]))
  assert Contrast(layer=1, projection=False).key_params(params)["heads"] == {}


def test_a_queue_in_bfloat16():
  """Half the memory; its keys are rounded, and nothing else."""
  assert Contrast(queue_dtype="bfloat16").queue_dtype == "bfloat16"
  random = np.random.default_rng(0)
  keys = random.normal(size=(8, 16)).astype("f4")
  queries = jnp.asarray(random.normal(size=(4, 16)).astype("f4"))
  own = jnp.asarray(random.normal(size=(4, 16)).astype("f4"))
  losses = []
  for rounded, dtype in (
    (keys.astype(jnp.bfloat16), "float32"),
    (keys, "bfloat16"),
  ):
    queue = key_queue.init(8, 4, 16, dtype)
    assert queue.keys.dtype == dtype
    for push in np.asarray(rounded, np.float32).reshape(2, 4, 16):
      queue = key_queue.push(queue, jnp.asarray(push))
    part = info_nce(
      queries,
      Context(own, own, 0, queue, ()),
      temperature=0.25,
      negatives_from="queue",
      queue_size=8,
    )
    losses.append(float(part.sum))
  assert losses[0] == pytest.approx(losses[1], rel=1e-6)
