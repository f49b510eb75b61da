"""What preparing dropped is said, and refused where it leaves too little."""

import pytest
from small_corpus import OPTIONS, ListCorpus

from infoxlm_jax.data.corpora.base import pair_example
from infoxlm_jax.data.dropped import check_enough
from infoxlm_jax.data.prepare.filters import Cleaning
from infoxlm_jax.data.prepare.pipeline import prepare
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.streams import ContrastStream, PairStream, TextStream
from infoxlm_jax.errors import InputError

OPEN = OPTIONS | {"cleaning": Cleaning()}
KOREAN = "가나다라마바사아자차카타파하고노도로모보소"


def _pairs(german: int, korean: int) -> ListCorpus:
  """English with German, and with Korean that is called German."""
  others = [f"Satz {n} im Haus" for n in range(german)]
  others += [f"{KOREAN[n % 20]}{KOREAN[n // 20]} {n}" for n in range(korean)]
  rows = tuple(
    pair_example(("en", "de"), f"sentence {n} of a house", other)
    for n, other in enumerate(others)
  )
  return ListCorpus("pairs", rows, "en-de.tsv")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  folder = tmp_path_factory.mktemp("dropped") / "data"
  texts = tuple(
    {"text": f"sentence {n} of a house", "language": "en"} for n in range(90)
  )
  corpora = [_pairs(5, 55), ListCorpus("text", texts, "en.txt")]
  return Store(prepare(folder, **OPEN | {"corpora": corpora}) / "train")


def _stream(kind, batch):
  return {"some": kind(batch=batch, rows=batch, row_length=72)}


@pytest.mark.parametrize("kind", [PairStream, ContrastStream])
def test_less_than_a_batch_is_refused_with_the_reason(store, kind):
  check_enough(_stream(kind, 5), store)
  with pytest.raises(InputError) as refused:
    check_enough(_stream(kind, 6), store)
  for part in (
    "stream some: 5 items are left, fewer than a batch of 6.",
    "en-de.tsv, en-de: 110 of 120 sentences (92 %) were dropped: wrong_script"
    " 110 (under MIN_SCRIPT_SHARE",
    "is the language right?",
  ):
    assert part in str(refused.value)


def test_a_small_corpus_of_which_nothing_was_dropped_is_used(store):
  blocks = store.text_counts["en"]
  check_enough(_stream(TextStream, blocks + 1), store)


def test_what_is_said_after_preparing(tmp_path, capsys):
  corpora = [_pairs(40, 8), ListCorpus("text", (), "none")]
  prepare(tmp_path / "few", **OPEN | {"corpora": corpora})
  assert capsys.readouterr().out.splitlines() == [
    f"Prepared {tmp_path / 'few'}",
    "train: kept 80 of 96 sentences; dropped 16: wrong_script 16",
  ]
  prepare(tmp_path / "many", **OPEN | {"corpora": [_pairs(39, 11)]})
  said = capsys.readouterr().out.splitlines()
  assert said[1:-1] == [
    "train: kept 78 of 100 sentences; dropped 22: wrong_script 22"
  ]
  assert said[-1].startswith(
    "WARNING: en-de.tsv, en-de: 22 of 100 sentences (22 %) were dropped:"
    " wrong_script 22"
  )
  # The folder is used as it is.
  prepare(tmp_path / "many", **OPEN | {"corpora": [_pairs(39, 11)]})
  assert capsys.readouterr().out == ""


def test_all_dropped(tmp_path):
  with pytest.raises(InputError, match=r"all were dropped \(wrong_script 40\)"):
    prepare(tmp_path / "none", **OPEN | {"corpora": [_pairs(0, 20)]})


def test_no_pairs_are_left(tmp_path):
  texts = ({"text": "a house", "language": "en"},)
  corpora = [_pairs(0, 20), ListCorpus("text", texts, "en.txt")]
  out = prepare(tmp_path / "texts", **OPEN | {"corpora": corpora})
  with pytest.raises(InputError, match="wrong_script 40"):
    check_enough(_stream(PairStream, 4), Store(out / "train"))
