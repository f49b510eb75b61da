"""Small files of a run's folder, damaged between two starts."""

import json
import sys

import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import metrics, run_dir

NONE = [b"[" * 100_000, b"\xff", b"", b"[]", b'{"other": 1}']


@pytest.mark.parametrize("content", NONE)
def test_a_damaged_hash_of_the_data(tmp_path, content):
  (tmp_path / run_dir.DATA).write_bytes(content)
  (tmp_path / metrics.METRICS_FILE).write_text('{"step": 1, "time": 0}\n')
  with pytest.raises(InputError, match=run_dir.DATA):
    run_dir.claim_data(tmp_path, "0" * 64)


@pytest.mark.parametrize("content", NONE[:-1])
def test_a_damaged_identity(tmp_path, content):
  (tmp_path / run_dir.IDENTITY).write_bytes(content)
  with pytest.raises(InputError, match=run_dir.IDENTITY):
    run_dir.claim(tmp_path, {"seed": 1})


@pytest.mark.parametrize("name", run_dir.COPIED)
@pytest.mark.parametrize("content", [*NONE, b'{"seed": 2}', None])
def test_a_damaged_file_is_restored_from_its_copy(
  tmp_path, caplog, name, content
):
  """The copies are from a checkpoint, which holds their hashes."""
  run_dir.claim(tmp_path, {"seed": 1})
  run_dir.claim_data(tmp_path, "0" * 64)
  path = tmp_path / metrics.METRICS_FILE
  path.write_text('{"step": 1, "time": 0}\n')
  copies = {n: (tmp_path / n).read_bytes() for n in run_dir.COPIED}
  (tmp_path / name).unlink()
  if content is not None:
    (tmp_path / name).write_bytes(content)
  run_dir.claim(tmp_path, {"seed": 1}, copies=copies)
  run_dir.claim_data(tmp_path, "0" * 64)
  assert f"{name} is " in caplog.text
  assert (tmp_path / name).read_bytes() == copies[name]
  aside = tmp_path / f"{name}.damaged-1"
  assert (aside.read_bytes() if aside.exists() else None) == content
  with pytest.raises(InputError, match="seed was 1 and is now 2"):
    run_dir.claim(tmp_path, {"seed": 2}, copies=copies)


def test_a_line_of_metrics_nested_without_end(tmp_path):
  path = tmp_path / metrics.METRICS_FILE
  path.write_text("[" * 100_000 + '\n{"step": 1}\n')
  with pytest.raises(InputError, match="metrics.jsonl, line 1"):
    metrics.read_metrics(tmp_path)


def test_secrets_are_not_written(tmp_path, monkeypatch):
  command = ["main.py", "--gin.HF_TOKEN=abc", "--gin.STEPS=3"]
  monkeypatch.setattr(sys, "argv", command)
  monkeypatch.setenv("HF_TOKEN", "abc")
  run_dir.write_environment(tmp_path)
  text = (tmp_path / "environment.json").read_text()
  assert "abc" not in text
  written = json.loads(text)["command"]
  assert written == ["main.py", "--gin.HF_TOKEN=***", "--gin.STEPS=3"]


@pytest.mark.parametrize("begun", ["metrics", "checkpoint"])
def test_a_run_that_has_begun_keeps_its_identity(tmp_path, begun):
  """Its metrics may be gone; its checkpoints are another run's all the same."""
  run_dir.claim(tmp_path, {"seed": 1})
  run_dir.claim(tmp_path, {"seed": 2})  # nothing has happened yet
  if begun == "metrics":
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "time": 1.0}\n')
  else:
    step = tmp_path / "checkpoints" / "20"
    (step / "files").mkdir(parents=True)
    (step / "state").mkdir()
    (step / "files" / "model.json").write_text("{}")
  with pytest.raises(InputError, match="another run: seed was 2 and is now 3"):
    run_dir.claim(tmp_path, {"seed": 3})
  run_dir.claim(tmp_path, {"seed": 2})
