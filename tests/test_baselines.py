"""gin/baselines: each file's own command, at full size and in small.

A new file needs a line in SMALL: what it trains on, and what makes it small.
"""

import functools
import json
import math
import re
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import gin.config
import pytest
import small_corpus
import small_run
import small_tokenizers

from infoxlm_jax.checkpoint.importers.languages import languages_of
from infoxlm_jax.data.corpora.documents import Documents
from infoxlm_jax.data.prepare.filters import Cleaning
from infoxlm_jax.data.prepare.pipeline import prepare
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.main import main
from infoxlm_jax.runtime.metrics import read_metrics

FOLDER = Path(__file__).resolve().parent.parent / "gin" / "baselines"


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
  # Kept by the cache, removed when the process ends.
  return tempfile.TemporaryDirectory(prefix="infoxlm-test-")


def _folder(name: str) -> Path:
  return Path(_temporary().name) / name


@functools.cache
def documents() -> Path:
  """Verses of each language in documents of six, WordPiece."""
  texts, tokenizer = _folder("documents_text"), _folder("wordpiece")
  texts.mkdir()
  tokenizer.mkdir()
  (tokenizer / "vocab.txt").write_bytes(small_tokenizers.vocab_txt())
  rows = small_corpus.table()
  for language in ("de", "en"):
    lines = [row[language] for row in rows if row[language]]
    blocks = ["\n".join(lines[i : i + 6]) for i in range(0, len(lines), 6)]
    (texts / f"{language}.txt").write_text("\n\n".join(blocks), "utf-8")
  return prepare(
    _folder("documents"),
    **small_corpus.OPTIONS
    | {
      "tokenizer": tokenizer,
      "corpora": (Documents(str(texts / "*.txt"), segment_bytes=100),),
      "cleaning": Cleaning(max_ratio=None),
      "held_out": 2,
    },
  )


class Small(NamedTuple):
  """What a file trains on in this test.

  Attributes:
    data: makes the prepared folder that stands for DATA.
    options: settings after COMMON, without --gin.
    metrics: losses that it must report, all of them finite.
    parameters: of the model at full size, worked out by hand, with heads and
      a vocabulary of a multiple of 128; None: not compared.
    slow: whether training it is left to the slow tests, because other tests
      train the same parts.
  """

  data: Callable[[], Path]
  options: tuple[str, ...]
  metrics: tuple[str, ...]
  parameters: int | None = None
  slow: bool = False


# Whatever a file trains: a model of 2 layers, two updates, one device.
COMMON = (
  "STEPS=2",
  "WARMUP_STEPS=1",
  "GROUPS=2",
  "MICROBATCHES=1",
  "ROW_LENGTH=96",
  "DTYPE=float32",
  "REMAT=none",
  "config.EncoderConfig.num_layers=2",
  "config.EncoderConfig.hidden_size=16",
  "config.EncoderConfig.num_heads=2",
  "config.EncoderConfig.ffn_size=32",
  "config.EncoderConfig.max_positions=96",
  "options.EvaluationOptions.batches=1",
  "options.EvaluationOptions.examples=4",
  "options.RunOptions.log_every=1",
  "partitioning.MeshShape.data=1",
  "partitioning.MeshShape.devices=1",
)
_FOUR = ("BATCH=4",)
_XLM = (*_FOUR, "LANGUAGE_IDS=('de', 'en', 'fr', 'ja')")

_PAIRS = ("TLM_BATCH=6", "MAX_SIDE=40")
# Of the files that continue XLM-R; here from random weights.
_CONTINUED = (
  *_FOUR,
  "INIT_FROM=None",
  "PAIR_ROW_LENGTH=96",
  "MLM_ROWS=4",
  "TLM_ROWS=4",
  "XLCO_ROWS=4",
  "CONTRAST_LAYER=1",
  "contrast.Contrast.queue_size=8",
)
_MLM_TLM = ("mlm/loss", "tlm/loss")
_ALL = (*_MLM_TLM, "xlco/loss")
_VERSES = small_corpus.prepared
SMALL = {
  "mbert": Small(
    documents, _FOUR, ("bert/loss", "bert/next_loss"), 178_570_498
  ),
  "mbert_mlm_only": Small(
    _VERSES, _FOUR, ("mlm/loss",), 278_379_776, slow=True
  ),
  "xlm": Small(_VERSES, (*_XLM, *_PAIRS), ("xlm/loss",), 249_177_984),
  "xlm_100": Small(_VERSES, _FOUR, ("mlm/loss",), 571_778_944, slow=True),
  "xlm_mlm": Small(_VERSES, _XLM, ("mlm/loss",), 249_177_984, slow=True),
  "xlmr": Small(_VERSES, _FOUR, ("mlm/loss",), 278_379_776, slow=True),
  "infoxlm": Small(_VERSES, _CONTINUED, _ALL),
  "infoxlm_no_momentum": Small(_VERSES, _CONTINUED, _ALL, slow=True),
  "unicoder": Small(_VERSES, _CONTINUED, _MLM_TLM, slow=True),
  "unicoder_original": Small(
    _VERSES,
    (*_XLM, "INIT_FROM=None", "PAIR_ROWS=4", "MAX_SIDE=40"),
    tuple(
      f"{name}/loss"
      for name in ("mlm", "tlm", "recovery", "paraphrase", "mixed")
    ),
    # XLM's; two vectors of the attention, and a linear map to two classes.
    249_177_984 + 2 * 1024 + 2 * 1025,
    slow=True,
  ),
  "xlm_align": Small(
    _VERSES, (*_CONTINUED, "ALIGNMENT_LAYER=1"), ("mlm/loss", "alignment/loss")
  ),
  "infoxlm_no_tlm": Small(
    _VERSES, _CONTINUED, ("mlm/loss", "xlco/loss"), slow=True
  ),
  "infoxlm_no_xlco": Small(_VERSES, _CONTINUED, _MLM_TLM, slow=True),
} | {
  f"infoxlm_{name}": Small(_VERSES, _CONTINUED, _ALL, slow=True)
  for name in (
    "float16_keys",
    "frozen_keys",
    "layer_12",
    "layer_4",
    "no_mixup",
    "per_task_mean",
    "queue_16384",
  )
}


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


def of_tokenizer(folder: Path) -> list[str]:
  """Settings for a model that has the ids of a folder's tokenizer."""
  tokenizer = load_tokenizer(folder)
  ids = {
    f"{name}_id": getattr(tokenizer, f"{name}_id")
    for name in ("bos", "pad", "eos", "unk", "mask")
  }
  return [
    f"--gin.config.EncoderConfig.{name}={value}"
    for name, value in (ids | {"vocab_size": tokenizer.vocab_size}).items()
  ]


def test_every_file_has_a_line():
  assert {path.stem for path in FOLDER.glob("*.gin")} == set(SMALL)


def test_every_file_is_in_the_table_of_the_documents():
  document = (FOLDER.parents[1] / "docs" / "baselines.md").read_text("utf-8")
  rows = [line for line in document.splitlines() if line.startswith("| ")]
  in_table = {n for row in rows for n in re.findall(r"`(\w+)\.gin`", row)}
  assert {path.stem for path in FOLDER.glob("*.gin")} <= in_table


@pytest.mark.parametrize("name", SMALL)
def test_it_builds_at_full_size(name, capsys):
  """Its command with --dry_run; the data need not be there.

  Weights that are named must be, so INIT_FROM is left out, as docs/baselines.md
  says.
  """
  words = [w for w in command(name) if not w.startswith("--gin.INIT_FROM=")]
  assert main([*words, "--dry_run"]) == 0
  (line,) = re.findall(r"^parameters +([\d,]+)$", capsys.readouterr().out, re.M)
  if SMALL[name].parameters is not None:
    assert int(line.replace(",", "")) == SMALL[name].parameters


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=pytest.mark.slow if small.slow else ())
    for name, small in SMALL.items()
  ],
)
def test_it_trains(name, tmp_path, capsys):
  data, options, metrics = SMALL[name][:3]
  folder = tmp_path / "run"
  arguments = [
    *command(name),
    f"--gin.DATA={data()}",
    f"--gin.MODEL_DIR={folder}",
    *(f"--gin.{option}" for option in COMMON),
    *of_tokenizer(data()),
    *(f"--gin.{option}" for option in options),
  ]
  assert main(arguments) == 0, capsys.readouterr().err
  assert json.loads((folder / "results.json").read_text())["steps"] == 2
  rows = [row for row in read_metrics(folder) if "train/loss" in row]
  assert [row["step"] for row in rows] == [1, 2]
  for row in rows:
    assert math.isfinite(row["train/loss"])
    assert all(math.isfinite(row[f"train/{metric}"]) for metric in metrics)
    trained = {name for name in row if re.fullmatch(r"train/\w+/loss", name)}
    assert trained == {f"train/{m}" for m in metrics if m.endswith("/loss")}


def test_xlm_reports_the_epochs_of_both_streams(tmp_path):
  """After three updates: two batches of MLM, and one of TLM."""
  small = SMALL["xlm"]
  options = (*COMMON, *small.options, "STEPS=3")
  arguments = [
    *command("xlm"),
    f"--gin.DATA={small.data()}",
    f"--gin.MODEL_DIR={tmp_path / 'run'}",
    *(f"--gin.{option}" for option in options),
    *of_tokenizer(small.data()),
  ]
  assert main(arguments) == 0
  assert languages_of(tmp_path / "run") == ("de", "en", "fr", "ja")
  last = read_metrics(tmp_path / "run")[-1]
  for part in ("mlm", "tlm"):
    for language in ("de", "en", "fr", "ja", "mean"):
      assert last[f"dev/xlm/{part}/perplexity/{language}"] > 1
  store = Store(small.data() / "train")
  seen = {"mlm": 0.0, "tlm": 0.0}
  for name, counts in (("mlm", store.text_counts), ("tlm", store.pair_counts)):
    for corpus, count in counts.items():
      label = corpus if isinstance(corpus, str) else "-".join(corpus)
      seen[name] += last[f"data/xlm/{name}/epochs/{label}"] * count
  assert seen == pytest.approx({"mlm": 8, "tlm": 6})
