"""Records: what prepare writes from text, and what Store reads back."""

import dataclasses
import functools
import itertools
import json
import pickle
import shutil
import sys
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small_corpus
from small_corpus import (
  LANGUAGES,
  MAX_SIDE,
  OPTIONS,
  ROW_LENGTH,
  ListCorpus,
  contents,
)

from infoxlm_jax.data import records
from infoxlm_jax.data.corpora.sources import SeqioTask, Tsv
from infoxlm_jax.data.prepare.filters import Cleaning
from infoxlm_jax.data.prepare.pipeline import prepare, prepare_in_subprocess
from infoxlm_jax.data.prepare.plan import Sizes
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.retrieval import read_multiway


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
    # Blocks are shuffled, the sentences of a block in the order read.
    assert Counter(sum(found, [])) == Counter(expected)
    places = [[expected.index(text) for text in block] for block in found]
    assert all(place == sorted(place) for place in places)
    assert places != sorted(places)


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


def test_the_tokenizer_is_kept(folder, tokenizer):
  kept = (folder / "tokenizer.model").read_bytes()
  assert kept == small_corpus.TOKENIZER.read_bytes()
  special = Store(folder / "dev").manifest.special_ids
  assert special == {"bos": 0, "pad": 1, "eos": 2, "unk": 3, "mask": 8001}


def test_the_report(folder):
  lines = (folder / "report.md").read_text("utf-8").split("\n")
  fr = next(line for line in lines if line.startswith("| text   | fr "))
  cells = [cell.strip() for cell in fr.split("|")[1:-1]]
  assert cells[:4] == ["text", "fr", "60", "51"]
  assert cells[5:] == ["empty 9", "longer_than_row 5"]


def test_same_bytes_twice_and_seed(folder, tmp_path):
  prepare(tmp_path / "again", **OPTIONS)
  assert contents(tmp_path / "again") == contents(folder)
  prepare(tmp_path / "other", **OPTIONS | {"seed": 6})
  blocks = [
    [b.tolist() for b in _all_blocks(Store(f / "train"), "en")]
    for f in (folder, tmp_path / "other")
  ]
  assert sorted(blocks[0]) == sorted(blocks[1])
  assert blocks[0] != blocks[1]
  # Nothing is left beside.
  assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "other"]


class _Unreadable(small_corpus.Verses):
  def __repr__(self):
    return f"Verses(kind={self.kind!r}, name={self.name!r})"

  def examples(self, split):
    raise AssertionError("read again")


def test_a_prepared_folder_is_used_again(folder):
  corpora = [_Unreadable(c.kind) for c in OPTIONS["corpora"]]
  options = OPTIONS | {"corpora": corpora, "workers": 2}
  assert prepare(folder, **options) == folder
  # Where nothing is to do, no process is started: this one could not be
  # told of a corpus that does not pickle.
  corpora[0].__dict__["more"] = lambda: None
  assert prepare_in_subprocess(folder, **options) == folder


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"row_length": 71}, "row_length was 72, now it is 71"),
    ({"seed": 0}, "seed was 5, now it is 0"),
    ({"cleaning": Cleaning()}, 'on_long was "truncate", now it is "split"'),
    ({"corpora": OPTIONS["corpora"][:1]}, "corpora was"),
  ],
)
def test_another_request(folder, change, message):
  before = sorted(p.stat().st_mtime_ns for p in folder.rglob("*"))
  for function in (prepare, prepare_in_subprocess):
    with pytest.raises(InputError, match=message):
      function(folder, **OPTIONS | change)
  assert before == sorted(p.stat().st_mtime_ns for p in folder.rglob("*"))


def test_a_folder_of_something_else(tmp_path):
  note = tmp_path / "taken" / "notes.txt"
  note.parent.mkdir()
  note.write_text("mine")
  with pytest.raises(InputError, match="is not prepared data"):
    prepare(note.parent, **OPTIONS)
  assert [p.name for p in note.parent.iterdir()] == ["notes.txt"]
  with pytest.raises(InputError, match="notes.txt exists and is not prepared"):
    prepare(note, **OPTIONS)
  assert note.read_text() == "mine"
  strange = tmp_path / "out.partial"
  strange.mkdir()
  (strange / "mine").write_text("mine")
  with pytest.raises(InputError, match="not prepare's .mine."):
    prepare(tmp_path / "out", **OPTIONS)
  assert (strange / "mine").read_text() == "mine"


def _corpus(rows, kind="text"):
  """A corpus of literal rows."""
  return ListCorpus(kind, tuple(rows))


def _tiny(tmp_path, corpora, **changes):
  options = OPTIONS | {"corpora": corpora, "cleaning": Cleaning()} | changes
  return Store(prepare(tmp_path / "out", **options) / "train")


def test_a_broken_corpus_leaves_nothing(tmp_path):
  @dataclasses.dataclass(frozen=True)
  class Broken(small_corpus.Verses):
    def examples(self, split):
      yield from itertools.islice(super().examples(split), 30)
      raise InputError("line 7 is broken")

  with pytest.raises(InputError, match="line 7"):
    prepare(
      tmp_path / "out",
      **OPTIONS | {"corpora": [*OPTIONS["corpora"][:1], Broken("pairs")]},
    )
  assert not list(tmp_path.iterdir())


def test_bad_options(tmp_path):
  for change, message in (
    ({"row_length": 2}, "row_length = 2"),
    ({"corpora": []}, "at least one corpus"),
    ({"corpora": [small_corpus.Verses("text")] * 2}, "the name 'text'"),
    ({"tokenizer": tmp_path / "no.model"}, "no file or folder .*no.model"),
    ({"workers": 0}, "workers = 0"),
    ({"held_out": -1}, "held_out = -1"),
    ({"cleaning": Cleaning(on_long="cut")}, "Cleaning.on_long = 'cut'"),
    ({"corpora": [_corpus([{"text": "a"}])]}, "example 1 has no 'language'"),
    (
      {"corpora": [_corpus([{"text": "a", "language": "../x"}])]},
      "language '../x'",
    ),
    ({"corpora": [_corpus([])]}, "gives no sentence"),
    ({"corpora": [_corpus([{"text": " ", "language": "en"}])]}, "no sentence"),
    ({"stores": {"train": "trian"}}, "no corpus has the split 'trian'"),
    (
      {"corpora": [_corpus([{"ids": np.array([9000]), "language": "en"}])]},
      "token id 9000.*8002",
    ),
  ):
    with pytest.raises(InputError, match=message):
      prepare(tmp_path / "out", **OPTIONS | change)
    assert not list(tmp_path.iterdir())


def test_output_under_a_file(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot write into"):
    prepare(tmp_path / "file" / "out", **OPTIONS)


def test_duplicates_are_removed_once(tmp_path, tokenizer):
  """Across chunks, corpora and white space; not across languages."""
  words = "alpha beta gamma delta epsilon zeta eta theta".split()
  rows = [{"text": f"{w} {v}", "language": "en"} for w in words for v in words]
  again = [{"text": f"  {r['text']} ", "language": "en"} for r in rows[::3]]
  german = [r | {"language": "de"} for r in rows[:10]]
  corpora = [_corpus(rows + again), ListCorpus("text", tuple(german), "more")]
  corpora.append(ListCorpus("text", tuple(rows[5:8]), "last"))
  for number, hashes in enumerate((7, 1000)):
    folder = tmp_path / str(number)
    folder.mkdir()
    sizes = Sizes(chunk=100, shard=300, hashes=hashes)
    store = _tiny(folder, corpora, sizes=sizes, stores={"train": "train"})
    by_name = {c.name: c for c in store.manifest.corpora}
    assert by_name["en"].dropped == {"duplicate": len(again) + 3}
    assert by_name["en"].sentences == len(rows)
    assert by_name["de"].dropped == {}
    assert len(by_name["en"].shards) > 3
    counts = {(c.corpus, c.languages): c for c in store.manifest.counts}
    assert counts["last", ("en",)].dropped == {"duplicate": 3}
    assert counts["last", ("en",)].sentences == 0
    found = Counter()
    for block in _all_blocks(store, "en"):
      for ids in np.split(block, np.flatnonzero(block == 2))[:-1]:
        found[tokenizer.decode(ids)] += 1
    assert found == Counter(row["text"] for row in rows)
  folder = tmp_path / "kept"
  folder.mkdir()
  store = _tiny(folder, corpora, cleaning=Cleaning(drop_duplicates=False))
  assert store.manifest.corpora[1].sentences == len(rows + again) + 3


def test_long_texts(tmp_path, tokenizer):
  text = " ".join(row["en"] for row in small_corpus.table()[:30])
  ids = tokenizer.encode(text)
  corpus = _corpus([{"text": text, "language": "en"}])
  limit = ROW_LENGTH - 2
  store = _tiny(tmp_path, [corpus], stores={"train": "train"})
  pieces = {
    tuple(piece[1:].tolist())
    for block in _all_blocks(store, "en")
    for piece in np.split(block, np.flatnonzero(block == 2))[:-1]
  }
  expected = {
    tuple(ids[n : n + limit].tolist()) for n in range(0, len(ids), limit)
  }
  assert pieces == expected and len(pieces) > 10
  assert store.manifest.counts[0].split == 1
  assert store.manifest.counts[0].sentences == 1
  with pytest.raises(InputError, match=f"example 1 has {len(ids)} tokens, 70"):
    prepare(
      tmp_path / "bad",
      **OPTIONS | {"corpora": [corpus], "cleaning": Cleaning(on_long="error")},
    )


def test_ready_made_tokens(tmp_path, tokenizer):
  """Give the records that their texts give."""
  rows = [{"text": r["en"], "language": "en"} for r in small_corpus.table()]
  made = [{"ids": tokenizer.encode(r["text"]), "language": "en"} for r in rows]
  blocks = []
  for number, corpus in enumerate((_corpus(rows), _corpus(made))):
    (tmp_path / str(number)).mkdir()
    store = _tiny(tmp_path / str(number), [corpus])
    blocks.append([b.tolist() for b in _all_blocks(store, "en")])
  assert blocks[0] == blocks[1]


def test_held_out(tmp_path, tokenizer):
  """The user's corpora give dev data and retrieval; others keep their own."""
  rows = [r for r in small_corpus.table() if r["fr"]]
  rows *= 5
  pairs = [
    {
      "text_a": f"{n} {row['en']}",
      "language_a": "en",
      "text_b": f"{n} {row['fr']}",
      "language_b": "fr",
    }
    for n, row in enumerate(rows)
  ]
  own = ListCorpus("pairs", tuple(pairs), "mine")
  corpora = [own, small_corpus.Verses("text")]
  store = _tiny(tmp_path, corpora, held_out=7)
  dev = Store(tmp_path / "out" / "dev")
  assert dev.pair_counts == {("en", "fr"): 7}
  assert store.pair_counts == {("en", "fr"): len(pairs) - 7}
  both = [
    (tuple(a.tolist()), tuple(b.tolist()))
    for s in (store, dev)
    for a, b in s.read_pairs(("en", "fr"), range(s.pair_counts["en", "fr"]))
  ]
  expected = [
    tuple(
      tuple(tokenizer.encode(p[side])[:MAX_SIDE].tolist())
      for side in ("text_a", "text_b")
    )
    for p in pairs
  ]
  assert Counter(both) == Counter(expected)
  # The verses' own split is their dev data.
  assert dev.text_counts == Store(small_corpus.prepared() / "dev").text_counts
  path = tmp_path / "out" / "retrieval" / "dev.jsonl"
  ids, by_language = read_multiway(path)
  assert len(ids) == 7
  for (_, en), number in zip(
    enumerate(by_language["en"][1]), range(7), strict=True
  ):
    a, b = dev.read_pairs(("en", "fr"), [number])[0]
    assert tokenizer.decode(a) == en
    assert tokenizer.decode(b) == by_language["fr"][1][number]
  # Never more than a twentieth.
  (tmp_path / "more").mkdir()
  _tiny(tmp_path / "more", [own], held_out=10_000)
  dev = Store(tmp_path / "more" / "out" / "dev")
  assert dev.pair_counts == {("en", "fr"): len(pairs) // 20}


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
  with pytest.raises(InputError, match="en-00000.*record is damaged or was"):
    store = Store(copy)
    store.read_text("en", range(store.text_counts["en"]))
  shard.write_bytes(good_bytes[:-1])
  with pytest.raises(InputError, match=f"has {len(good_bytes) - 1} bytes"):
    Store(copy)
  shard.unlink()
  with pytest.raises(InputError, match="en-00000.* is missing"):
    Store(copy)
  shard.write_bytes(good_bytes)

  for text, message in (
    (good.replace('"format": 2', '"format": 99'), "has format 99"),
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
  for number in (len(blocks), -1):
    with pytest.raises(IndexError, match=rf"outside 0\.\.{len(blocks)}"):
      store.read_text("de", [number])


def test_pickled_and_threaded(store):
  blocks = _all_blocks(store, "ja")
  other = pickle.loads(pickle.dumps(store))
  with ThreadPoolExecutor(8) as pool:
    many = list(pool.map(lambda _: _all_blocks(other, "ja"), range(24)))
  expected = [block.tolist() for block in blocks]
  assert len(expected) == store.text_counts["ja"] > 0
  assert [[block.tolist() for block in read] for read in many] == (
    [expected] * 24
  )


def _verses():
  return [
    SeqioTask(f"verses_{kind}", ("tasks.verses",), kind)
    for kind in ("text", "pairs", "multiway")
  ]


def test_verses_through_seqio(tmp_path):
  """The real tasks, in the process that training would start."""
  from infoxlm_jax.data.corpora.tsv import read_table

  verses = functools.partial(
    prepare_in_subprocess,
    tokenizer=small_corpus.TOKENIZER,
    row_length=128,
    stores={"dev": "validation"},
    cleaning=Cleaning(drop_duplicates=False),
    progress=False,
  )
  out = verses(tmp_path / "out", corpora=_verses())
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
  assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_error_of_the_other_process_arrives(tmp_path):
  (tmp_path / "en-fr.tsv").write_text("one\tun\ntwo\n")
  options = OPTIONS | {"corpora": [Tsv(str(tmp_path / "en-fr.tsv"))]}
  with pytest.raises(InputError, match="en-fr.tsv, line 2: 1 tab-separated"):
    prepare_in_subprocess(tmp_path / "bad", **options)
  assert [p.name for p in tmp_path.iterdir()] == ["en-fr.tsv"]
