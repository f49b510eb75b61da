"""Run by test_saves_of_two_processes.py, in two processes that are one run.

python saves_in_two_processes.py ADDRESS,2,NUMBER FOLDER
"""

import errno
import itertools
import json
import logging
import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from infoxlm_jax.checkpoint.manager import Checkpoints
from infoxlm_jax.checkpoint.small_files import FilesHandler
from infoxlm_jax.errors import StorageError
from infoxlm_jax.runtime import distributed
from infoxlm_jax.training.state import TrainState

SAVE = FilesHandler.save
LEFT = [0]  # how many saves of this process still fail


def failing(handler: FilesHandler, directory, args) -> None:
  if LEFT[0]:
    LEFT[0] -= 1
    raise OSError(errno.ENOSPC, "No space left on device")
  SAVE(handler, directory, args)


def make_state(step: int) -> TrainState:
  """Arrays of which each process has a half, and some that both have."""
  mesh = jax.make_mesh((2,), ("data",))

  def put(array: np.ndarray, *spec: str) -> jax.Array:
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    return jax.make_array_from_callback(
      array.shape, sharding, lambda index: array[index]
    )

  draw = np.random.default_rng(step)
  halves = draw.normal(size=(8, 4)).astype(np.float32)
  whole = draw.normal(size=(3,)).astype(np.float32)
  return TrainState(
    step=put(np.int32(step)),
    params={"halves": put(halves, "data"), "whole": put(whole)},
    opt_state=(),
    objective_state={},
    rng=put(np.zeros(2, np.uint32)),
  )


def saved(path: Path, times: int, wait: bool) -> list[int] | str:
  """Saves steps 1 to 3, of which 2 fails so often; the steps, or an error."""
  try:
    with Checkpoints(path) as checkpoints:
      for step in (1, 2, 3):
        if step == 2:
          LEFT[0] = times
        checkpoints.save(make_state(step), {"a": b"a"}, wait=wait or step == 1)
      checkpoints.wait()
      return checkpoints.steps()
  except StorageError as error:
    return str(error)


def main(setting: str, folder: Path) -> int:
  logging.getLogger("absl").setLevel(logging.CRITICAL)  # as main.py
  distributed.start(setting)
  FilesHandler.save = failing  # type: ignore[method-assign]
  number, told = jax.process_index(), {}
  for fails, times, wait in itertools.product((0, 1), (1, 2), (True, False)):
    name = f"{fails}-{times}-{wait}"
    mine = times if fails == number else 0
    told[name] = saved(folder / name, mine, wait)
  (folder / f"told-{number}.json").write_text(json.dumps(told))
  return 3 if isinstance(told[name], str) else 0  # as main.py ends


if __name__ == "__main__":
  sys.exit(distributed.leave(main(sys.argv[1], Path(sys.argv[2]))))
