"""A vocabulary cut to what a corpus uses: same vectors, fewer rows."""

import numpy as np
import pytest
import small_corpus
import small_model

import infoxlm_jax
from infoxlm_jax.checkpoint.exporters import export, trim_vocabulary
from infoxlm_jax.checkpoint.exporters.model_card import About

ABOUT = About("test")


def _texts(language):
  return [row[language] for row in small_corpus.table() if row[language]]


def test_a_trimmed_model_gives_the_same_vectors_on_its_corpus(tmp_path):
  corpus = tmp_path / "corpus.txt"
  texts = [*_texts("en"), *_texts("ja"), "unknown: \u1401"]
  corpus.write_text("\n".join(texts), encoding="utf-8")
  whole = small_model.source()
  trimmed, saved = trim_vocabulary.trim_vocabulary(whole, [corpus], "query: ")
  assert saved.before == 8010
  assert trimmed.config.vocab_size == saved.after < 3000
  # A row of the table and of the output bias for every id.
  assert saved.bytes == 4 * 33 * (saved.before - saved.after)
  outputs = []
  for name, one in (("whole", whole), ("trimmed", trimmed)):
    export.export_transformers(one, tmp_path / name, ABOUT, check=False)
    outputs.append(infoxlm_jax.load(tmp_path / name, devices=1))
  before, after = outputs
  for text in (*texts, "query: " + texts[0]):
    assert after.pieces(text) == before.pieces(text)
  for prefix in ("", "query: "):
    np.testing.assert_allclose(
      after.encode(texts, prefix=prefix),
      before.encode(texts, prefix=prefix),
      atol=1e-6,
    )
  assert "was cut to" in (tmp_path / "trimmed" / "README.md").read_text()
  sizes = [
    (tmp_path / name / "model.safetensors").stat().st_size
    for name in ("whole", "trimmed")
  ]
  assert sizes[0] - sizes[1] == pytest.approx(saved.bytes, abs=1000)


def test_cells_of_a_table_are_texts_of_their_own(tmp_path):
  table = tmp_path / "corpus.tsv"
  table.write_text("en\tde\nGod\tGott\n")
  plain = tmp_path / "corpus.txt"
  plain.write_text("a\tb\n")
  assert list(trim_vocabulary.texts_of([table, plain], "q: ")) == [
    text
    for cell in ("en", "de", "God", "Gott", "a\tb")
    for text in (cell, "q: " + cell)
  ]
