"""How many sentences of each language a tokenizer is trained on."""

import pytest

from infoxlm_jax.data.tokenizers.train_on_files import balance
from infoxlm_jax.errors import InputError


def test_balance():
  # n^.7 of 1,000 and 100 is 125.89 and 25.12: all 100 beside 501.
  pools = {"en": [f"e{i}" for i in range(1000)], "sw": ["s"] * 100}
  chosen = balance(pools, 0.7, 0, 10**6)
  assert {k: len(v) for k, v in chosen.items()} == {"en": 501, "sw": 100}
  assert len(set(chosen["en"])) == 501
  assert chosen == balance(pools, 0.7, 0, 10**6)
  assert chosen != balance(pools, 0.7, 1, 10**6)
  few = balance(pools, 0.7, 0, 60)
  assert {k: len(v) for k, v in few.items()} == {"en": 50, "sw": 10}


@pytest.mark.parametrize("alpha", [float("nan"), 1000.0, -1000.0])
def test_no_balance(alpha):
  pools = {"en": ["e"] * 1000, "sw": ["s"] * 100}
  with pytest.raises(InputError, match="languages of 100 to 1000 sentences"):
    balance(pools, alpha, 0, 10**6)
