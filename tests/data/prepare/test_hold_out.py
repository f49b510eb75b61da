"""What is held out is held out by sentence, across all corpora."""

import json

import pytest
import small_corpus
from small_corpus import OPTIONS, ListCorpus, contents

from infoxlm_jax.data.prepare import sentences, summary
from infoxlm_jax.data.prepare.filters import Cleaning
from infoxlm_jax.data.prepare.pipeline import prepare, prepare_in_subprocess
from infoxlm_jax.data.prepare.plan import Sizes
from infoxlm_jax.data.prepare.process_pool import Pool
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError

COUNT = 200
WORDS = "light water stone bread house field river night mountain fire".split()
OPEN = OPTIONS | {
  "cleaning": Cleaning(min_script_share=None),
  "max_side": 70,
  "sizes": Sizes(chunk=3000, shard=1 << 20, hashes=100),
}


def _say(language: str, number: int) -> str:
  """Sentence `number` of a text that exists in all languages."""
  a, b = WORDS[number % 10], WORDS[number // 10 % 10]
  return f"{language} {a} and {b}, {number}."


def _pairs(*languages: str) -> tuple[dict[str, str], ...]:
  return tuple(
    {
      "text_a": _say("en", n),
      "language_a": "en",
      "text_b": _say(language, n),
      "language_b": language,
    }
    for language in languages
    for n in range(COUNT)
  )


def _texts(*languages: str) -> tuple[dict[str, str], ...]:
  """The same sentences in other letters and with other marks."""
  return tuple(
    {"text": f" {_say(x, n).upper()[:-1]}!", "language": x}
    for x in languages
    for n in range(COUNT)
  )


def _numbers(store: Store) -> dict[tuple[str, ...], list[list[int]]]:
  """The sentences' numbers in each record, by language(s)."""
  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  out = {}
  for language, count in store.text_counts.items():
    blocks = store.read_text(language, range(count))
    out[(language,)] = [
      [
        int("".join(c for c in part if c.isdigit()))
        for part in tokenizer.decode(block.tolist()).split("!")
        if part.strip()
      ]
      for block in blocks
    ]
  for pair, count in store.pair_counts.items():
    out[pair] = [
      [int(tokenizer.decode(s.tolist()).split()[-1].strip(".")) for s in sides]
      for sides in store.read_pairs(pair, range(count))
    ]
  return out


def _flat(records: list[list[int]]) -> set[int]:
  return {number for record in records for number in record}


CORPORA = [
  ListCorpus("pairs", _pairs("de", "fr"), "pairs"),
  ListCorpus("text", _texts("en", "de"), "texts"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  out = tmp_path_factory.mktemp("held") / "data"
  return prepare(
    out, **OPEN | {"corpora": CORPORA, "held_out": 5, "held_out_test": 4}
  )


def test_one_text_in_many_languages(folder):
  """Nothing of dev and test is trained on, and nothing else is lost."""
  train, dev, test = (
    _numbers(Store(folder / name)) for name in ("train", "dev", "test")
  )
  for part, count in ((dev, 5), (test, 4)):
    assert len(part["en", "de"]) == len(part["en", "fr"]) == count
    # Both pairs of languages hold out the same sentences.
    assert _flat(part["en", "de"]) == _flat(part["en", "fr"])
  of_dev, of_test = _flat(dev["en", "de"]), _flat(test["en", "de"])
  assert not of_dev & of_test
  rest = set(range(COUNT)) - of_dev - of_test
  for languages in (("en", "de"), ("en", "fr"), ("en",), ("de",)):
    assert _flat(train[languages]) == rest
  # Texts: a twentieth of their blocks is one, which those of the pairs fill.
  assert _flat(dev["en",]) == _flat(dev["de",]) == of_dev
  assert set(test) == {("en", "de"), ("en", "fr")}


def test_what_is_held_out_is_counted(folder):
  by_name = {c.name: c for c in Store(folder / "train").manifest.corpora}
  assert by_name["en-de"].dropped == {}
  assert by_name["en"].dropped == {"held_out": 4}
  counts = {c.languages: c for c in Store(folder / "train").manifest.counts}
  assert (counts["en",].read, counts["en",].sentences) == (COUNT, COUNT - 4)
  assert "| held_out 4 " in (folder / "report.md").read_text()
  manifests = {
    name: Store(folder / name).manifest for name in ("train", "dev", "test")
  }
  blocks = sum(Store(folder / "dev").text_counts.values())
  assert summary.in_lines(manifests) == [
    "train: kept 1,192 of 1,200 sentences; dropped 8: held_out 8",
    f"dev: {10 + blocks} records are held out of train",
    "test: 8 records are held out of train",
  ]


def test_retrieval_has_a_row_for_each_sentence(folder):
  for name, count in (("dev", 5), ("test", 4)):
    lines = (folder / "retrieval" / f"{name}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == count
    for row in rows:
      number = int(row["en"].rstrip(".").split()[-1])
      assert row["en"] == _say("en", number)
      assert row["de"] == _say("de", number)
      assert row["fr"] == _say("fr", number)


def test_any_order_of_the_workers(folder, tmp_path, monkeypatch):
  def backwards(self, function, tasks):
    del self
    return iter([function(*task) for task in tasks][::-1])

  monkeypatch.setattr(Pool, "run", backwards)
  options = {"corpora": CORPORA, "held_out": 5, "held_out_test": 4}
  again = prepare(tmp_path / "again", **OPEN | options)
  assert contents(again) == contents(folder)


def test_a_sentence_of_many_pairs(tmp_path):
  """All pairs with a sentence leave, also those of another other side."""
  rows = _pairs("de")
  again = [
    row
    | {
      "text_b": f"de anders {row['text_b']}",
      "text_a": "EN" + row["text_a"][2:],
    }
    for row in rows
  ]
  corpora = [ListCorpus("pairs", (*rows, *again), "pairs")]
  out = prepare(tmp_path / "out", **OPEN | {"corpora": corpora, "held_out": 6})
  train, dev = (_numbers(Store(out / name)) for name in ("train", "dev"))
  held = _flat(dev["en", "de"])
  assert len(dev["en", "de"]) == 6
  assert not held & _flat(train["en", "de"])
  assert len(train["en", "de"]) == 2 * (COUNT - len(held))
  (corpus,) = Store(out / "train").manifest.corpora
  assert corpus.dropped == {"held_out": 2 * (2 * len(held) - 6)}


def test_sentences_of_held_out_texts_leave_the_pairs(tmp_path):
  pairs = ListCorpus("pairs", _pairs("de")[::11], "pairs")  # 19: none of dev
  texts = ListCorpus("text", _texts("en"), "texts")
  options = {"corpora": [texts, pairs], "held_out": 3, "row_length": 40}
  out = prepare(tmp_path / "out", **OPEN | options)
  train, dev = (_numbers(Store(out / name)) for name in ("train", "dev"))
  held = _flat(dev["en",])
  assert len(dev["en",]) == 3 and ("en", "de") not in dev
  assert not held & _flat(train["en",])
  assert held | _flat(train["en",]) == set(range(COUNT))
  assert _flat(train["en", "de"]) == set(range(0, COUNT, 11)) - held
  assert held & set(range(0, COUNT, 11))


def test_texts_that_differ_in_marks_only(tmp_path):
  """A text of dev leaves the blocks of training that have it, too."""
  once = _texts("en")
  again = tuple(r | {"text": r["text"].lower()} for r in reversed(once))
  corpora = [ListCorpus("text", once + again, "texts")]
  options = {"corpora": corpora, "held_out": 3, "row_length": 40}
  out = prepare(tmp_path / "out", **OPEN | options)
  train, dev = (_numbers(Store(out / name)) for name in ("train", "dev"))
  held = _flat(dev["en",])
  assert len(dev["en",]) == 3
  assert not held & _flat(train["en",])
  assert held | _flat(train["en",]) == set(range(COUNT))
  (corpus,) = Store(out / "train").manifest.corpora
  kept = sum(map(len, train["en",])) + sum(map(len, dev["en",]))
  assert corpus.dropped == {"held_out": 2 * COUNT - kept}


def test_files_for_dev_and_test(tmp_path):
  """They replace what is held out, and their sentences are not trained on."""
  for name, numbers in (("dev", range(10, 13)), ("test", range(50, 54))):
    lines = [f"{_say('en', n)}\t{_say('de', n).upper()}" for n in numbers]
    (tmp_path / f"{name}.en-de.tsv").write_text("\n".join(lines) + "\n")
  out = prepare(
    tmp_path / "out",
    **OPEN | {"corpora": CORPORA, "held_out": 5, "held_out_test": 5},
    dev_pairs=str(tmp_path / "dev.en-de.tsv"),
    test_pairs=str(tmp_path / "test.en-de.tsv"),
  )
  train, dev, test = (
    _numbers(Store(out / name)) for name in ("train", "dev", "test")
  )
  assert _flat(dev["en", "de"]) == {10, 11, 12}
  assert _flat(test["en", "de"]) == {50, 51, 52, 53}
  assert set(test) == {("en", "de")}
  rest = set(range(COUNT)) - {10, 11, 12, 50, 51, 52, 53}
  # Texts have no such files: a block goes to dev.
  rest -= _flat(dev["en",])
  assert _flat(train["en", "fr"]) == rest
  assert _flat(train["en", "de"]) == rest - _flat(dev["de",])
  for name, count in (("dev", 3), ("test", 4)):
    path = out / "retrieval" / f"{name}.jsonl"
    assert path.read_text("utf-8").count("\n") == count


class _Splits(ListCorpus):
  """The rows 0, 2, ... are training, 1, 3, ... validation."""

  def splits(self):
    return ("train", "validation")

  def examples(self, split):
    return iter(self.rows[split == "validation" :: 2])


def test_a_corpus_with_a_dev_split_of_its_own(tmp_path):
  """Its dev sentences leave the texts of another corpus, too."""
  corpora = [
    _Splits("pairs", _pairs("de"), "pairs"),
    ListCorpus("text", _texts("en"), "texts"),
  ]
  out = prepare(tmp_path / "out", **OPEN | {"corpora": corpora})
  train = _numbers(Store(out / "train"))
  assert _flat(train["en", "de"]) == set(range(0, COUNT, 2))
  assert _flat(train["en",]) == set(range(0, COUNT, 2))


def test_a_run_that_began_without_a_test_part(tmp_path, capsys):
  options = OPEN | {"corpora": CORPORA, "held_out": 5}
  old = prepare(tmp_path / "data", **options)
  before = contents(old)
  assert prepare_in_subprocess(old, **options, held_out_test=5) == old
  assert "was prepared without a part for test" in capsys.readouterr().out
  assert contents(old) == before
  with pytest.raises(InputError, match="held_out_test was null, now it is 5"):
    prepare(old, **options, held_out_test=5)


def test_same_sentence():
  same = "Press OK, now!"
  for text in ("press  ok now", "PRESS OK — NOW", "\uff30ress \uff2fK now…"):
    assert sentences.normalised(text) == sentences.normalised(same)
  for a, b in (
    ("a + b", "a = b"),
    ("की", "का"),  # they differ in a vowel's mark
    ("page 1", "page 2"),
    ("...", "!"),
  ):
    assert sentences.normalised(a) != sentences.normalised(b)
