"""Spans of answers: Hugging Face's numbers, and numpy's for padded rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.model import encoder
from infoxlm_jax.objectives.base import Context
from infoxlm_jax.objectives.span_extraction import SpanExtraction

OBJECTIVE = SpanExtraction()


@functools.cache
def computed():
  """(rows, scores [B, T, 2], loss, numbers of the oracle)."""
  config, params = oracle.model("xlmr_qa")
  numbers = oracle.load("xlmr_qa")
  rows = oracle.rows(numbers["input_ids"])
  places = [numbers["start_positions"], numbers["end_positions"]]
  rows["labels"] = np.stack(places, -1).astype(np.int32)[:, None]
  encode = functools.partial(encoder.encode, config=config)

  @jax.jit
  def both(params, rows):
    scores = OBJECTIVE.scores(params, encode, rows, config)
    sums = OBJECTIVE.losses(
      {"qa": OBJECTIVE}, params, encode, {"qa": rows}, config, Context()
    )
    return scores, sums

  scores, sums = both(jax.tree.map(jnp.asarray, params), rows)
  return rows, np.asarray(scores)[:, 0], sums, numbers


def test_logits_are_hugging_faces():
  rows, scores, _, numbers = computed()
  real = rows["segments"][:, 0] > 0
  for side, name in enumerate(("start", "end")):
    np.testing.assert_allclose(
      scores[..., side][real], numbers[f"{name}_logits"][real], atol=2e-5
    )


def test_loss_is_the_mean_over_starts_and_ends_without_padding():
  rows, _, sums, numbers = computed()
  real = rows["segments"][:, 0] > 0
  assert not real.all()
  losses, hits = [], []
  for name in ("start", "end"):
    logits = np.asarray(numbers[f"{name}_logits"], np.float64)
    for own, mask, label in zip(
      logits, real, numbers[f"{name}_positions"], strict=True
    ):
      losses.append(np.log(np.exp(own[mask]).sum()) - own[label])
      hits.append(own[mask].argmax() == label)
  total, count = sums.metrics["qa/loss"]
  assert float(count) == len(losses)
  assert float(total) == pytest.approx(sum(losses), rel=1e-5)
  assert float(sums.sum) == pytest.approx(sum(losses), rel=1e-5)
  assert float(sums.metrics["qa/accuracy"][0]) == sum(hits)


def test_an_answer_that_cannot_be_learned_has_no_loss():
  rows, scores, _, _ = computed()
  none = dict(rows, labels=np.full_like(rows["labels"], -1))
  nll, right = OBJECTIVE.nll(jnp.asarray(scores)[:, None], none)
  assert not np.any(nll) and not np.any(right)
  _, counts = OBJECTIVE.corrupt(None, none, None)
  assert counts["terms"] == 0


def test_packed_rows_are_refused():
  rows, scores, _, _ = computed()
  packed = dict(rows, labels=np.zeros((len(scores), 2, 2), np.int32))
  with pytest.raises(InputError, match="padded"):
    OBJECTIVE.nll(jnp.asarray(scores)[:, None], packed)
