"""The command infoxlm-encode: a line is a text is a vector."""

import io
import json
import re
import sys

import numpy as np
import pytest
import small_model

import infoxlm_jax
from infoxlm_jax.cli.encode import main

TEXTS = [
  "In the beginning God created the heavens and the earth.",
  "",
  "Wort",
  "Am Anfang schuf Gott Himmel und Erde. " * 5,
  "元始に神天地を創造たまへり",
]


@pytest.fixture(scope="module")
def model():
  return infoxlm_jax.load(small_model.folder(), devices=1)


@pytest.mark.parametrize("name", ["v.npy", "v.jsonl"])
def test_a_vector_a_line(model, tmp_path, capsys, name):
  source = tmp_path / "texts.txt"
  texts = [*TEXTS, "U+2028\u2028stays in its line"]
  source.write_text("\n".join(texts), encoding="utf-8")
  output = tmp_path / name
  argv = ["--model", str(small_model.folder()), "--input", str(source)]
  argv += ["--layer", "2", "--pooling", "mean_all", "--output", str(output)]
  assert main(argv) == 0
  assert capsys.readouterr().out == f"written: {output} (6 vectors of 32)\n"
  if name.endswith("npy"):
    found = np.load(output)
  else:
    lines = output.read_text().splitlines()
    found = np.array([json.loads(line) for line in lines], np.float32)
  expected = model.encode(texts, layer=2, pooling="mean_all")
  np.testing.assert_allclose(found, expected, atol=2e-6)
  assert found.dtype == np.float32
  assert main(argv) == 2  # an existing output
  assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
    [name, "texts.txt"]
  )


def test_standard_streams(model, capsysbinary, monkeypatch):
  class Stdin:
    buffer = io.BytesIO(b"zwei\ndrei")

  monkeypatch.setattr(sys, "stdin", Stdin)
  argv = ["--model", str(small_model.folder()), "--input", "-", "--output", "-"]
  assert main(argv) == 0
  lines = capsysbinary.readouterr().out.decode().splitlines()
  found = np.array([json.loads(line) for line in lines])
  expected = model.encode(["zwei", "drei"])
  np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"--output": "v.txt"}, "written as .npy or .jsonl"),
    ({"--input": "absent.txt"}, "absent.txt"),
    ({"--model": "absent"}, "absent"),
    ({"--pooling": "max"}, "none of mean, mean_all, first"),
    ({"--layer": "9"}, "layer 9"),
    ({"--batch_tokens": "many"}, "--batch_tokens: invalid int value: 'many'"),
    ({"--batch_tokens": "0"}, "batch_tokens = 0"),
    ({"--output": "texts.txt/v.npy"}, "texts.txt is no folder"),
    ({"--output": "no/such/v.npy"}, "cannot be written"),
    ({"--input": "broken.txt"}, "line 2.*not UTF-8"),
  ],
)
def test_bad_input_is_one_line_and_writes_nothing(
  tmp_path, monkeypatch, refused, changes, message
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "texts.txt").write_text("one\n")
  (tmp_path / "broken.txt").write_bytes(b"one\n\xff\n")
  options = {
    "--model": small_model.folder(),
    "--input": "texts.txt",
    "--output": "v.npy",
  } | changes
  error = refused(main, *(word for pair in options.items() for word in pair))
  assert re.search(message, error)
  assert len(list(tmp_path.iterdir())) == 2
