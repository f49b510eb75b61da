"""starts.jsonl: settings that changed between two starts."""

import json

import pytest

from infoxlm_jax.errors import StorageError
from infoxlm_jax.runtime import starts

FIRST = {"PEAK_RATE": "0.1", "BATCH": "8", "WARMUP_STEPS": "100"}
SECOND = {"PEAK_RATE": "0.2", "BATCH": "8", "STEPS": "500"}


def lines(folder):
  return [json.loads(line) for line in (folder / starts.STARTS).open()]


def test_changes_are_told_and_kept(tmp_path):
  assert starts.record(tmp_path, FIRST) == []
  assert starts.record(tmp_path, FIRST) == []
  told = starts.record(tmp_path, SECOND)
  assert [sentence.partition(";")[0] for sentence in told] == [
    "PEAK_RATE was 0.1 and is now 0.2",
    "STEPS was not set and is now 500",
    "WARMUP_STEPS was 100 and is now not set",
  ]
  first, same, changed = lines(tmp_path)
  assert first["settings"].items() >= FIRST.items()
  assert {"jax", "infoxlm_jax"} <= set(first["settings"])
  assert first["changed"] == same["changed"] == {}
  assert changed["changed"] == {
    "PEAK_RATE": ["0.1", "0.2"],
    "STEPS": [None, "500"],
    "WARMUP_STEPS": ["100", None],
  }
  assert changed["settings"].items() >= SECOND.items()


def test_another_version_is_a_change(tmp_path, monkeypatch):
  starts.record(tmp_path, FIRST)
  monkeypatch.setattr(starts, "__version__", "9.9")
  (told,) = starts.record(tmp_path, FIRST)
  assert told.startswith("infoxlm_jax was ") and "is now 9.9" in told


@pytest.mark.parametrize("end", [b'{"time": "x", "sett', b"\xff\n", b"[1]\n"])
def test_the_last_whole_line_counts(tmp_path, end):
  """A start was killed while it wrote its line."""
  starts.record(tmp_path, FIRST)
  path = tmp_path / starts.STARTS
  before = path.read_bytes() + end
  path.write_bytes(before)
  told = starts.record(tmp_path, SECOND)
  assert told[0].startswith("PEAK_RATE was 0.1 and is now 0.2")
  after = path.read_bytes()
  assert after.startswith(before)
  assert json.loads(after.split(b"\n")[-2])["changed"]["STEPS"][1] == "500"


def test_without_a_whole_line_it_is_said(tmp_path):
  (tmp_path / starts.STARTS).write_bytes(b"\0" * 100)
  assert "no whole line" in starts.record(tmp_path, FIRST)[0]
  assert starts.record(tmp_path, FIRST) == []


def test_a_file_that_cannot_be_written(tmp_path):
  (tmp_path / starts.STARTS).mkdir()
  with pytest.raises(StorageError, match=r"starts\.jsonl"):
    starts.record(tmp_path, FIRST)
