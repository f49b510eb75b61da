"""Filling blocks: nothing lost, nothing too long, little room left."""

import lzma

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infoxlm_jax.data.prepare.blocks import copy_runs, cut, fill
from infoxlm_jax.data.prepare.tokenize import encode_flat
from infoxlm_jax.data.tokenizers.base import load_tokenizer


@given(
  st.integers(1, 60).flatmap(
    lambda room: st.tuples(
      st.just(room), st.lists(st.integers(1, room), max_size=200)
    )
  )
)
def test_blocks(case):
  room, lengths = case
  block, count = fill(lengths, room)
  assert len(block) == len(lengths)
  assert sorted(set(block.tolist())) == list(range(count))
  used = np.bincount(block, lengths, count)
  assert (used <= room).all()
  # What begins a block fitted into no open one: two half empty blocks never
  # stand beside each other, and the fullest is closed.
  assert (np.sort(used)[1:] > room / 2).all()
  # First members come in order: a block is a stretch of the text.
  first = [block.tolist().index(number) for number in range(count)]
  assert first == sorted(first)


def test_literal_blocks():
  # 6 4 fill one; 5 opens the next; 3 and 2 end it.
  block, count = fill([6, 5, 4, 3, 2], 10)
  assert (block.tolist(), count) == ([0, 1, 0, 1, 1], 2)


@given(
  st.lists(st.integers(1, 40), max_size=20), st.integers(1, 10), st.booleans()
)
def test_cut(lengths, limit, split):
  lengths = np.array(lengths, np.int64)
  sentence, start, size = cut(lengths, limit, split)
  found = [[] for _ in lengths]
  for n, s, k in zip(
    *(a.tolist() for a in (sentence, start, size)), strict=True
  ):
    assert 1 <= k <= limit
    found[n] += range(s, s + k)
  for length, places in zip(lengths.tolist(), found, strict=True):
    wanted = length if split else min(length, limit)
    assert places == list(range(wanted))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=9))
def test_copy_runs(runs):
  source = np.arange(100, 140, dtype=np.int32)
  lengths = np.array([n for _, n in runs], np.int64)
  starts = np.array([s for s, _ in runs], np.int64)
  ends = np.cumsum(lengths) + np.arange(len(runs))
  target = np.zeros(int(lengths.sum()) + len(runs), np.int32)
  copy_runs(target, ends - lengths, source, starts, lengths)
  expected = []
  for start, length in runs:
    expected += [*range(100 + start, 100 + start + length), 0]
  assert target.tolist() == expected


@pytest.mark.parametrize(("row_length", "least"), [(256, 0.97), (512, 0.98)])
def test_real_text_fills_its_blocks(shared, row_length, least):
  data = shared / "data"
  model = load_tokenizer(data / "tokenizer" / "xlmr.sentencepiece.bpe.model")
  for language in ("fr", "zh", "ar"):
    with lzma.open(data / "parallel" / f"en-{language}.tsv.xz", "rb") as file:
      lines = file.read(1 << 20).decode(errors="ignore").split("\n")[:4000]
    texts = [line.split("\t")[1] for line in lines if "\t" in line]
    _, lengths = encode_flat(model, texts)
    lengths = np.minimum(lengths[lengths > 0], row_length - 2)
    _, count = fill((lengths + 1).tolist(), row_length - 1)
    tokens = count + (lengths + 1).sum()
    assert tokens / (count * row_length) >= least
