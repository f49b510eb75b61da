"""Continuing a sentence encoder: its prefix, and the layer of its vectors."""

import dataclasses
import json

import numpy as np
import pytest
import small_corpus
import small_run

from infoxlm_jax.checkpoint.importers.report import Report
from infoxlm_jax.data import prefixes
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.streams import ContrastStream
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation import retrieval_eval
from infoxlm_jax.training import sentence_encoder
from infoxlm_jax.training.program import make_program

PREFIX = "query: "


@pytest.fixture(scope="module")
def tokenizer():
  return load_tokenizer(small_corpus.TOKENIZER)


@pytest.fixture
def store():
  return Store(small_corpus.prepared() / "train")


def _closed(tokenizer, text):
  ids = tokenizer.encode(text)
  return (tokenizer.bos_id, *ids.tolist(), tokenizer.eos_id)


def test_queries_and_keys_begin_with_the_prefix(store, tokenizer):
  """The tokens of each are those of the whole text, prefix included."""
  stream = ContrastStream(batch=40, row_length=72, prefix=PREFIX)
  drawn = stream.draw(store, 0, np.arange(40))
  texts = {
    _closed(tokenizer, PREFIX + row[language])
    for row in small_corpus.table()
    for language in small_corpus.LANGUAGES
    if row[language]
  }
  short = small_corpus.MAX_SIDE  # longer texts were cut when they were prepared
  for side in drawn.sides.values():
    whole = [tuple(i.tolist()) for i in side.items if len(i) < short]
    assert len(whole) > 10
    assert set(whole) <= texts


def test_a_prefix_stands_before_the_item_once(store, tokenizer):
  plain = ContrastStream(batch=8, row_length=144, mixup="adjacent")
  prefixed = dataclasses.replace(plain, prefix=PREFIX)
  (before, after) = (
    stream.draw(store, 3, np.arange(8)).sides["query"].items
    for stream in (plain, prefixed)
  )
  own = tokenizer.encode(PREFIX).tolist()
  for old, new in zip(before, after, strict=True):
    assert new.tolist() == [*old[:1].tolist(), *own, *old[1:].tolist()]


def test_a_prefix_that_the_tokenizer_joins_with_the_text(store):
  with pytest.raises(InputError, match="PREFIX = 'pre'.*does not cut text"):
    prefixes.put_before("pre", store, [(np.arange(3),)])


def test_retrieval_has_the_prefix(tokenizer):
  folder = small_corpus.prepared() / "retrieval"
  data = retrieval_eval.load(folder, tokenizer, 72, PREFIX)["dev"]
  rows = [
    json.loads(x) for x in (folder / "dev.jsonl").read_text().split("\n")[:-1]
  ]
  for number, ids in zip(data.rows["de"], data.sentences["de"], strict=True):
    assert tuple(ids.tolist()) == _closed(
      tokenizer, PREFIX + rows[number]["de"]
    )


def _warnings(folder, *, layer=1, prefix="", initialised=()):
  arguments = small_run.options(folder)
  objectives = dict(arguments["objectives"])
  objectives["xlco"] = dataclasses.replace(objectives["xlco"], layer=layer)
  program = make_program(
    arguments["model"],
    objectives,
    arguments["streams"],
    arguments["update"],
    arguments["parallelism"],
    small_run.one_device(),
  )
  report = Report("x", "y", (), dict.fromkeys(initialised, "random"))
  return sentence_encoder.warnings(str(folder), report, program, prefix)


def test_warnings(tmp_path):
  """Of two layers, xlco contrasts the first."""
  head = ["heads/masked_lm/dense/kernel"]
  assert _warnings(tmp_path) == []
  (maybe,) = _warnings(tmp_path, initialised=head)
  assert "no MLM head" in maybe and "CONTRAST_LAYER=2" in maybe
  (tmp_path / "modules.json").write_text("[]")
  (surely,) = _warnings(tmp_path, initialised=head)
  assert "is a sentence encoder" in surely
  assert "layer, 2, and xlco contrasts layer 1" in surely
  assert _warnings(tmp_path, layer=2) == []
  settings = tmp_path / "config_sentence_transformers.json"
  settings.write_text('{"prompts": {"query": "query: ", "document": ""}}')
  (wants,) = _warnings(tmp_path, layer=2)
  assert "(query: 'query: ')" in wants and "--gin.PREFIX" in wants
  assert _warnings(tmp_path, layer=2, prefix="query: ") == []
  for content in ('{"prompts": 3}', "[]", "{"):
    settings.write_text(content)
    assert _warnings(tmp_path, layer=2) == []
