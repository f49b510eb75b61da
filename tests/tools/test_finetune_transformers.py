"""The program in transformers that fine-tuning is compared with."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import small_model

pytestmark = pytest.mark.parity

WORDS = {"heaven": "himmel", "earth": "erde"}


def _write(path, random, words, count):
  """A line's class is its first word."""
  lines = []
  for _ in range(count):
    label = random.integers(2)
    lines.append(f"{'ab'[label]}\t{words[label]} and {random.integers(99)}")
  path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_it_learns_what_can_be_learned_and_nothing_else(root, tmp_path):
  """A class that one word tells is learned; of unknown words it is chance."""
  random = np.random.default_rng(0)
  _write(tmp_path / "en.train.tsv", random, list(WORDS), 320)
  _write(tmp_path / "en.test.tsv", random, list(WORDS), 200)
  _write(tmp_path / "de.test.tsv", random, ["Wasser", "Wasser"], 200)
  out = subprocess.run(
    [
      *(sys.executable, str(root / "tools" / "finetune_transformers.py")),
      *("--model", str(small_model.folder()), "--output", "out"),
      *("--train", "en.train.tsv", "--test", "*.test.tsv"),
      *("--rate", "3e-3", "--epochs", "4", "--seeds", "0", "1"),
    ],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert out.returncode == 0, out.stderr
  report = json.loads((tmp_path / "out" / "results.json").read_text())
  assert json.loads(out.stdout.splitlines()[-1]) == report
  # A tenth of 320 examples is held out, as by our job.
  assert report["updates"] == [math.ceil(4 * 288 / 32)] * 2
  assert min(report["accuracy"]["en"]) > 95
  assert 35 < np.mean(report["accuracy"]["de"]) < 65
  assert report["accuracy"]["en"] != report["accuracy"]["de"]
