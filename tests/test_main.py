"""The command line, in processes of its own where that matters."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import gin.config
import jax
import pytest
import small_corpus

from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.main import main
from infoxlm_jax.runtime import signals
from infoxlm_jax.runtime.metrics import read_metrics
from infoxlm_jax.training import bad_updates

QUICKSTART = "--gin_file=gin/quickstart.gin"
# A model that compiles fast; everything else is the quickstart's.
SMALL = (
  "--gin.config.EncoderConfig.num_layers=2",
  "--gin.config.EncoderConfig.unroll=1",
  "--gin.config.EncoderConfig.hidden_size=16",
  "--gin.config.EncoderConfig.num_heads=2",
  "--gin.config.EncoderConfig.ffn_size=32",
  "--gin.EvaluationOptions.batches=1",
  "--gin.RunOptions.log_every=1",
)
# Says at the end which slow packages came in, whatever the exit code.
PROBE = """
import sys
from infoxlm_jax.main import main
try:
  code = main(sys.argv[1:])
except SystemExit as exit:
  code = exit.code
slow = {"tensorflow", "seqio", "tensorflow_datasets"} & set(sys.modules)
print("slow packages:", sorted(slow))
print("jax:", "jax" in sys.modules)
sys.exit(code)
"""


@pytest.fixture(autouse=True)
def _leave_no_traces(monkeypatch):
  """In this process: no folder of compiled programs, no configuration."""
  monkeypatch.setenv("INFOXLM_COMPILATION_CACHE", "")
  yield
  gin.config.clear_config()


@pytest.fixture
def quick_env(plain_env, tmp_path) -> dict[str, str]:
  """One device, programs compiled without most optimisations, a cache."""
  return plain_env | {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "INFOXLM_COMPILATION_CACHE": str(tmp_path / "compiled"),
    "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
  }


def command(*args: str) -> list[str]:
  return [sys.executable, "-c", PROBE, *args]


@pytest.fixture
def job(monkeypatch):
  """Stands for the training: raises what it is given, or does nothing."""

  def replace(error: BaseException | None = None) -> list[dict]:
    calls: list[dict] = []

    def pretrain(**options):
      calls.append(options)
      if error is not None:
        raise error

    monkeypatch.setattr(
      "infoxlm_jax.gin_utils.Configuration.job",
      lambda self, **options: pretrain(**options),
    )
    return calls

  return replace


@pytest.mark.parametrize(
  ("error", "code", "says"),
  [
    (None, 0, ""),
    (InputError("this is wrong"), 2, "error: this is wrong\n"),
    (StorageError("disk full"), 3, "error: disk full\n"),
    (bad_updates.Diverged("loss nan"), 1, "error: loss nan\n"),
    (signals.Stopped(75), 75, ""),
    (signals.Stopped(130), 130, ""),
    (KeyboardInterrupt(), 130, ""),
  ],
)
def test_exit_codes(job, capsys, error, code, says):
  calls = job(error)
  assert main([QUICKSTART, "--gin.MODEL_DIR=a"]) == code
  assert capsys.readouterr().err == says
  assert len(calls) == 1


@pytest.mark.parametrize(
  ("number", "code"),
  [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)],
)
def test_a_signal_before_the_first_update(monkeypatch, number, code):
  """No `except Exception` of what is under way takes it for an error."""

  def job(self, **unused):
    try:
      os.kill(os.getpid(), number)
      time.sleep(20)
    except Exception:
      pytest.fail("it was taken for an error")

  monkeypatch.setattr("infoxlm_jax.gin_utils.Configuration.job", job)
  # Tests that run in the background may have begun with them ignored.
  kinds = (signal.SIGTERM, signal.SIGHUP)
  before = [signal.signal(kind, signal.SIG_DFL) for kind in kinds]
  ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
  assert main([QUICKSTART, "--gin.MODEL_DIR=a"]) == code
  assert [signal.getsignal(kind) for kind in kinds] == [signal.SIG_DFL] * 2
  for kind, handler in zip(kinds, before, strict=True):
    signal.signal(kind, handler)
  signal.signal(signal.SIGINT, ctrl_c)


def test_out_of_memory_is_one_line_with_three_settings(job, capsys):
  with pytest.raises(jax.errors.JaxRuntimeError) as full:
    jax.numpy.zeros((1 << 45,)).block_until_ready()
  job(full.value)
  assert main([QUICKSTART, "--gin.MODEL_DIR=a"]) == 1
  (line,) = capsys.readouterr().err.splitlines()
  for word in ("memory", "MICROBATCHES", "REMAT", "LOGITS_CHUNK"):
    assert word in line


def test_other_errors_of_devices_keep_their_traceback(job):
  job(jax.errors.JaxRuntimeError("INTERNAL: something else"))
  with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
    main([QUICKSTART, "--gin.MODEL_DIR=a"])


def test_a_bug_keeps_its_traceback(job):
  job(ValueError("a bug"))
  with pytest.raises(ValueError, match="a bug"):
    main([QUICKSTART])


@pytest.mark.parametrize(
  ("args", "says"),
  [
    ([], "--gin_file=gin/quickstart.gin"),
    (["--gin_file=gin/quickstrat.gin"], "Did you mean gin/quickstart.gin?"),
    ([QUICKSTART, "--gin.STEPZ=4"], "did you mean STEPS?"),
    ([QUICKSTART, "--dry_rnu"], "did you mean --dry_run?"),
    ([QUICKSTART, "--print_config"], "--print_config goes with --dry_run"),
    ([QUICKSTART, "--gin.MODEL_DIR=2024"], "is a number"),
    ([QUICKSTART, "--gin.GROUPS=3", "--dry_run"], "3 groups"),
    ([QUICKSTART, "--gin.MODEL_DIR=gs://a/b"], "is an address"),
    ([QUICKSTART, "--gin.MODEL_DIR=/proc/1/x"], "cannot be written"),
    ([QUICKSTART, "--gin.LOSS_NORM=mean"], "loss_norm = 'mean'"),
    (
      [QUICKSTART, "--gin.contrast.Contrast.queue_size=0", "--dry_run"],
      "queue_size = 0",
    ),
  ],
)
def test_bad_input_is_one_line_and_two(
  args, says, capsys, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  assert main(args) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ") and error.count("\n") == 1
  assert says in error
  assert not list(tmp_path.iterdir())


def test_help_names_flags_and_codes(capsys):
  with pytest.raises(SystemExit) as leaving:
    main(["--help"])
  assert leaving.value.code == 0
  text = capsys.readouterr().out
  for part in ("--gin_file", "--gin.NAME=VALUE", "--dry_run", "quickstart"):
    assert part in text
  for code in (0, 1, 2, 3, 4, 75, 130):
    assert re.search(rf"\b{code} ", text), code


def test_help_imports_nothing_slow(quick_env):
  done = subprocess.run(
    command("--help"), env=quick_env, capture_output=True, text=True, timeout=60
  )
  assert done.returncode == 0, done.stderr
  assert "slow packages: []" in done.stdout and "jax: False" in done.stdout


def test_dry_run_imports_no_tensorflow(quick_env, tmp_path):
  done = subprocess.run(
    command(QUICKSTART, "--dry_run"),
    env=quick_env,
    cwd=tmp_path,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
  assert "slow packages: []" in done.stdout
  # The answer alone; the configuration comes after it, on request.
  assert done.stdout.startswith("parameters ")
  assert "bytes per device" in done.stdout
  assert "options.RunOptions.steps" not in done.stdout
  assert not list(tmp_path.iterdir())


def test_a_job_that_prepares_answers_a_dry_run_itself(
  capsys, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "en.txt").write_text("one sentence")
  args = ["--gin_file=gin/prepare/text.gin", "--gin.INPUT=en.txt"]
  args += [f"--gin.TOKENIZER={small_corpus.TOKENIZER}", "--gin.MODEL_DIR=out"]
  assert main([*args, "--dry_run"]) == 0
  said = capsys.readouterr().out
  assert "8,002 token ids" in said and "text: text_files-en.txt" in said
  assert os.listdir(tmp_path) == ["en.txt"]


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(quick_env, tmp_path):
  """A real process, from prepared records, which needs no TensorFlow."""
  folder = tmp_path / "run"
  options = [
    QUICKSTART,
    *SMALL,
    f"--gin.MODEL_DIR={folder}",
    f"--gin.DATA={small_corpus.prepared()}",
    "--gin.SAVE_EVERY=100000",
    "--gin.EVAL_EVERY=100000",
  ]
  process = subprocess.Popen(
    command(*options, "--gin.STEPS=90000"),
    env=quick_env,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    deadline = time.monotonic() + 240
    while not any("train/loss" in row for row in read_metrics(folder)):
      assert process.poll() is None, process.communicate()
      assert time.monotonic() < deadline
      time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=120)
  finally:
    process.kill()
  assert process.returncode == 75, error
  assert "SIGTERM: saving" in error and "slow packages: []" in out
  (saved,) = [int(name) for name in os.listdir(folder / "checkpoints")]
  assert saved >= 1
  done = subprocess.run(
    command(*options, f"--gin.STEPS={saved + 2}"),
    env=quick_env,
    capture_output=True,
    text=True,
    timeout=240,
  )
  assert done.returncode == 0, done.stderr
  assert f"going on after update {saved}" in done.stderr
  steps = [r["step"] for r in read_metrics(folder) if "train/loss" in r]
  assert steps == list(range(1, saved + 3))


@pytest.mark.slow
def test_quickstart_for_a_few_updates(quick_env, tmp_path):
  """The first screen's command, with its own data through seqio."""
  folder = tmp_path / "run"

  def start() -> str:
    args = [sys.executable, "-m", "infoxlm_jax.main", QUICKSTART, *SMALL]
    args += [f"--gin.MODEL_DIR={folder}", "--gin.STEPS=4", "--gin.EVAL_EVERY=2"]
    done = subprocess.run(
      args,
      env=quick_env,
      cwd=tmp_path,
      capture_output=True,
      text=True,
      timeout=540,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

  said = start()
  names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
  assert names >= {
    "results.json",
    "report.md",
    "metrics.jsonl",
    "config.gin",
    "operative_config.gin",
    "environment.json",
    "checkpoints/4",
  }
  assert any(re.match(r"tensorboard/events", name) for name in names)
  pictures = [name for name in names if re.match(r"figures/.*\.png$", name)]
  assert len(pictures) >= 4
  for name in pictures:
    assert (folder / name).read_bytes().startswith(b"\x89PNG")
  results = json.loads((folder / "results.json").read_text())
  assert results["steps"] == 4
  assert results["seconds"] > 0 and results["tokens"] > 0
  test = results["retrieval"]["test"]
  for direction in ("en_to_xx", "xx_to_en"):
    assert 0 <= test[direction]["mean"] <= 1
    assert len(test[direction]["by_language"]) == 9
  assert set(test) >= {"layer", "pooling"}
  assert "STEPS = 4" in (folder / "config.gin").read_text()
  rows = read_metrics(folder)
  for name in (
    "train/xlco/accuracy",
    "train/xlco/spread",
    "train/xlco/queue_similarity_old",
    "train/mlm/loss",
    "train/tlm/loss",
    "train/tokens_per_second",
  ):
    assert any(name in row for row in rows), name
  # Started again, the finished run says the same and computes nothing.
  again = start()
  assert "finished after 4 updates" in again
  for text in (said, again):
    assert "Retrieval on test" in text
  assert read_metrics(folder) == rows
