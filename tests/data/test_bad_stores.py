"""Records that were damaged, exchanged, or written by somebody else."""

import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infoxlm_jax.data import manifest, prepared_files, records
from infoxlm_jax.data.records import Store
from infoxlm_jax.errors import InputError

PLAIN = {
  "tokenizer_sha256": "0" * 64,
  "vocab_size": 10,
  "special_ids": {"bos": 0, "pad": 1, "eos": 2, "unk": 3, "mask": 9},
  "row_length": 8,
  "max_side": 4,
  "counts": (),
  "request": {},
  "versions": {},
}


def store_of(folder, kind, *contents):
  """A store with one shard of such records."""
  languages = ("en",) if kind == "text" else ("en", "de")
  shard = records.write_shard(folder, "a.arrayrecord", contents, kind)
  corpus = manifest.Corpus(
    languages, shard.records, 1, 1, {}, {}, shards=(shard,)
  )
  whole = manifest.Manifest(corpora=(corpus,), **PLAIN)
  (folder / manifest.MANIFEST).write_text(whole.to_json())
  return Store(folder)


def rewritten(folder, change) -> None:
  """Changes the manifest's JSON."""
  path = folder / manifest.MANIFEST
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


@pytest.mark.parametrize(
  ("kind", "record", "message"),
  [
    ("text", b"", "has 0 bytes, which are no whole numbers"),
    ("text", b"12345", "has 5 bytes, which are no whole numbers"),
    ("pairs", b"1234567", "has 7 bytes"),
    ("pairs", np.array([2, 7], "<i4").tobytes(), "first side has 2 tokens"),
    ("pairs", np.array([-1, 7], "<i4").tobytes(), "first side has -1 tokens"),
    ("pairs", np.array([1 << 30, 7], "<i4").tobytes(), "both sides together 1"),
  ],
)
def test_records_of_a_wrong_length(tmp_path, kind, record, message):
  good = np.array([1, 7], "<i4").tobytes()
  store = store_of(tmp_path, kind, good, record)
  read = store.read_text if kind == "text" else store.read_pairs
  languages = "en" if kind == "text" else ("en", "de")
  assert len(read(languages, [0])) == 1
  with pytest.raises(InputError, match=f"a.arrayrecord, record 1:.*{message}"):
    read(languages, [1])


@pytest.mark.parametrize(
  "name",
  ["../a.arrayrecord", "/etc/hostname", "x" * 5000, "a\0b", "", "text/../a", 3]
  + [["a"], None, "\ud800"],
)
def test_names_of_shards(tmp_path, name):
  store_of(tmp_path / "store", "text", bytes(4))
  shutil.copy(tmp_path / "store" / "a.arrayrecord", tmp_path)

  def change(content):
    content["corpora"][0]["shards"][0]["name"] = name

  rewritten(tmp_path / "store", change)
  with pytest.raises(InputError, match=r"manifest.json.*(not the name|dama)"):
    Store(tmp_path / "store")


def test_a_shard_that_is_no_file(tmp_path):
  store_of(tmp_path, "text", bytes(4))
  shard = tmp_path / "a.arrayrecord"
  shard.unlink()
  os.mkfifo(shard)

  def change(content):
    content["corpora"][0]["shards"][0]["size"] = 0

  rewritten(tmp_path, change)
  with pytest.raises(InputError, match="a.arrayrecord is no regular file"):
    Store(tmp_path)


def test_another_number_of_records(tmp_path):
  store_of(tmp_path, "text", bytes(4), bytes(4))

  def change(content):
    content["corpora"][0]["records"] = 3
    content["corpora"][0]["shards"][0]["records"] = 3

  rewritten(tmp_path, change)
  store = Store(tmp_path)
  with pytest.raises(InputError, match="2 records, 3 in the manifest"):
    store.read_text("en", [0])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda m: m.update(vocab_size=-1), "manifest.vocab_size is '-1'"),
    (lambda m: m.update(vocab_size=1 << 70), "manifest.vocab_size is"),
    (lambda m: m.update(vocab_size=1 << 40), "INFOXLM_MAX_TOKEN_IDS"),
    (lambda m: m.update(vocab_size=True), "manifest.vocab_size is 'True'"),
    (lambda m: m.update(vocab_size=9), "special_ids is"),
    (lambda m: m["special_ids"].pop("pad"), "special_ids is"),
    (lambda m: m["special_ids"].update(pad="1"), "special_ids.pad is '1'"),
    (lambda m: m.update(corpora={}), "manifest.corpora is"),
    (lambda m: m["corpora"][0].update(records=7), "7 records, its shards 1"),
    (lambda m: m["corpora"][0].update(languages=[]), "has the languages"),
    (lambda m: m["corpora"].append(m["corpora"][0]), "two corpora have the"),
    (lambda m: m["corpora"][0]["shards"].append(1), "shards.1. does not have"),
    (lambda m: m.pop("row_length"), "does not have the fields"),
    (lambda m: m.update(more=1), "does not have the fields"),
    (lambda m: m.update(format="2"), "the field 'format' is a text"),
  ],
)
def test_manifests(tmp_path, change, message):
  store_of(tmp_path, "text", bytes(4))
  rewritten(tmp_path, change)
  with pytest.raises(InputError, match=f"manifest.json.*{message}"):
    Store(tmp_path)


@pytest.mark.parametrize(
  "content", [b"[" * 100_000, b"\xff", b"", b"null", b'{"format": 2}']
)
def test_manifests_that_are_none(tmp_path, content):
  store_of(tmp_path, "text", bytes(4))
  (tmp_path / manifest.MANIFEST).write_bytes(content)
  with pytest.raises(InputError, match="manifest.json"):
    Store(tmp_path)


ODD = st.sampled_from(
  [None, -1, 0, 1 << 70, 1.5, True, "", "..", "x" * 300, [], {}, [[]], {"a": 1}]
)


@settings(max_examples=100)
@given(st.data())
def test_noise_in_a_manifest(tmp_path_factory, data):
  folder = tmp_path_factory.mktemp("store")
  store_of(folder, "pairs", np.array([1, 7], "<i4").tobytes())

  def change(content):
    place = content
    while True:
      keys = list(place) if isinstance(place, dict) else range(len(place))
      key = data.draw(st.sampled_from(list(keys)))
      inner = place[key]
      if not inner or not isinstance(inner, dict | list):
        break
      if data.draw(st.booleans()):
        break
      place = inner
    place[key] = data.draw(ODD)

  rewritten(folder, change)
  try:
    store = Store(folder)
    for pair in store.pair_counts:
      store.read_pairs(pair, [0])
    store.verify()
  except InputError as error:
    assert "\n" not in str(error)


def test_shards_that_changed_places(tmp_path):
  """Two of one size and number of records: only hashes tell them apart."""
  whole = []
  for name in ("a", "b"):
    ids = np.array([0, ord(name), 2], "<i4").tobytes()
    whole.append(
      records.write_shard(tmp_path / "data" / "dev", name, [ids], "text")
    )
  a, b = whole
  assert a.size == b.size and a.sha256 != b.sha256
  dev = tmp_path / "data" / "dev"
  corpus = manifest.Corpus(("en",), 2, 2, 6, {}, {}, (a, b))
  text = manifest.Manifest(corpora=(corpus,), **PLAIN).to_json()
  (dev / manifest.MANIFEST).write_text(text)
  Store(dev).verify()
  for source, target in (("a", "c"), ("b", "a"), ("c", "b")):
    (dev / source).rename(dev / target)
  with pytest.raises(InputError, match="dev/a has changed"):
    prepared_files.verify(tmp_path / "data")
