"""Prepared data that was damaged, exchanged, or written by somebody else."""

import json
import os
import shutil

import numpy as np
import pytest
import small_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import OPTIONS

from infoxlm_jax.data import manifest, prepared_files, records
from infoxlm_jax.data.prepare.pipeline import prepare
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.data.tokenizers.xlmr import read_proto
from infoxlm_jax.errors import InputError
from infoxlm_jax.training import input_pipeline

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


@pytest.fixture
def copy(tmp_path):
  shutil.copytree(small_corpus.prepared(), tmp_path / "data")
  return tmp_path / "data"


def start(folder):
  """What training does with DATA at its start."""
  return input_pipeline.prepared_folder(folder.parent, str(folder), None)


def flip(path, place=0.5) -> None:
  content = bytearray(path.read_bytes())
  content[int(len(content) * place)] ^= 1
  path.write_bytes(content)


def test_whole_data(copy, capsys):
  assert start(copy) == copy
  assert capsys.readouterr().out == ""
  assert prepare(copy, **OPTIONS) == copy


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("tokenizer.model", "tokenizer.model has changed"),
    ("retrieval/dev.jsonl", "dev.jsonl has changed"),
    ("retrieval/test.jsonl", "test.jsonl has changed"),
    ("request.json", "request.json (has changed|is not JSON)"),
    ("dev/manifest.json", "manifest.json"),
    ("dev/text/en-00000-of-00001.arrayrecord", "en-00000.*has changed"),
    ("train/pairs/en-de-00000-of-00001.arrayrecord", "en-de.* has changed"),
  ],
)
def test_one_flipped_bit(copy, name, message):
  flip(copy / name)
  for use in (start, lambda folder: prepare(folder, **OPTIONS)):
    with pytest.raises(InputError, match=message):
      use(copy)
  (copy / name).unlink()
  with pytest.raises(InputError, match=f"{copy}.*{name.rpartition('/')[2]}"):
    start(copy)


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


def test_a_tokenizer_with_two_pieces_exchanged(copy):
  """The file is whole, and of other ids: training compares it with records."""
  path = copy / "tokenizer.model"
  proto = read_proto(load_tokenizer(path))
  one, other = proto.pieces[500], proto.pieces[501]
  one.piece, other.piece = other.piece, one.piece
  path.write_bytes(proto.SerializeToString())
  assert load_tokenizer(path).vocab_size == 8002
  (copy / prepared_files.CHECKSUMS).unlink()  # as data of an older version
  with pytest.raises(InputError, match="dev/manifest.json records .*other pie"):
    start(copy)


def test_data_of_an_older_version(copy, capsys):
  """It has no checksums.json, and trains: one line a file says so."""
  (copy / prepared_files.CHECKSUMS).unlink()
  rewritten(copy / "train", lambda m: m.update(tokenizer_sha256=""))
  flip(copy / "retrieval" / "dev.jsonl")
  start(copy)
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 3
  for line, name in zip(
    lines,
    ("retrieval/dev.jsonl", "retrieval/test.jsonl", "train/manifest.json"),
    strict=True,
  ):
    assert f"{copy}/{name} " in line and "hash" in line


def test_a_large_set_is_compared_in_size_only(copy, capsys, monkeypatch):
  monkeypatch.setenv("INFOXLM_MAX_VERIFIED_BYTES", "5000")
  flip(copy / "train" / "text" / "en-00000-of-00001.arrayrecord")
  start(copy)
  assert "only their sizes were compared" in capsys.readouterr().out
  monkeypatch.delenv("INFOXLM_MAX_VERIFIED_BYTES")
  with pytest.raises(InputError, match="has changed"):
    start(copy)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ({"format": 1, "files": {"../a": "0"}}, "names the file '../a'"),
    ({"format": 1, "files": {"absent": "0"}}, "cannot read .*absent"),
    ({"format": 1, "files": {"request.json": 3}}, "has changed"),
    ({"format": 1, "files": []}, "the field 'files' is a list"),
    ({"format": 2, "files": {}}, "has format 2"),
    ([], "holds a list"),
  ],
)
def test_a_damaged_list_of_hashes(copy, content, message):
  (copy / prepared_files.CHECKSUMS).write_text(json.dumps(content))
  with pytest.raises(InputError, match=message):
    start(copy)
