"""gin/baselines that continue XLM-R: each file's command, whole and in small.

A new file needs a line in METRICS: the losses that it must report.
"""

import json
import math
import shlex
from pathlib import Path

import gin.config
import pytest
import small_corpus
import small_run

from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.main import main
from infoxlm_jax.runtime.metrics import read_metrics

FOLDER = Path(__file__).resolve().parent.parent / "gin" / "baselines"
# A model of 2 layers from random weights, two updates, one device.
SMALL = (
  "INIT_FROM=None",
  "STEPS=2",
  "WARMUP_STEPS=1",
  "GROUPS=2",
  "MICROBATCHES=1",
  "BATCH=4",
  "ROW_LENGTH=96",
  "PAIR_ROW_LENGTH=96",
  "MLM_ROWS=4",
  "TLM_ROWS=4",
  "XLCO_ROWS=4",
  "CONTRAST_LAYER=1",
  "DTYPE=float32",
  "REMAT=none",
  "contrast.Contrast.queue_size=8",
  "config.EncoderConfig.num_layers=2",
  "config.EncoderConfig.hidden_size=16",
  "config.EncoderConfig.num_heads=2",
  "config.EncoderConfig.ffn_size=32",
  "config.EncoderConfig.max_positions=96",
  "options.EvaluationOptions.batches=1",
  "options.RunOptions.log_every=1",
  "partitioning.make_mesh.data=1",
  "partitioning.make_mesh.devices=1",
)
_MLM_TLM = ("mlm/loss", "tlm/loss")
_ALL = (*_MLM_TLM, "xlco/loss")
METRICS = {
  "infoxlm": _ALL,
  "infoxlm_float16_keys": _ALL,
  "infoxlm_frozen_keys": _ALL,
  "infoxlm_layer_12": _ALL,
  "infoxlm_layer_4": _ALL,
  "infoxlm_no_mixup": _ALL,
  "infoxlm_no_momentum": _ALL,
  "infoxlm_no_tlm": ("mlm/loss", "xlco/loss"),
  "infoxlm_no_xlco": _MLM_TLM,
  "infoxlm_per_task_mean": _ALL,
  "infoxlm_queue_16384": _ALL,
  "unicoder": _MLM_TLM,
  "xlm_align": ("mlm/loss", "alignment/loss"),
}
# What only one file has.
MORE = {"xlm_align": ("ALIGNMENT_LAYER=1",)}
# The others differ from these in a number.
QUICK = ("infoxlm", "infoxlm_no_momentum", "unicoder", "xlm_align")
FILES = [
  pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
  for name in METRICS
]


@pytest.fixture(autouse=True)
def _leave_no_traces(monkeypatch):
  """No folder of compiled programs, no configuration."""
  monkeypatch.setenv("INFOXLM_COMPILATION_CACHE", "")
  yield
  gin.config.clear_config()


@pytest.fixture(scope="module", autouse=True)
def _quick(tmp_path_factory):
  with small_run.compiled_once(tmp_path_factory.mktemp("programs")):
    yield


def command(name: str) -> list[str]:
  """The arguments in the first comment of a file."""
  first = (FOLDER / f"{name}.gin").read_text("utf-8").partition("\n")[0]
  words = shlex.split(first.removeprefix("# "))
  assert words[:3] == ["python", "-m", "infoxlm_jax.main"]
  assert words[3] == f"--gin_file=gin/baselines/{name}.gin"
  return words[3:]


def test_every_ablation_has_a_line():
  assert {path.stem for path in FOLDER.glob("infoxlm*.gin")} <= set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_it_builds_at_full_size(name, capsys):
  """The shapes and the cost of its command; the data need not be there."""
  needless = ("--gin.DATA=", "--gin.INIT_FROM=", "--gin.MODEL_DIR=")
  words = [w for w in command(name) if not w.startswith(needless)]
  assert main([*words, "--dry_run"]) == 0, capsys.readouterr()


@pytest.mark.parametrize("name", FILES)
def test_it_trains(name, tmp_path, capsys):
  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  folder = tmp_path / "run"
  arguments = [
    *command(name),
    f"--gin.DATA={small_corpus.prepared()}",
    f"--gin.MODEL_DIR={folder}",
    *(f"--gin.{option}" for option in (*SMALL, *MORE.get(name, ()))),
    f"--gin.config.EncoderConfig.vocab_size={tokenizer.vocab_size}",
  ]
  assert main(arguments) == 0, capsys.readouterr().err
  assert json.loads((folder / "results.json").read_text())["steps"] == 2
  rows = [row for row in read_metrics(folder) if "train/loss" in row]
  assert [row["step"] for row in rows] == [1, 2]
  for row in rows:
    assert math.isfinite(row["train/loss"])
    losses = {n for n in row if n.startswith("train/") and n.endswith("/loss")}
    losses.remove("train/loss")
    assert losses == {f"train/{metric}" for metric in METRICS[name]}
    assert all(math.isfinite(row[name]) for name in losses)
