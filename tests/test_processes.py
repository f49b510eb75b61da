"""Two processes on one machine train what one process trains."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from infoxlm_jax import processes
from infoxlm_jax.errors import InputError

_PROGRAM = """
import sys
from dataclasses import replace
from infoxlm_jax import partitioning, processes, train
from small_run import options
processes.start(sys.argv[2])
eight = {
  name: replace(stream, batch=8, rows=8)
  for name, stream in options(sys.argv[1])["streams"].items()
}
train.pretrain(**options(
  sys.argv[1], streams=eight, groups=8, steps=4, save_every=2,
  mesh=partitioning.make_mesh,
))
"""


def _start(folder, plain_env, devices, setting=""):
  flag = f"--xla_force_host_platform_device_count={devices}"
  tests = str(Path(__file__).parent)
  return subprocess.Popen(
    [sys.executable, "-c", _PROGRAM, str(folder), setting],
    env=plain_env | {"XLA_FLAGS": flag, "PYTHONPATH": tests},
    cwd=Path(__file__).parent.parent,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def _finish(process):
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output[-3000:]


@pytest.mark.slow
def test_two_processes_are_one(tmp_path, plain_env):
  _finish(_start(tmp_path / "one", plain_env, 8))
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  both = [
    _start(tmp_path / "two", plain_env, 4, f"{address},2,{number}")
    for number in (0, 1)
  ]
  for process in both:
    _finish(process)

  def losses(name):
    lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [row["train/loss"] for row in rows if "train/loss" in row]

  assert len(losses("one")) == 4
  np.testing.assert_allclose(losses("two"), losses("one"), rtol=3e-6)
  assert (tmp_path / "two" / "results.json").exists()


@pytest.mark.parametrize("setting", ["yes", "host:1,2", "host:1,two,0"])
def test_a_setting_of_another_form_is_refused(setting):
  with pytest.raises(InputError, match="HOST:PORT,COUNT,NUMBER"):
    processes.start(setting)
