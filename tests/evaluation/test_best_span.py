"""The best span against every span, tried one by one."""

import numpy as np
import pytest

from infoxlm_jax.evaluation.best_span import best_span


@pytest.mark.parametrize("seed", range(20))
def test_against_all_spans(seed):
  draw = np.random.default_rng(seed)
  starts, ends = draw.normal(size=(2, 40))
  may_start, may_end = draw.random((2, 40)) < 0.7
  top = [
    {
      n
      for n in np.flatnonzero(allowed)
      if (logits[allowed] > logits[n]).sum() < 20
    }
    for logits, allowed in ((starts, may_start), (ends, may_end))
  ]
  tried = {
    (a, b): starts[a] + ends[b]
    for a in top[0]
    for b in top[1]
    if a <= b < a + 5
  }
  span = best_span(starts, ends, may_start, may_end, max_tokens=5)
  assert (span.first, span.last) == max(tried, key=tried.get)
  assert span.score == pytest.approx(max(tried.values()))


def test_equal_scores_and_no_span():
  zero, everywhere = np.zeros(4), np.ones(4, bool)
  assert best_span(zero, zero, everywhere, everywhere)[1:] == (0, 0)
  nowhere = np.zeros(4, bool)
  assert best_span(zero, zero, nowhere, everywhere) is None
  late, early = np.arange(4) == 3, np.arange(4) == 0
  assert best_span(zero, zero, late, early) is None
