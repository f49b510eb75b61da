"""Several processes of one machine are one run: they start, write, stop and
fail together.
"""  # noqa: D205

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_corpus

from infoxlm_jax.checkpoint import examine
from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime import distributed
from infoxlm_jax.runtime.signals import Stopped

ROOT = Path(__file__).resolve().parents[2]
# As main does it, for options that are no gin file. FOLDER SETTING OPTIONS
_PROGRAM = """
import json, os, sys, traceback
from dataclasses import replace
import jax
from infoxlm_jax import errors
from infoxlm_jax.checkpoint.small_files import FilesHandler
from infoxlm_jax.model import partitioning
from infoxlm_jax.runtime import distributed, signals
from infoxlm_jax.training import pretrain
from infoxlm_jax.training.train_log import TrainingLog
from small_run import options

jax.config.update("jax_disable_most_optimizations", True)
folder, setting, more = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
who, at, number = more.pop("signal", (-1, -1, 0))
add = TrainingLog.add
def counted(self, update, *rest):
  if update == at and jax.process_index() == who:
    os.kill(os.getpid(), number)
  add(self, update, *rest)
TrainingLog.add = counted
fails, save = more.pop("fails", -1), FilesHandler.save
def failing(handler, directory, args):
  global fails
  if fails == jax.process_index():
    fails = -1
    raise OSError(28, "No space left on device")
  save(handler, directory, args)
FilesHandler.save = failing

def run():
  distributed.start(setting)
  own = more.pop("folders", {}).get(str(jax.process_index()), folder)
  if more.pop("prepares", False):
    import small_corpus, shutil
    def prepare(output):
      print("preparing in process", jax.process_index())
      if os.environ.get("BROKEN"):
        raise errors.InputError("the corpus is broken")
      shutil.copytree(small_corpus.prepared(), output)
    more.update(data=None, prepare=prepare)
  eight = {
    name: replace(stream, batch=8, rows=8)
    for name, stream in options(own)["streams"].items()
  }
  pretrain.pretrain(**options(
    own, streams=eight, groups=8, mesh=partitioning.MeshShape(), **more
  ))

code = 0
try:
  run()
except signals.Stopped as stopped:
  code = stopped.code
except errors.InputError as error:
  print("error:", error)
  code = 2
except Exception:
  traceback.print_exc()
  code = 1
sys.exit(distributed.leave(code))
"""
# What process 0 alone writes; the rest of the folder are checkpoints.
_WRITTEN = {"identity.json", "environment.json", "metrics.jsonl", "rows.json"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
  """Where the processes of this module keep compiled programs."""
  return {
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }


@pytest.fixture
def run(tmp_path, plain_env, compiled):
  """Starts the processes of one run; returns their exit codes and outputs."""

  def start(folder, count, devices, environment=(), **more):
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{free.getsockname()[1]}"
    flag = f"--xla_force_host_platform_device_count={devices}"
    path = f"{ROOT}:{ROOT / 'tests'}"
    env = plain_env | compiled | {"XLA_FLAGS": flag, "PYTHONPATH": path}
    more = {"steps": 4, "data": str(small_corpus.prepared())} | more
    started = [
      subprocess.Popen(
        [
          sys.executable,
          *("-c", _PROGRAM, str(tmp_path / folder)),
          f"{address},{count},{number}" if count > 1 else "",
          json.dumps(more),
        ],
        env=env | dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )
      for number in range(count)
    ]
    outputs = [process.communicate(timeout=900)[0] for process in started]
    return [process.returncode for process in started], outputs

  return start


def losses(folder):
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return {r["step"]: r["train/loss"] for r in rows if "train/loss" in r}


def same(actual, expected, **tolerance):
  assert list(actual) == list(expected)
  np.testing.assert_allclose(
    list(actual.values()), list(expected.values()), **tolerance
  )


@pytest.mark.slow
def test_two_and_four_processes_are_one(run, tmp_path):
  for count in (1, 2, 4):
    codes, outputs = run(str(count), count, 8 // count, prepares=True)
    assert codes == [0] * count, outputs
    # Only one prepares, and the others wait for it.
    made = [n for n in range(count) if "preparing in" in outputs[n]]
    assert made == [0]
    # Only one writes what is not a checkpoint.
    folder = tmp_path / str(count)
    assert {path.name for path in folder.iterdir()} >= _WRITTEN
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    assert sum("train/loss" in row for row in rows) == 4
    about = json.loads((folder / "environment.json").read_text())
    assert about["processes"] == count
    assert json.loads((folder / "results.json").read_text())["finished"]
    assert not list(folder.glob(".*"))
  for count in (2, 4):
    same(losses(tmp_path / str(count)), losses(tmp_path / "1"), rtol=3e-6)


@pytest.mark.slow
def test_a_signal_to_one_stops_all_at_one_update(run, tmp_path):
  codes, outputs = run("whole", 2, 1, steps=9)
  assert codes == [0, 0], outputs
  codes, outputs = run("two", 2, 1, steps=9, signal=[1, 4, 15])
  assert codes == [75, 75], outputs
  assert "SIGTERM" in outputs[1] and "SIGTERM" not in outputs[0]
  # Given at update 4, heard by all at update 5.
  assert [p.name for p in (tmp_path / "two/checkpoints").iterdir()] == ["5"]
  shutil.copytree(tmp_path / "two", tmp_path / "one")
  for count, name in ((2, "two"), (1, "one")):
    # The save of update 7 fails in process 1; the one of update 9 goes well.
    more = {"fails": 1, "save_every": 7} if count == 2 else {}
    codes, outputs = run(name, count, 1, steps=9, **more)
    assert codes == [0] * count, outputs
    assert "going on after update 5" in outputs[0]
    same(losses(tmp_path / name), losses(tmp_path / "whole"), rtol=3e-6)
    if count == 2:
      assert "9 could not be written ([Errno 28] No space" in outputs[1]
      assert "(process 1 of 2 failed" in outputs[0]
  pair = (tmp_path / name for name in ("whole", "two"))
  assert list(examine.differences(*pair)) == []


@pytest.mark.slow
@pytest.mark.parametrize("dies", [0, 1])
def test_a_process_that_dies_takes_the_others_along(run, dies):
  codes, outputs = run("run", 2, 1, steps=1000, signal=[dies, 3, 9])
  assert codes[dies] == -9
  # jax's abort, or the error of a collective: both mean a new start.
  assert codes[1 - dies] in (-6, 4), outputs[1 - dies]


@pytest.mark.slow
def test_a_folder_of_ones_own_is_not_shared(run, tmp_path):
  own = {"1": str(tmp_path / "elsewhere")}
  codes, outputs = run("run", 2, 1, folders=own)
  assert codes == [2, 2], outputs
  for output in outputs:
    assert "not the same folder for all 2 processes: [1]" in output
  assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.slow
def test_bad_data_at_process_0_ends_all_with_its_code(run):
  codes, outputs = run(
    "run", 2, 1, prepares=True, environment={"BROKEN": "yes"}
  )
  assert codes == [2, 2], outputs
  assert "the corpus is broken" in outputs[0]
  assert "process 0 of 2 failed at preparing the data" in outputs[1]


@pytest.mark.slow
def test_two_of_three_leave_after_a_minute(plain_env, tmp_path):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  command = [
    *(sys.executable, "-m", "infoxlm_jax.main"),
    "--gin_file=gin/quickstart.gin",
    f"--gin.MODEL_DIR={tmp_path / 'run'}",
  ]
  started = [
    subprocess.Popen(
      [*command, f"--distributed={address},3,{number}"],
      # The first line of stderr is to be the error.
      env=plain_env | {"INFOXLM_HUGE_PAGES": "0"},
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in (0, 2)
  ]
  for process in started:
    _, errors = process.communicate(timeout=150)
    assert process.returncode == 2
    assert errors.startswith("error: process 1 of 3 is missing: process 0")
  assert not (tmp_path / "run").exists()


def test_a_setting_of_another_form_is_refused():
  with pytest.raises(InputError, match="HOST:PORT,COUNT,NUMBER"):
    distributed.start("yes")


def test_one_process_is_left_alone(tmp_path):
  """Nothing is exchanged, delayed or renamed."""
  distributed.start("")
  distributed.start("127.0.0.1:9,1,0")
  distributed.check_shared(tmp_path / "absent", "MODEL_DIR")
  agreed = distributed.Agreement()
  assert [agreed(None), agreed(75), agreed(130)] == [None, 75, 130]
  for error in (InputError("x"), StorageError("y"), Stopped(75), KeyError(1)):
    with pytest.raises(type(error)) as caught, distributed.together("trying"):
      raise error
    assert caught.value is error
  assert [distributed.leave(code) for code in (0, 2, 75)] == [0, 2, 75]
