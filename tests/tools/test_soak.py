"""soak.py: what it injects is injected, and what it counts is true."""

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import soak_damage
import soak_inputs
import soak_outcomes
import soak_process
import soak_runs
from soak_outcomes import DETECTED, LOST, RECOVERED, Outcome

ROOT = Path(__file__).resolve().parents[2]
NOTHING = {
  "kills": 0,
  "bit_flips": 0,
  "disk_full": 0,
  "signals": 0,
  "streams": 0,
  "bad_inputs": 0,
}


@pytest.fixture
def soak(plain_env, tmp_path):
  """Runs the tool; returns its JSON, and all lines before it."""

  def function(**numbers: int) -> tuple[dict, list[str]]:
    cache = os.environ.get("INFOXLM_TEST_CACHE") or tmp_path / "cache"
    options = [f"--{k}={v}" for k, v in (NOTHING | numbers).items()]
    done = subprocess.run(
      [sys.executable, "tools/soak.py", f"--cache={cache}", *options],
      cwd=ROOT,
      env=plain_env | {"PYTHONPATH": str(ROOT)},
      capture_output=True,
      text=True,
    )
    *lines, last = done.stdout.splitlines() or [""]
    assert done.returncode in (0, 1) and last, done.stderr
    counts = json.loads(last)
    failures = sum(counts[name] for name in soak_outcomes.FAILURES)
    assert done.returncode == bool(failures), lines
    return counts, lines

  return function


def test_a_short_one(soak):
  counts, lines = soak(kills=2, bit_flips=2, bad_inputs=60)
  print(*lines, sep="\n")
  assert counts["injected"] == 2 + 2 * 2 + 60
  assert counts["detected"] > 30 and counts["recovered"] >= 2
  assert not any(counts[name] for name in soak_outcomes.FAILURES)


def test_a_table_and_its_sums():
  outcomes = [
    Outcome("kill: save", RECOVERED, seconds=2.5),
    Outcome("kill: save", LOST, "update 7", "checkpoint 5\nwas there"),
    Outcome("bit flip", DETECTED, "data/a"),
  ]
  head, flips, kills, both = soak_outcomes.table(outcomes).splitlines()
  column = head.split().index("lost")
  assert kills.rsplit(maxsplit=len(head.split()))[column + 1] == "1"
  assert flips.startswith("bit flip") and flips.endswith("0.0")
  assert both.split()[1] == "3" and both.endswith("2.5")
  assert soak_outcomes.failures(outcomes) == [
    "lost: kill: save, update 7: checkpoint 5 was there"
  ]
  assert soak_outcomes.counts(outcomes)["injected"] == 3


@pytest.mark.parametrize("kind", soak_damage.KINDS)
def test_damage_changes_the_named_files_only(tmp_path, kind):
  contents = {"a": b"first", "b": b"second", "c": b"third"}
  for name, content in contents.items():
    (tmp_path / name).write_bytes(content)
  how, names = soak_damage.damage(tmp_path, Path("a"), kind, random.Random(3))
  after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
  changed = {name for name in contents if after.get(name) != contents[name]}
  assert changed == set(names) and "a" in names and how
  if kind == "bit flip":
    bits = [a ^ b for a, b in zip(b"first", after["a"], strict=True)]
    assert sum(bin(value).count("1") for value in bits) == 1


def test_inputs_are_damaged_in_many_ways():
  content = b"0123456789" * 20
  seen = {soak_inputs.mutated(content, random.Random(n)) for n in range(100)}
  assert len(seen - {content}) > 90
  assert {len(damaged) > len(content) for damaged in seen} == {True, False}


def test_a_difference_is_seen(tmp_path):
  assert "there is no checkpoint" in str(
    soak_runs.difference({"step": 60}, tmp_path)
  )


@pytest.mark.slow
def test_killed_twenty_times_equals_never(soak):
  """One run of 60 updates 20 times; besides, preparing five times."""
  counts, lines = soak(kills=25, series=20)
  assert counts["injected"] == counts["recovered"] == 25, lines


_TWO_STEPS = 40  # updates of the run of two processes


def _start_two(folder: Path, stack: list, python: dict[str, str]) -> None:
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  flags = [*soak_runs.flags(_TWO_STEPS), "--gin.GROUPS=2"]
  flags += ["--gin.partitioning.MeshShape.devices=None"]
  for number in range(2):
    log = (folder / f"log{number}.txt").open("ab")
    stack.append(
      subprocess.Popen(
        [sys.executable, "-m", "infoxlm_jax.main", *flags]
        + [f"--distributed=127.0.0.1:{port},2,{number}"],
        cwd=folder,
        env=python,
        stdout=log,
        stderr=log,
      )
    )
    log.close()


@pytest.mark.slow
def test_two_processes_killed_at_random_moments(plain_env, tmp_path):
  """Either is killed, three times; the run ends as one that was left alone."""
  cache = os.environ.get("INFOXLM_TEST_CACHE") or tmp_path / "cache"
  settings = soak_process.environment(Path(cache))
  python = plain_env | settings | {"PYTHONPATH": str(ROOT)}
  reference = tmp_path / "reference"
  reference.mkdir()
  soak_runs.write_texts(reference / soak_runs.TEXTS)
  soak_runs.prepare(reference / soak_runs.TEXTS, reference / soak_runs.DATA)
  random_, ends = random.Random(1), []
  for name, kills in (("whole", 0), ("killed", 3)):
    folder = soak_runs.work_folder(tmp_path / name, reference)
    targets = sorted(random_.sample(range(1, _TWO_STEPS), kills))
    for target in [*targets, None]:
      both: list[subprocess.Popen] = []
      _start_two(folder, both, python)
      try:
        if target is not None:
          _wait_for(folder / soak_runs.RUN, target, both)
          time.sleep(random_.uniform(0, 0.3))
          random_.choice(both).send_signal(signal.SIGKILL)
        codes = [process.wait(240) for process in both]
      finally:
        for process in both:
          process.kill()
      said = (folder / "log0.txt").read_text()
      if target is None:
        assert codes == [0, 0], said
      else:
        assert -signal.SIGKILL in codes and 0 not in codes, said
    ends.append(soak_runs.result(folder / soak_runs.RUN))
  for name in ends[0]:
    assert ends[0][name] == ends[1][name], name


def _wait_for(run: Path, target: int, both: list[subprocess.Popen]) -> None:
  """Until this start has come to an update; at its start lines are cut."""
  before = soak_runs.last_step(run)
  for _ in itertools.count():
    last = soak_runs.last_step(run)
    if last != before and last >= target:
      return
    assert all(process.poll() is None for process in both)
    time.sleep(0.01)
