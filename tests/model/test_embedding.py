"""The table of tokens, whole and split over four devices, against numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from infoxlm_jax.model import embedding, partitioning
from infoxlm_jax.training import collectives

ROWS, REAL, DIM, COUNT = 24, 21, 5, 12
SCALE = 0.5


def _numbers():
  random = np.random.default_rng(0)
  return {
    "x": random.normal(size=(COUNT, DIM)).astype("f4"),
    "table": random.normal(size=(ROWS, DIM)).astype("f4"),
    "bias": random.normal(size=ROWS).astype("f4"),
    "token": random.integers(0, REAL, COUNT).astype("i4"),
    "weight": np.array([1, 0, 2] * (COUNT // 3), "f4"),
    "ids": random.integers(0, REAL, (4, 2)).astype("i4"),
    "by": random.normal(size=(4, 2, DIM)).astype("f4"),
  }


def _expected(n):
  """Loss, hits and gradients in float64, written out."""
  x, table = n["x"].astype("f8"), n["table"].astype("f8")
  logits = x @ table[:REAL].T + n["bias"][:REAL]
  mass = np.exp(logits).sum(1)
  own = logits[np.arange(COUNT), n["token"]]
  nll = np.log(mass) - own
  looked_up = np.sum(table[n["ids"]] * n["by"])
  p = np.exp(logits) / mass[:, None]
  p[np.arange(COUNT), n["token"]] -= 1
  p *= SCALE * n["weight"][:, None]
  grads = {k: np.zeros(n[k].shape) for k in ("x", "table", "bias")}
  grads["x"] = p @ table[:REAL]
  grads["table"][:REAL] = p.T @ x
  grads["bias"][:REAL] = p.sum(0)
  np.add.at(grads["table"], n["ids"], n["by"])
  return {
    "loss": SCALE * np.sum(n["weight"] * nll) + looked_up,
    "nll": nll,
    "hit": own >= logits.max(1),
    "grads": grads,
  }


def _ours(n, chunk, axis):
  def loss(x, table, bias, n):
    vectors, table = embedding.tied_lookup(table, n["ids"], axis)
    targets = embedding.Targets(n["token"], n["weight"])
    ours = embedding.score(x, table, bias, targets, REAL, chunk, axis)
    total = SCALE * ours.sum + jnp.sum(vectors * n["by"])
    return total, ours

  both = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
  (total, ours), grads = both(n["x"], n["table"], n["bias"], n)
  if axis is not None:
    total = jax.lax.psum(total, axis)
  named = dict(zip(("x", "table", "bias"), grads, strict=True))
  return {
    "loss": total,
    "nll": ours.nll,
    "hit": ours.hit,
    "grads": named,
    "vectors": embedding.lookup(n["table"], n["ids"], axis),
  }


@pytest.mark.parametrize("chunk", [COUNT, 5])
@pytest.mark.parametrize("parts", [1, 4])
def test_lookup_score_and_their_gradients(chunk, parts):
  numbers = _numbers()
  expected = _expected(numbers)
  if parts == 1:
    ours = jax.jit(functools.partial(_ours, chunk=chunk, axis=None))(numbers)
  else:
    # Tokens are split too: each device has its own targets and ids.
    mesh = partitioning.make_mesh(
      partitioning.MeshShape(tensor=parts, devices=parts)
    )
    part = P("tensor")
    specs = dict.fromkeys(("nll", "hit", "vectors"), part)
    specs |= {
      "loss": P(),
      "grads": dict.fromkeys(("x", "table", "bias"), part),
    }
    split = collectives.shard_map(
      functools.partial(_ours, chunk=max(1, chunk // parts), axis="tensor"),
      mesh,
      in_specs=(dict.fromkeys(numbers, part),),
      out_specs=specs,
    )
    ours = jax.jit(split)(numbers)
  np.testing.assert_array_equal(
    ours["vectors"], numbers["table"][numbers["ids"]]
  )
  np.testing.assert_array_equal(ours["hit"], expected["hit"])
  for name in ("loss", "nll"):
    np.testing.assert_allclose(ours[name], expected[name], rtol=2e-6)
  for name, value in expected["grads"].items():
    np.testing.assert_allclose(
      ours["grads"][name], value, atol=3e-6, err_msg=name
    )


def test_padding_of_the_vocabulary_is_never_likeliest():
  numbers = _numbers()
  numbers["bias"][REAL:] = 1e6
  ours = jax.jit(functools.partial(_ours, chunk=COUNT, axis=None))(numbers)
  np.testing.assert_allclose(ours["nll"], _expected(numbers)["nll"], rtol=2e-6)
  assert not np.asarray(ours["grads"]["bias"])[REAL:].any()
