"""Prepare on several processes, killed, without room, or started twice."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import small_corpus
from small_corpus import OPTIONS, ListCorpus, contents

from infoxlm_jax.data import records
from infoxlm_jax.data.prepare import work_dir
from infoxlm_jax.data.prepare.array_files import read_arrays, write_arrays
from infoxlm_jax.data.prepare.pipeline import prepare
from infoxlm_jax.data.prepare.plan import Sizes
from infoxlm_jax.data.prepare.process_pool import Pool
from infoxlm_jax.data.records import Store
from infoxlm_jax.errors import InputError, StorageError

# Several chunks and shards of a few dozen verses.
SIZES = Sizes(chunk=1500, shard=6000, hashes=100)
SMALL = OPTIONS | {"sizes": SIZES, "held_out": 3, "progress": False}
# What the started processes run: prepare, as slowly as `delay` says.
SCRIPT = """
import os, signal, sys, time
import small_corpus, test_prepare_stops as tests
from infoxlm_jax.data.prepare.pipeline import prepare

if __name__ == "__main__":
  # A shell's background job ignores it, and so would its children.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  folder, workers, delay = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
  corpora = [tests.Slow("text", delay=delay), tests.Slow("pairs", delay=delay)]
  prepare(folder, **tests.SMALL | {"corpora": corpora, "workers": workers})
"""


class Slow(small_corpus.Verses):
  """Verses that take their time; their options are Verses' own."""

  def __init__(self, kind: str, delay: float):
    super().__init__(kind)
    object.__setattr__(self, "delay", delay)

  def __repr__(self) -> str:
    return f"Slow({self.kind!r})"

  def examples(self, split):
    for example in super().examples(split):
      time.sleep(self.delay)
      yield example


def start(folder: Path, workers: int = 2, delay: float = 0.0, **more):
  path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
  return subprocess.Popen(
    [sys.executable, "-c", SCRIPT, str(folder), str(workers), str(delay)],
    env=os.environ | {"PYTHONPATH": path},
    stderr=subprocess.PIPE,
    text=True,
    **more,
  )


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
  folder = tmp_path_factory.mktemp("whole") / "data"
  corpora = [Slow("text", 0), Slow("pairs", 0)]
  prepare(folder, **SMALL | {"corpora": corpora})
  shards = sorted(folder.rglob("*.arrayrecord"))
  assert len(shards) > 12
  return contents(folder)


def test_two_processes_give_the_same_bytes(expected, tmp_path):
  process = start(tmp_path / "data")
  _, error = process.communicate(timeout=60)
  assert process.returncode == 0, error
  assert contents(tmp_path / "data") == expected


def wait_for(partial: Path, pattern: str, timeout: float = 60) -> None:
  end = time.monotonic() + timeout
  while not any(partial.glob(pattern)):
    assert time.monotonic() < end, f"no {pattern} in {partial}"
    time.sleep(0.005)


def kill_and_finish(folder, moments, expected, workers=2, delay=0.01):
  """Kills the process at each of these moments, then lets it finish."""
  partial = folder.with_name("data.partial")
  kills = 0
  for moment in moments:
    process = start(folder, workers, delay)
    if isinstance(moment, str):
      wait_for(partial, moment)
    else:
      time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kills += process.returncode == -signal.SIGKILL
    assert not folder.exists() or contents(folder) == expected
  process = start(folder, workers)
  _, error = process.communicate(timeout=60)
  assert process.returncode == 0, error
  assert contents(folder) == expected
  assert not partial.exists()
  return kills


def test_killed_in_each_phase(expected, tmp_path):
  moments = (
    "work/train/000/000001.chunk",
    "work/train/001/*.records",
    "work/train/shards/*.json",
  )
  assert kill_and_finish(tmp_path / "data", moments, expected) == 3


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_ten_random_moments(expected, tmp_path, workers):
  chance = random.Random(workers)
  moments = [chance.uniform(0.3, 4) for _ in range(10)]
  folder = tmp_path / "data"
  assert kill_and_finish(folder, moments, expected, workers) >= 5


def test_no_worker_outlives_a_kill(tmp_path):
  process = start(tmp_path / "data", delay=0.02)
  wait_for(tmp_path / "data.partial", "work/train/000/*.chunk")
  children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
  if not children.exists():
    pytest.skip("needs /proc")
  workers = [int(pid) for pid in children.read_text().split()]
  assert len(workers) >= 2
  process.kill()
  process.communicate()
  end = time.monotonic() + 10
  while any(_runs(pid) for pid in workers):
    assert time.monotonic() < end
    time.sleep(0.02)


def _runs(pid: int) -> bool:
  try:
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
  except OSError:
    return False


@pytest.mark.parametrize(
  "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
)
def test_asked_to_stop(expected, tmp_path, number):
  folder = tmp_path / "data"
  process = start(folder, delay=0.02, start_new_session=True)
  wait_for(tmp_path / "data.partial", "work/train/000/*.chunk")
  if number == signal.SIGTERM:
    process.send_signal(number)
  else:  # a terminal signals all processes
    os.killpg(process.pid, number)
  _, error = process.communicate(timeout=30)
  wanted = "KeyboardInterrupt" if number == signal.SIGINT else "Stopped"
  assert error.strip().split("\n")[-1].split(".")[-1].startswith(wanted)
  # One process speaks, not three.
  assert error.count("Traceback") == 1
  assert not folder.exists()
  assert start(folder).wait(60) == 0
  assert contents(folder) == expected


def test_a_killed_worker(tmp_path, expected):
  folder = tmp_path / "data"
  process = start(folder, delay=0.02)
  wait_for(tmp_path / "data.partial", "work/train/000/*.chunk")
  children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
  if not children.exists():
    pytest.skip("needs /proc")
  pids = [int(pid) for pid in children.read_text().split()]
  worker = max(
    pid
    for pid in pids
    if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
  )
  os.kill(worker, signal.SIGKILL)
  _, error = process.communicate(timeout=30)
  assert "StorageError" in error and "a worker process was killed" in error
  assert start(folder).wait(60) == 0
  assert contents(folder) == expected


def test_one_at_a_time(tmp_path, expected):
  folder = tmp_path / "data"
  process = start(folder, delay=0.05)
  wait_for(tmp_path / "data.partial", "request.json")
  before = contents(tmp_path / "data.partial").keys()
  corpora = [Slow("text", 0), Slow("pairs", 0)]
  with pytest.raises(InputError, match=rf"pid {process.pid}\) is preparing"):
    prepare(folder, **SMALL | {"corpora": corpora})
  assert before <= contents(tmp_path / "data.partial").keys()
  process.kill()
  process.communicate()
  # The lock goes with the process.
  prepare(folder, **SMALL | {"corpora": corpora})
  assert contents(folder) == expected


def test_another_request_leaves_the_work_alone(tmp_path):
  folder = tmp_path / "data"
  partial = tmp_path / "data.partial"
  process = start(folder, delay=0.02)
  wait_for(partial, "work/train/000/*.chunk")
  process.kill()
  process.communicate()
  time.sleep(0.2)  # workers leave
  before = contents(partial)
  corpora = [Slow("text", 0), Slow("pairs", 0)]
  for change, message in (
    ({"seed": 6}, "seed was 5, now it is 6"),
    ({"sizes": SIZES._replace(chunk=1501)}, "sizes.chunk was 1500"),
    ({"corpora": [*corpora[:1], small_corpus.Verses("pairs")]}, "corpora"),
  ):
    with pytest.raises(InputError, match=f"unfinished work .*{message}"):
      prepare(folder, **SMALL | {"corpora": corpora} | change)
  after = contents(partial)
  assert after.pop("lock") and before.pop("lock") and before == after


def test_changed_input_is_noticed(tmp_path):
  rows = tuple({"text": f"word {n}", "language": "en"} for n in range(50))
  options = SMALL | {"corpora": [ListCorpus("text", rows)]}
  prepare(tmp_path / "data", **options)
  prepare(tmp_path / "data", **options)
  options["corpora"] = [ListCorpus("text", rows[:49])]
  with pytest.raises(InputError, match="from another request: corpora"):
    prepare(tmp_path / "data", **options)


@contextlib.contextmanager
def file_size_limit(limit):
  """A limit on the size of files stands for a full disk."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("limit", [600, 3000, 6000])
def test_no_room(tmp_path, expected, limit):
  folder = tmp_path / "data"
  corpora = [Slow("text", 0), Slow("pairs", 0)]
  with file_size_limit(limit):
    with pytest.raises(StorageError, match="GB are free.*start again"):
      prepare(folder, **SMALL | {"corpora": corpora})
  assert not folder.exists()
  prepare(folder, **SMALL | {"corpora": corpora})
  assert contents(folder) == expected
  Store(folder / "train").verify()


def test_no_room_for_a_shard(tmp_path):
  """ArrayRecord writes late and from threads: nothing may get lost there."""
  numbers = np.random.default_rng(0).integers(0, 1 << 30, (400, 50))
  found = [records.encode_text(row) for row in numbers]
  for limit in (100, 5_000, 70_000):
    with file_size_limit(limit):
      with pytest.raises(StorageError, match="x.arrayrecord"):
        records.write_shard(tmp_path, "x.arrayrecord", found)


def test_a_damaged_file_of_the_work(tmp_path):
  path = tmp_path / "x.chunk"
  write_arrays(path, {"a": 1}, b=np.arange(5, dtype=np.int64))
  path.write_bytes(path.read_bytes()[:-3])
  with pytest.raises(StorageError, match="x.chunk is damaged"):
    read_arrays(path)


def test_the_lock_of_a_removed_folder(tmp_path):
  folder = tmp_path / "work"
  with work_dir.locked(folder):
    assert (folder / "lock").read_text() == f"{os.getpid()}\n"
    with pytest.raises(InputError, match="another process"):
      with work_dir.locked(folder):
        pass
  with work_dir.locked(folder):
    pass


def test_differences():
  found = {"a": 1, "b": {"c": [1, 2]}, "d": "x"}
  wanted = {"a": 1, "b": {"c": [1, 3]}, "e": None}
  assert work_dir.differences(found, json.loads(json.dumps(wanted))) == [
    "b.c[1] was 2, now it is 3",
    'd was "x", now it is null',
  ]


def test_pool_results_and_errors():
  with Pool(1) as pool:
    assert sorted(pool.run(pow, [(2, n) for n in range(5)])) == [1, 2, 4, 8, 16]
  with Pool(2) as pool:
    assert sorted(pool.run(pow, [(2, n) for n in range(9)])) == [
      2**n for n in range(9)
    ]
    with pytest.raises(ZeroDivisionError):
      list(pool.run(divmod, [(1, 1), (1, 0), (1, 1)]))
