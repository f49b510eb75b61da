"""A save that fails in one process of two is tried once more in both."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from infoxlm_jax.checkpoint.manager import Checkpoints
from infoxlm_jax.training.state import TrainState

ROOT = Path(__file__).resolve().parents[2]


def arrays(step: int) -> TrainState:
  """What saves_in_two_processes.py saves."""
  draw = np.random.default_rng(step)
  halves = draw.normal(size=(8, 4)).astype(np.float32)
  whole = draw.normal(size=(3,)).astype(np.float32)
  return TrainState(
    step=np.int32(step),
    params={"halves": halves, "whole": whole},
    opt_state=(),
    objective_state={},
    rng=np.zeros(2, np.uint32),
  )


def assert_intact(folder: Path, steps: list[int]) -> None:
  """There are these checkpoints, each with the bits that it should have."""
  names = {path.name for path in folder.iterdir()}
  assert {int(name) for name in names if name.isdecimal()} == set(steps)
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  for step in reversed(steps):  # restoring one sets later ones aside
    like = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
      arrays(step),
    )
    with Checkpoints(folder) as checkpoints:
      restored = checkpoints.restore(like, before=step + 1)
    assert restored is not None
    state, files = restored
    same = jax.tree.map(np.array_equal, state, arrays(step))
    assert all(jax.tree.leaves(same)) and files == {"a": b"a"}


@pytest.mark.slow
def test_a_save_that_fails_in_one_is_tried_once_more_in_both(
  tmp_path, plain_env
):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  program = Path(__file__).with_name("saves_in_two_processes.py")
  logs = [tmp_path / f"log-{number}" for number in (0, 1)]
  started = [
    subprocess.Popen(
      [sys.executable, program, f"{address},2,{number}", tmp_path],
      env=plain_env | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
      stdout=logs[number].open("w"),
      stderr=subprocess.STDOUT,
    )
    for number in (0, 1)
  ]
  codes = [process.wait(timeout=120) for process in started]
  assert codes == [3, 3], [log.read_text() for log in logs]
  told = [
    json.loads((tmp_path / f"told-{number}.json").read_text())
    for number in (0, 1)
  ]
  for fails in (0, 1):
    for wait in (True, False):
      # In the background a failure shows at the save after it.
      name, steps = f"{fails}-1-{wait}", [1, 2, 3] if wait else [1, 3]
      assert [each[name] for each in told] == [steps, steps], name
      assert_intact(tmp_path / name, steps)
      name, step = f"{fails}-2-{wait}", 2 if wait else 3
      for number in (0, 1):
        text = told[number][name]
        assert f"checkpoint {step} could not be written" in text, name
        why = "No space left" if fails == number else f"process {fails} of 2"
        assert why in text, name
      assert_intact(tmp_path / name, [1])
