"""gin/runs/continue.gin: what is refused, when, and with which advice."""

import json
import logging
import re
import shlex
import sys
import types

import gin.config
import pytest
import small_run

from infoxlm_jax import gin_utils
from infoxlm_jax.data.corpora.file_names import language_of
from infoxlm_jax.data.corpora.sources import TextFiles, Tsv
from infoxlm_jax.errors import InputError
from infoxlm_jax.main import main
from infoxlm_jax.training import setup

CONTINUE = "gin/runs/continue.gin"
SMALL = ["--gin.MODEL_DIR=run", "--gin.GROUPS=8", "--gin.ROW_LENGTH=72"]
SMALL += ["--gin.CONTRAST_LAYER=2"]
QUICKSTART = ["--gin_file=gin/quickstart.gin", "--dry_run"]


@pytest.fixture(autouse=True)
def _leave_no_traces(monkeypatch, tmp_path):
  monkeypatch.setenv("INFOXLM_COMPILATION_CACHE", "")
  monkeypatch.chdir(tmp_path)
  yield
  gin.config.clear_config()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
  return small_run.hugging_face(tmp_path_factory.mktemp("weights") / "encoder")


@pytest.fixture
def files(tmp_path):
  (tmp_path / "de.txt").write_text("Ein Satz.\n")
  (tmp_path / "en-fr.tsv").write_text("A sentence.\tUne phrase.\n")


@pytest.mark.parametrize(
  ("arguments", "parts"),
  [
    (["--gin.MONO=de.txt"], ("PAIRS is not set", "--gin.PAIRS=")),
    (["--gin.PAIRS=en-fr.tsv"], ("MONO is not set", "--gin.MONO=")),
    (["--gin.MONO=no.txt", "--gin.PAIRS=en-fr.tsv"], ("no.txt",)),
    (["--gin.MONO=de.txt", "--gin.PAIRS='no/en-*.tsv'"], ("no/en-*.tsv",)),
    (["--gin.DATA=nowhere"], ("nowhere",)),
    (
      ["--gin.MONO=de.txt", "--gin.PAIRS=en-fr.tsv", "--gin.TOKENIZER=no.spm"],
      ("no.spm",),
    ),
  ],
)
def test_paths_are_looked_at_before_the_weights_are_read(
  arguments, parts, weights, files, monkeypatch, capsys
):
  def read(*unused):
    raise AssertionError("the weights were read")

  monkeypatch.setattr(setup, "read_weights", read)
  command = [f"--gin_file={CONTINUE}", f"--gin.INIT_FROM={weights}", *SMALL]
  assert main([*command, *arguments]) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ") and error.count("\n") == 1
  for part in parts:
    assert part in error


def test_what_is_advised_can_be_set(tmp_path):
  """Each --gin.NAME that a reader of MONO or PAIRS names is one here."""
  (tmp_path / "three.en-fr.tsv").write_text("1\ta\tb\n")
  (tmp_path / "two.tsv").write_text("a\tb\n")
  said = []
  for refuse in (
    lambda: list(Tsv("three.en-fr.tsv").examples("train")),
    lambda: list(Tsv("two.tsv").examples("train")),
    lambda: language_of(tmp_path / "text.txt"),
  ):
    with pytest.raises(InputError) as caught:
      refuse()
    said += re.findall(r"--gin\.(\w+)=", str(caught.value))
  assert said == ["COLUMNS", "LANGUAGES", "LANGUAGE"]
  config = gin_utils.load(
    [CONTINUE],
    ["--gin.INIT_FROM=e5", "--gin.MODEL_DIR=run", "--gin.MONO=text.txt"]
    + ["--gin.LANGUAGE=de", "--gin.PAIRS=three.tsv", "--gin.COLUMNS=(2, 3)"]
    + ["--gin.LANGUAGES=('en', 'fr')", "--gin.PREFIX=query: "],
  )
  stream = config.macro("STREAMS")["xlco"].scoped_configurable_fn()
  assert stream.prefix == "query: "
  corpora = [
    reference.scoped_configurable_fn() for reference in config.macro("CORPORA")
  ]
  assert corpora == [
    TextFiles("text.txt", language="de"),
    Tsv("three.tsv", (2, 3), ("en", "fr")),
  ]


@pytest.mark.parametrize(
  "argument", ["--gin.PEAK_RATE=-1", "--gin.WARMUP_STEPS=-5"]
)
def test_rates_that_cannot_be(argument, capsys):
  assert main([*QUICKSTART, argument]) == 2
  name, _, value = argument.removeprefix("--gin.").partition("=")
  error = capsys.readouterr().err
  assert f"={value}" in error and name in error and error.count("\n") == 1


def test_a_dry_run_tells_the_configuration_on_request(capsys):
  assert main([*QUICKSTART, "--print_config"]) == 0
  answer, _, configuration = capsys.readouterr().out.partition("\n\n")
  assert answer.startswith("parameters ")
  assert "options.RunOptions.steps = %STEPS" in configuration


@pytest.mark.parametrize(("steps", "warns"), [(100, True), (102, False)])
def test_a_warm_up_as_long_as_the_run_is_said(steps, warns, caplog):
  """The quickstart warms up for 100 updates."""
  with caplog.at_level(logging.WARNING):
    assert main([*QUICKSTART, f"--gin.STEPS={steps}"]) == 0
  assert ("WARMUP_STEPS" in caplog.text) == warns


def test_the_line_for_wandb(root, tmp_path, monkeypatch):
  """The command of docs/continue.md, with a module that keeps the rows."""
  page = (root / "docs" / "continue.md").read_text()
  (line,) = re.findall(r"^    (python -c .*wandb.*)$", page, re.MULTILINE)
  rows = [
    {"step": 0, "time": 1.0, "dev/mlm/loss": 9.5, "crc": 7},
    {"step": 10, "time": 2.0, "train/loss": None, "non_finite": {"x": "nan"}},
  ]
  (tmp_path / "runs" / "mine").mkdir(parents=True)
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (tmp_path / "runs" / "mine" / "metrics.jsonl").write_text(text)
  logged = []
  run = types.SimpleNamespace(log=lambda row, step: logged.append((step, row)))
  wandb = types.SimpleNamespace(init=lambda project: run)
  monkeypatch.setitem(sys.modules, "wandb", wandb)
  exec(shlex.split(line)[2], {})
  assert logged == [
    (0, {"step": 0, "time": 1.0, "dev/mlm/loss": 9.5}),
    (10, {"step": 10, "time": 2.0}),
  ]
