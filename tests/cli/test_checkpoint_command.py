"""checkpoint list, verify and diff: what is there, damaged, and different."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from infoxlm_jax.checkpoint.manager import Checkpoints
from infoxlm_jax.cli import checkpoint
from infoxlm_jax.evaluation.report import results_file
from infoxlm_jax.runtime.metrics import MetricWriter
from infoxlm_jax.training.state import TrainState

FILES = {"position.json": b'{"samples": {"mlm": 80}}'}


def _state(step: int, first: float = 1.0, **more: jax.Array) -> TrainState:
  """opt_state is a tuple, as optax' chains are."""
  token = jnp.arange(12.0).reshape(3, 4).at[0, 0].set(first)
  return TrainState(
    step=jnp.int32(step),
    params={"embed": {"token": token}} | more,
    objective_state={},
    opt_state=({"mu": jnp.full((3, 4), 0.5)}, jnp.int32(7)),
    rng=jnp.asarray([3, 4], jnp.uint32),
  )


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
  """Checkpoints 5 and 10 of a run; nobody writes here."""
  run = tmp_path_factory.mktemp("examined") / "run"
  with Checkpoints(run / "checkpoints") as checkpoints:
    checkpoints.save(_state(5), FILES, metric=0.25)
    checkpoints.save(_state(10, first=1.5), FILES)
  return run


@pytest.fixture
def run(saved, tmp_path) -> Path:
  return Path(shutil.copytree(saved, tmp_path / "run"))


def _run(capsys, *args: object) -> tuple[int, list[str]]:
  code = checkpoint.main([str(arg) for arg in args])
  return code, capsys.readouterr().out.splitlines()


def test_list(run, capsys):
  (run / "checkpoints" / "10" / "files" / "position.json").write_text("{}")
  code, (_, five, ten) = _run(capsys, "list", run)
  assert code == 0
  assert five.split()[0] == "5" and five.split()[-2:] == ["best", "0.25"]
  assert "intact" in five and "damaged" in ten
  files = (run / "checkpoints" / "5").rglob("*")
  total = sum(p.stat().st_size for p in files if p.is_file())
  assert float(five.split()[1]) == pytest.approx(total / 1e6, abs=0.05)


def test_verify(run, capsys):
  code, lines = _run(capsys, "verify", run)
  assert code == 0
  assert lines == [f"{run}/checkpoints/{step}: intact" for step in (5, 10)]


def test_verify_compares_the_small_files_of_a_run(run, capsys):
  """A changed digit leaves them JSON of possible numbers."""
  with MetricWriter(run) as writer:
    writer.write(5, {"train/loss": 2.5})
  results_file.write_results(run, {"finished": True, "steps": 10})
  code, lines = _run(capsys, "verify", run)
  assert code == 0 and len(lines) == 2
  for name, old, new in (
    ("metrics.jsonl", "2.5", "2.4"),
    ("results.json", '"steps": 10', '"steps": 11'),
  ):
    text = (run / name).read_text()
    assert text.count(old) == 1
    (run / name).write_text(text.replace(old, new))
  code, lines = _run(capsys, "verify", run)
  results, metrics = lines[2:]
  assert code == 1
  assert results.startswith(f"{run}/results.json is damaged")
  assert metrics.startswith(f"{run}/metrics.jsonl, line 1: ")


def test_verify_compares_identity_and_lines_with_the_newest_checkpoint(
  run, capsys
):
  files = {"identity.json": b'{"seed": 1}', "data.json": b"{}"}
  position = b'{"samples": {"mlm": 80}, "metric_lines": 2}'
  with Checkpoints(run / "checkpoints") as checkpoints:
    checkpoints.save(_state(15), files | {"position.json": position})
  for name, content in files.items():
    (run / name).write_bytes(content)
  with MetricWriter(run) as writer:
    for step in (10, 15):
      writer.write(step, {})
  assert _run(capsys, "verify", run)[0] == 0
  (run / "identity.json").write_bytes(b'{"seed": 2}')
  path = run / "metrics.jsonl"
  path.write_text(path.read_text().splitlines(True)[1])
  code, lines = _run(capsys, "verify", run)
  assert code == 1
  assert lines[-2:] == [
    f"{run}/identity.json differs from its copy in checkpoint 15",
    f"{run}/metrics.jsonl: 1 lines up to update 15 are missing",
  ]


def _change_sum(step: Path, path: str) -> None:
  """As if a bit of this array had flipped since it was saved."""
  place = step / "files" / "checksums.json"
  entries = json.loads(place.read_text())
  entries["arrays"][path]["sum"][0] ^= 1
  del entries["sha256"]
  place.write_text(json.dumps(entries))


def test_verify_names_the_array_and_the_file(run, capsys):
  ten = run / "checkpoints" / "10"
  _change_sum(ten, "opt_state/0/mu")
  code, lines = _run(capsys, "verify", ten)
  assert code == 1
  assert lines == [
    f"{ten}: array opt_state/0/mu is not what was saved (its checksum differs)"
  ]
  (ten / "files" / "position.json").write_text("{}")
  code, lines = _run(capsys, "verify", run)
  assert code == 1
  assert lines[-1] == f"{ten}: position.json is not what was saved"
  shutil.rmtree(run / "checkpoints" / "5" / "state")
  code, lines = _run(capsys, "verify", run)
  assert code == 1 and f"{run}/checkpoints/5: state cannot be read" in lines[0]


def test_diff(saved, tmp_path, capsys):
  five, ten = (saved / "checkpoints" / str(step) for step in (5, 10))
  assert _run(capsys, "diff", ten, saved) == (0, ["no array differs"])
  code, lines = _run(capsys, "diff", five, saved)
  assert code == 1
  assert sorted(lines) == [
    "params/embed/token: max absolute difference 0.5, max relative 0.333",
    "step: max absolute difference 5, max relative 0.5",
  ]
  other = _state(10, 1.5, heads={"bias": jnp.zeros(2)}).replace(
    opt_state=({"mu": jnp.full((3, 4), 0.5, jnp.bfloat16)}, jnp.int32(7))
  )
  with Checkpoints(tmp_path / "other") as checkpoints:
    checkpoints.save(other, FILES)
  code, lines = _run(capsys, "diff", saved, tmp_path / "other")
  assert code == 1
  assert sorted(lines) == [
    "opt_state/0/mu: float32[3, 4] and bfloat16[3, 4]",
    f"params/heads/bias: only in {tmp_path / 'other'}",
  ]


def test_no_checkpoint_is_told(tmp_path, refused):
  for args in (("list", tmp_path), ("diff", tmp_path, tmp_path)):
    assert "there is no checkpoint" in refused(checkpoint.main, *args)
