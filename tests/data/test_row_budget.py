"""Rows chosen from the prepared data."""

import dataclasses

import numpy as np
import pytest
import small_corpus

from infoxlm_jax.data import loader, row_budget
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.streams import ContrastStream, PairStream, TextStream
from infoxlm_jax.errors import InputError

STREAMS = {
  "mlm": TextStream(batch=64, row_length=4 * small_corpus.ROW_LENGTH),
  "tlm": PairStream(batch=256, row_length=256),
  "xlco": ContrastStream(batch=256, row_length=256, mixup="random"),
}


@pytest.fixture(scope="module")
def store():
  return Store(small_corpus.prepared() / "train")


def _rows(stream, store, groups):
  return row_budget.with_rows(stream, store, groups).rows


@pytest.mark.parametrize("name", STREAMS)
def test_real_batches_fill_the_chosen_rows(store, name):
  """Batches of another seed, packed by the loader, are as was promised."""
  stream = STREAMS[name]
  fitted, fits = row_budget.fit_all({name: stream}, store, 2)
  rows = fitted[name].rows
  assert rows % 2 == 0 and rows == fits[name].rows
  assert row_budget.with_rows(stream, store, 2) == fitted[name]
  total = dict.fromkeys(("tokens", "slots", "cut_tokens"), 0)
  for step in range(20):
    _, counts = loader.build(
      fitted, store, seed=9, positions={name: step * stream.batch}, groups=2
    )
    for key in total:
      total[key] += counts[name][key]
  fill = total["tokens"] / total["slots"]
  # Blocks of a quarter of a row each leave more than pairs do.
  assert (0.8 if name == "mlm" else 0.88) < fill < 0.975
  assert fill == pytest.approx(fits[name].fill, abs=0.03)
  # max_side of the stream cuts nothing here: all cuts are the packer's.
  assert total["cut_tokens"] / total["tokens"] < 0.01
  assert fits[name].cut <= row_budget.MAX_CUT


def test_one_row_less_would_cut_or_be_too_full(store):
  stream = STREAMS["tlm"]
  rows = _rows(stream, store, 1)
  lengths = [
    len(x) for x in stream.draw(store, 0, np.arange(4096)).sides[""].items
  ]
  mean = 256 * np.mean(lengths) / 256
  assert rows >= mean / row_budget.TARGET_FILL
  assert mean / rows > 0.88


def test_mixup_doubles_the_rows(store):
  single = dataclasses.replace(STREAMS["xlco"], mixup="none")
  ratio = _rows(STREAMS["xlco"], store, 1) / _rows(single, store, 1)
  assert 1.8 < ratio < 2.1


def test_blocks_that_fill_a_row_get_one_each(store):
  """No more rows than items, although they are filled to more than 95 %."""
  stream = TextStream(batch=16, row_length=small_corpus.ROW_LENGTH)
  assert _rows(stream, store, 4) == 16
  short = TextStream(batch=16, row_length=8)
  assert _rows(short, store, 4) == 16


def test_padded_takes_a_row_an_item(store):
  stream = PairStream(batch=8, row_length=256, padded=True)
  assert _rows(stream, store, 2) == 8


def test_rows_that_are_given_stay(store):
  stream = PairStream(batch=8, rows=7, row_length=256)
  assert row_budget.with_rows(stream, store, 1) is stream
  assert row_budget.fit_all({"a": stream}, store, 1) == ({"a": stream}, {})


def test_a_batch_above_the_corpus_is_said(store, capsys):
  texts = sum(store.text_counts.values())
  pairs = sum(store.pair_counts.values())
  streams = {
    "mlm": TextStream(batch=texts, row_length=72),
    "tlm": PairStream(batch=pairs + 1, row_length=256),
    "xlco": ContrastStream(batch=pairs, row_length=256, mixup="disjoint"),
  }
  row_budget.say_large_batches(streams, store)
  first, second = capsys.readouterr().out.splitlines()
  assert f"stream tlm: batch = {pairs + 1} is more than the {pairs}" in first
  # Two pairs an item.
  items = sum(count // 2 for count in store.pair_counts.values())
  assert f"stream xlco: batch = {pairs} is more than the {items}" in second


def test_rows_that_are_not_known_are_told():
  stream = PairStream(batch=8, row_length=256)
  with pytest.raises(InputError, match="PairStream.rows is None.*give a num"):
    stream.shapes(2)
  with pytest.raises(InputError, match="batch = 8 .* 3 groups"):
    stream.shapes(3)
