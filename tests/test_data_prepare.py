"""Records: what prepare writes from text, and what Store reads back."""

import functools
import json
import pickle
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small_corpus
from small_corpus import LANGUAGES, MAX_SIDE, OPTIONS, ROW_LENGTH

from infoxlm_jax.data import records
from infoxlm_jax.data.prepare import prepare, prepare_in_subprocess
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizer import load_tokenizer
from infoxlm_jax.errors import InputError, StorageError


@pytest.fixture(scope="module")
def folder():
  return small_corpus.prepared()


@pytest.fixture(scope="module")
def store(folder):
  return Store(folder / "train")


@pytest.fixture(scope="module")
def tokenizer():
  return load_tokenizer(small_corpus.TOKENIZER)


def _all_blocks(store, language):
  return store.read_text(language, range(store.text_counts[language]))


def test_record_bytes():
  # Little-endian int32; a pair begins with the length of its first side.
  text = records.encode_text(np.array([0, 8001, 2]))
  assert text.hex() == "00000000411f000002000000"
  pair = records.encode_pair(np.array([7]), np.array([258, 9]))
  assert pair.hex() == "01000000070000000201000009000000"
  a, b = records.decode_pair(pair)
  assert (a.tolist(), b.tolist()) == ([7], [258, 9])
  assert a.dtype == b.dtype == records.decode_text(text).dtype == np.int32


def test_texts_decode_to_the_sentences(store, tokenizer):
  for language in ("en", "de", "fr"):
    blocks = _all_blocks(store, language)
    found = []
    for block in blocks:
      assert len(block) <= ROW_LENGTH
      # <s> first and only first, </s> last.
      assert (np.flatnonzero(block == 0) == [0]).all()
      assert block[-1] == 2
      ends = np.flatnonzero(block == 2)
      sentences = np.split(block[1:], ends)[:-1]
      found.append([tokenizer.decode(s) for s in sentences])
    texts = [row[language] for row in small_corpus.table()[:60]]
    expected = []
    for text in texts:
      ids = tokenizer.encode(text)[: ROW_LENGTH - 2]
      if len(ids):
        expected.append(tokenizer.decode(ids))
    # Blocks are shuffled, the sentences of a block follow each other.
    assert Counter(sum(found, [])) == Counter(expected)
    starts = [expected.index(sentences[0]) for sentences in found]
    assert starts != sorted(starts)
    joined = [found[i] for i in np.argsort(starts)]
    assert sum(joined, []) == expected
    # Greedy: a block's next sentence would not have fitted.
    ordered = [blocks[i] for i in np.argsort(starts)]
    for block, after in zip(ordered[:-1], ordered[1:], strict=True):
      first = np.flatnonzero(after == 2)[0]
      assert len(block) + first > ROW_LENGTH


def test_whole_text_comes_back(store, tokenizer):
  """Against the text itself, not against the tokenizer's own decoding."""
  words = {
    " ".join(unicodedata.normalize("NFKC", row["en"]).split())
    for row in small_corpus.table()[:60]
    if len(tokenizer.encode(row["en"])) <= ROW_LENGTH - 2
  }
  found = set()
  for block in _all_blocks(store, "en"):
    for sentence in np.split(block, np.flatnonzero(block == 2)):
      found.add(tokenizer.decode(sentence))
  assert len(words) > 50
  assert words <= found


def test_pairs(store, tokenizer):
  assert set(store.pair_counts) == {("en", x) for x in LANGUAGES[1:]}
  rows = small_corpus.table()[:60]
  for pair, count in store.pair_counts.items():
    found = store.read_pairs(pair, range(count))
    expected = [
      tuple(
        tuple(tokenizer.encode(row[language])[:MAX_SIDE].tolist())
        for language in pair
      )
      for row in rows
      if row[pair[1]]
    ]
    got = [(tuple(a.tolist()), tuple(b.tolist())) for a, b in found]
    assert Counter(got) == Counter(expected)
    assert got != expected


def test_counts(store, tokenizer):
  rows = small_corpus.table()[:60]
  by_name = {c.name: c for c in store.manifest.corpora}
  missing = sum(not row["fr"] for row in rows)
  assert missing == 9
  lengths = [len(tokenizer.encode(row["fr"])) for row in rows]
  fr = by_name["fr"]
  assert fr.sentences == 60 - missing
  assert fr.dropped == {"empty": missing}
  too_long = sum(n > ROW_LENGTH - 2 for n in lengths)
  assert too_long and fr.truncated == {"longer_than_row": too_long}
  assert fr.tokens == sum(len(b) for b in _all_blocks(store, "fr"))
  assert fr.tokens == store.text_tokens["fr"]
  pair = by_name["en-fr"]
  assert pair.records == store.pair_counts["en", "fr"] == 60 - missing
  assert pair.sentences == 2 * pair.records
  assert pair.dropped == {"empty": 2 * missing}
  kept = [row for row in rows if row["fr"]]
  long_sides = sum(
    len(tokenizer.encode(row[x])) > MAX_SIDE
    for row in kept
    for x in ("en", "fr")
  )
  assert pair.truncated == {"longer_than_side": long_sides}
  assert store.manifest.tokenizer_sha256 == tokenizer.sha256
  assert store.manifest.vocab_size == 8002
  assert store.languages == sorted(LANGUAGES)


def test_retrieval_files(folder):
  for name, rows in (("dev", slice(60, 80)), ("test", slice(80, 100))):
    text = (folder / "retrieval" / f"{name}.jsonl").read_text("utf-8")
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    expected = [
      {k: row[k] for k in ("id", *LANGUAGES) if row[k]}
      for row in small_corpus.table()[rows]
    ]
    assert lines == expected


def test_the_tokenizer_is_kept(folder):
  kept = (folder / "tokenizer.model").read_bytes()
  assert kept == small_corpus.TOKENIZER.read_bytes()


def test_same_bytes_twice_and_seed(folder, tmp_path):
  files = sorted(p.relative_to(folder) for p in folder.rglob("*.*"))
  prepare(tmp_path / "again", **OPTIONS)
  for name in files:
    assert (tmp_path / "again" / name).read_bytes() == (
      folder / name
    ).read_bytes()
  prepare(tmp_path / "other", **OPTIONS | {"seed": 6})
  blocks = [
    np.concatenate(_all_blocks(Store(f / "train"), "en"))
    for f in (folder, tmp_path / "other")
  ]
  assert sorted(blocks[0]) == sorted(blocks[1])
  assert blocks[0].tolist() != blocks[1].tolist()
  # Nothing is left beside.
  assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "other"]


def _no_reading(task, split):
  raise AssertionError("read again")


def test_a_prepared_folder_is_used_again(folder):
  options = OPTIONS | {"read": _no_reading}
  assert prepare(folder, **options) == folder
  # Where nothing is to do, no process is started: this one could not be
  # told of a reader that does not pickle.
  options["read"] = lambda task, split: iter(())
  assert prepare_in_subprocess(folder, **options) == folder


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"row_length": 71}, "row_length = 72, now it is 71"),
    ({"seed": 0}, "seed = 5, now it is 0"),
    ({"pairs_task": None}, "pairs_task"),
  ],
)
def test_another_request(folder, change, message):
  before = sorted(p.stat().st_mtime_ns for p in folder.rglob("*"))
  with pytest.raises(InputError, match=message):
    prepare(folder, **OPTIONS | change)
  assert before == sorted(p.stat().st_mtime_ns for p in folder.rglob("*"))


def test_a_folder_of_something_else(tmp_path):
  note = tmp_path / "taken" / "notes.txt"
  note.parent.mkdir()
  note.write_text("mine")
  with pytest.raises(InputError, match="is not prepared data"):
    prepare(note.parent, **OPTIONS)
  assert [p.name for p in note.parent.iterdir()] == ["notes.txt"]
  with pytest.raises(InputError):
    prepare(note, **OPTIONS)
  assert note.read_text() == "mine"


def test_a_failed_prepare_leaves_nothing(tmp_path):
  def read(task, split):
    if task == "pairs":
      raise InputError("line 7 is broken")
    return small_corpus.read(task, split)

  with pytest.raises(InputError, match="line 7"):
    prepare(tmp_path / "out", **OPTIONS | {"read": read})
  assert not list(tmp_path.iterdir())


def test_bad_options(tmp_path):
  out = tmp_path / "out"
  for change, message in (
    ({"row_length": 2}, "row_length = 2"),
    ({"text_task": None, "pairs_task": None}, "text_task, pairs_task"),
    ({"tokenizer": tmp_path / "no.model"}, "no file or folder .*no.model"),
    ({"read": lambda t, s: iter([{"text": "a"}])}, "without 'language'"),
    (
      {"read": lambda t, s: iter([{"text": "a", "language": "../x"}])},
      "language '../x'",
    ),
    ({"read": lambda t, s: iter(())}, "gives no sentence"),
  ):
    with pytest.raises(InputError, match=message):
      prepare(out, **OPTIONS | change)
    assert not list(tmp_path.iterdir())


def test_output_under_a_file(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot write beside"):
    prepare(tmp_path / "file" / "out", **OPTIONS)


def test_storage_that_fails(tmp_path, monkeypatch):
  def full(*args):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(records.array_record_module, "ArrayRecordWriter", full)
  with pytest.raises(StorageError, match="No space left"):
    prepare(tmp_path / "out", **OPTIONS)
  assert not list(tmp_path.iterdir())


@pytest.fixture
def copy(folder, tmp_path):
  shutil.copytree(folder / "train", tmp_path / "train")
  return tmp_path / "train"


def test_damaged_stores(copy):
  manifest = copy / "manifest.json"
  shard = copy / "text" / "en-00000-of-00001.arrayrecord"
  good, good_bytes = manifest.read_text(), shard.read_bytes()
  Store(copy).verify()

  changed = bytearray(good_bytes)
  changed[len(changed) // 2] ^= 1
  shard.write_bytes(changed)
  # The size is still right: only verify reads all of it.
  with pytest.raises(InputError, match="en-00000.* has changed"):
    Store(copy).verify()
  shard.write_bytes(good_bytes[:-1])
  with pytest.raises(InputError, match=f"has {len(good_bytes) - 1} bytes"):
    Store(copy)
  shard.unlink()
  with pytest.raises(InputError, match="en-00000.* is missing"):
    Store(copy)
  shard.write_bytes(good_bytes)

  for text, message in (
    (good.replace('"format": 1', '"format": 99'), "has format 99"),
    (good[:200], "is damaged"),
    (good.replace('"tokens"', '"tokns"'), "is damaged"),
    ("[]", "is damaged"),
  ):
    manifest.write_text(text)
    with pytest.raises(InputError, match=message):
      Store(copy)
  manifest.unlink()
  with pytest.raises(InputError, match="holds no prepared data"):
    Store(copy)


def test_reading(store):
  blocks = _all_blocks(store, "de")
  picked = store.read_text("de", [5, 0, 5])
  for got, number in zip(picked, (5, 0, 5), strict=True):
    assert got.tolist() == blocks[number].tolist()
  assert store.read_pairs(("en", "de"), []) == []
  with pytest.raises(InputError, match="no records of it"):
    store.read_text("it", [0])
  with pytest.raises(IndexError):
    store.read_text("de", [len(blocks)])
  with pytest.raises(IndexError):
    store.read_text("de", [-1])


def test_pickled_and_threaded(store):
  blocks = _all_blocks(store, "ja")
  other = pickle.loads(pickle.dumps(store))
  with ThreadPoolExecutor(8) as pool:
    many = list(pool.map(lambda _: _all_blocks(other, "ja"), range(24)))
  for found in many:
    assert all(map(np.array_equal, found, blocks))


def test_verses_through_seqio(tmp_path):
  """The real tasks, in the process that training would start."""
  from infoxlm_jax.data.tables import read_table

  verses = functools.partial(
    prepare_in_subprocess,
    tokenizer=small_corpus.TOKENIZER,
    row_length=128,
    task_modules=("tasks.verses",),
    text_task="verses_text",
    multiway_task="verses_multiway",
    stores={"dev": "validation"},
    progress=False,
  )
  out = verses(tmp_path / "out", pairs_task="verses_pairs")
  store = Store(out / "dev")
  path = small_corpus.DATA / "verses.dev.tsv.gz"
  rows = [dict(zip(h, c, strict=True)) for h, c in read_table(path, ["id"])]
  assert len(rows) == 408
  by_name = {c.name: c for c in store.manifest.corpora}
  for language in list(rows[0])[1:]:
    here = sum(bool(row[language]) for row in rows)
    assert by_name[language].sentences == here
    if language != "en":
      pairs = sum(bool(row[language] and row["en"]) for row in rows)
      assert store.pair_counts["en", language] == pairs
  for name, count in (("dev", 408), ("test", 1006)):
    text = (out / "retrieval" / f"{name}.jsonl").read_text("utf-8")
    assert text.count("\n") == count
  assert "tensorflow" not in sys.modules
  # An error of the other process arrives as it was raised.
  with pytest.raises(InputError, match="Did you mean 'verses_pairs'"):
    verses(tmp_path / "bad", pairs_task="verse_pairs")
  assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_training_never_imports_tensorflow(root, plain_env, folder):
  code = (
    "import sys\n"
    "from infoxlm_jax.data import loader, prepare, records, streams\n"
    "s = {'mlm': streams.TextStream(batch=2, rows=2, row_length=72)}\n"
    f"store = records.Store({str(folder / 'train')!r})\n"
    "it = loader.batches(s, store, seed=0, positions={'mlm': 0}, groups=1)\n"
    "next(it)\n"
    "found = {'tensorflow', 'seqio'} & set(sys.modules)\n"
    "assert not found, found\n"
    # Left open on purpose: the process must end all the same.
  )
  subprocess.run(
    [sys.executable, "-c", code],
    env=plain_env,
    cwd=root,
    check=True,
    timeout=60,
  )
