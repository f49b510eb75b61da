"""Documents: blank lines, segments, neighbours, and their records."""

import numpy as np
import pytest
import small_corpus

from infoxlm_jax.data.corpora.documents import (
  Documents,
  adjacent,
  read_documents,
  segments,
)
from infoxlm_jax.data.prepare.filters import Cleaning
from infoxlm_jax.data.prepare.pipeline import prepare
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError


def test_blank_lines_end_documents(tmp_path):
  path = tmp_path / "en.txt"
  path.write_text("\nA one.\nA two.\n \n\nB one.\n\nC one.\nC two.")
  assert list(read_documents(path)) == [
    ["A one.", "A two."],
    ["B one."],
    ["C one.", "C two."],
  ]


def test_text_without_boundaries_is_refused(tmp_path):
  path = tmp_path / "en.txt"
  path.write_text("A one.\nA two.\n")
  with pytest.raises(InputError, match=r"en\.txt has no blank line"):
    list(read_documents(path))


@pytest.mark.parametrize(
  ("size", "wanted"),
  [
    (1, ["ab", "cd", "é", "fghijkl"]),
    (5, ["ab cd", "é", "fghijkl"]),
    (7, ["ab cd", "é", "fghijkl"]),
    (8, ["ab cd é", "fghijkl"]),  # é has two bytes
    (16, ["ab cd é fghijkl"]),
  ],
)
def test_segments_are_filled_up_to_their_bytes(size, wanted):
  assert segments(["ab", "cd", "é", "fghijkl"], size) == wanted


@pytest.mark.parametrize(
  ("names", "wanted"),
  [
    ("", []),
    ("a", [("a", "")]),
    ("ab", [("a", "b")]),
    ("abc", [("a", "b"), ("b", "c")]),
    ("abcd", [("a", "b"), ("c", "d")]),
    ("abcde", [("a", "b"), ("c", "d"), ("d", "e")]),
  ],
)
def test_every_segment_has_a_neighbour(names, wanted):
  assert list(adjacent(names)) == wanted


def test_records_of_documents(tmp_path):
  path = tmp_path / "wiki.en.txt"
  path.write_text("One day.\nTwo days.\n\nAlone.\n\nA man.\nA woman.\nA son.\n")
  corpus = Documents(str(path), segment_bytes=1)
  folder = prepare(
    tmp_path / "out",
    **small_corpus.OPTIONS
    | {"corpora": (corpus,), "cleaning": Cleaning(max_ratio=None)},
  )
  store = Store(folder / "train")
  assert store.pair_counts == {("en", "en"): 3}
  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  pairs = store.read_pairs(("en", "en"), np.arange(3))
  assert {tuple(tokenizer.decode(s.tolist()) for s in p) for p in pairs} == {
    ("One day.", "Two days."),
    ("A man.", "A woman."),
    ("A woman.", "A son."),
  }
  # The document of one sentence is dropped, and counted.
  (counts,) = store.manifest.counts
  assert counts.dropped == {"empty": 2}


def test_options(tmp_path):
  with pytest.raises(InputError, match="segment_bytes = 0"):
    Documents(str(tmp_path / "en.txt"), segment_bytes=0)
