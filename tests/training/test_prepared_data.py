"""Data that changed after it was prepared: training does not begin."""

import json
import shutil

import pytest
import small_corpus
import small_run
from small_corpus import OPTIONS, ListCorpus

from infoxlm_jax.data import manifest, prepared_files
from infoxlm_jax.data.corpora.base import pair_example
from infoxlm_jax.data.prepare.pipeline import prepare
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.data.tokenizers.xlmr import read_proto
from infoxlm_jax.errors import InputError
from infoxlm_jax.training import input_pipeline, pretrain


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


def test_preparing_is_said_before_it_begins(tmp_path, capsys):
  said = []

  def prepare_it(output):
    said.append(capsys.readouterr().out)
    output.mkdir(exist_ok=True)

  for _ in range(2):
    input_pipeline.prepared_folder(tmp_path, None, prepare_it)
  assert said == [f"preparing the data into {tmp_path / 'data'}\n", ""]


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
  path = copy / "train" / manifest.MANIFEST
  content = json.loads(path.read_text()) | {"tokenizer_sha256": ""}
  path.write_text(json.dumps(content))
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


def test_data_of_which_too_little_is_left(tmp_path):
  """The run ends before anything is compiled, and says what was dropped."""
  texts = [f"a house, {n}" for n in range(40)]
  texts += [f"\u0434\u043e\u043c, {n}" for n in range(3)]
  rows = tuple(
    pair_example(("en", "ru"), f"one house, {n}", text)
    for n, text in enumerate(texts)
  )
  corpora = [
    ListCorpus("pairs", rows, "en-ru.tsv"),
    small_corpus.Verses("text"),
  ]
  data = prepare(tmp_path / "data", **OPTIONS | {"corpora": corpora})
  with pytest.raises(
    InputError, match="3 items are left.*en-ru.tsv.*wrong_scr"
  ):
    pretrain.pretrain(**small_run.options(tmp_path / "run", data=str(data)))
