"""metrics.jsonl and its TensorBoard twin."""

import binascii
import errno
import itertools
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime.files import write_atomically
from infoxlm_jax.runtime.metrics import MetricWriter, read_metrics, series


def _board(folder: Path) -> list:
  """Events of all TensorBoard files, read by their published format."""
  from tensorboardX.proto.event_pb2 import Event

  events = []
  for path in sorted((folder / "tensorboard").iterdir()):
    content = path.read_bytes()
    while content:
      (size,) = struct.unpack("<Q", content[:8])
      events.append(Event.FromString(content[12 : 12 + size]))
      content = content[16 + size :]
  return events


def _scalars(folder: Path) -> list[tuple[int, str, float]]:
  return [
    (event.step, value.tag, value.simple_value)
    for event in _board(folder)
    for value in event.summary.value
  ]


def test_writes_one_json_object_a_line_and_tensorboard(tmp_path):
  with MetricWriter(tmp_path / "run") as writer:
    writer.write(10, {"train/loss": np.float32(2.5), "train/tokens": 7})
    writer.write(20, {"dev/retrieval/en_to_xx": np.array([0.25])})
  lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
  first, second = map(json.loads, lines)
  assert first["step"] == 10
  assert first["train/loss"] == 2.5
  assert first["train/tokens"] == 7
  assert 0 <= first["time"] <= second["time"] < 60
  assert second["dev/retrieval/en_to_xx"] == 0.25
  assert _scalars(tmp_path / "run") == [
    (10, "train/loss", 2.5),
    (10, "train/tokens", 7.0),
    (20, "dev/retrieval/en_to_xx", 0.25),
  ]


def test_resume_removes_later_lines_and_time_goes_on(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text(
    '{"step": 10, "time": 100.0, "x": 1}\n'
    '{"step": 20, "time": 200.0, "x": 2}\n'
    '{"step": 30, "time": 300.0, "x": 3}\n'
  )
  with MetricWriter(tmp_path, resume_step=20) as writer:
    assert 200 <= writer.elapsed() < 260
    writer.write(30, {"x": 33})
  rows = read_metrics(tmp_path)
  assert [(row["step"], row["x"]) for row in rows] == [
    (10, 1),
    (20, 2),
    (30, 33),
  ]
  assert 200 <= rows[-1]["time"] < 260
  # TensorBoard is told to forget everything after step 20.
  starts = [e.step for e in _board(tmp_path) if e.HasField("session_log")]
  assert starts == [21]
  leftovers = {path.name for path in tmp_path.iterdir()}
  assert leftovers == {"metrics.jsonl", "tensorboard"}


def test_resume_after_a_crash_in_the_middle_of_a_line(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 10, "time": 5.0, "x": 1}\n{"step": 20, "ti')
  assert [row["step"] for row in read_metrics(tmp_path)] == [10]
  with MetricWriter(tmp_path, resume_step=50) as writer:
    writer.write(60, {"x": 6})
  assert [json.loads(line)["step"] for line in path.open()] == [10, 60]


def test_a_new_start_keeps_the_old_file_under_another_name(tmp_path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 10, "time": 1}\n')
  with MetricWriter(tmp_path) as writer:
    writer.write(1, {"x": 1})
  assert [row["step"] for row in read_metrics(tmp_path)] == [1]
  old = (tmp_path / "metrics.previous.jsonl").read_text()
  assert json.loads(old)["step"] == 10


def test_numbers_that_are_not_finite_are_null_and_flagged(tmp_path):
  with MetricWriter(tmp_path) as writer:
    writer.write(1, {"a": math.nan, "b": np.float32(-math.inf), "c": 1.5})

  def refuse(name):
    raise AssertionError(f"{name} is no JSON")

  text = (tmp_path / "metrics.jsonl").read_text()
  row = json.loads(text, parse_constant=refuse)
  assert row["a"] is None and row["b"] is None and row["c"] == 1.5
  assert row["non_finite"] == {"a": "nan", "b": "-inf"}


def test_a_broken_line_in_the_middle_is_named(tmp_path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n[1, 2]\n{"step": 3}\n')
  with pytest.raises(InputError, match=r"metrics\.jsonl, line 2"):
    read_metrics(tmp_path)


@pytest.mark.parametrize(
  "line",
  ["[1, 2]", '{"stfp": 2}', '{"step": true}', '{"step": 2, "x": "y"}', "\0"],
)
def test_a_start_goes_on_without_a_damaged_line(tmp_path, caplog, line):
  """It is set aside, not repaired by a person: the checkpoints are whole."""
  path = tmp_path / "metrics.jsonl"
  damaged = f'{{"step": 1, "time": 7}}\n{line}\n{{"step": 3, "time": 9}}\n'
  path.write_text(damaged)
  with pytest.raises(InputError, match="line 2: not a line of metrics"):
    read_metrics(tmp_path)
  whole = read_metrics(tmp_path, skip_damaged=True)  # as fine-tuning begins
  assert [row["step"] for row in whole] == [1, 3]
  with MetricWriter(tmp_path, resume_step=3) as writer:
    assert 9 <= writer.elapsed() < 60
    writer.write(4, {"x": 1})
  assert [row["step"] for row in read_metrics(tmp_path)] == [1, 3, 4]
  assert (tmp_path / "metrics.jsonl.damaged-1").read_text() == damaged
  assert "line 2 damaged" in caplog.text
  # The second damaged file does not replace the first.
  path.write_text(damaged)
  MetricWriter(tmp_path, resume_step=3).close()
  assert (tmp_path / "metrics.jsonl.damaged-2").read_text() == damaged


def test_a_line_ends_with_the_checksum_of_its_other_fields(tmp_path):
  with MetricWriter(tmp_path) as writer:
    writer.write(7, {"train/loss": 2.5, "bad": math.nan})
  (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
  written, _, crc = line.rpartition(', "crc": ')
  assert int(crc.rstrip("}")) == binascii.crc32(f"{written}}}".encode())
  (row,) = read_metrics(tmp_path)
  assert row == json.loads(f"{written}}}")


def _flips(content: bytes) -> Iterator[bytes]:
  for place, bit in itertools.product(range(len(content)), range(8)):
    flipped = bytearray(content)
    flipped[place] ^= 1 << bit
    yield bytes(flipped)


def test_every_flipped_bit_of_every_line_is_noticed(tmp_path):
  with MetricWriter(tmp_path) as writer:
    writer.write(1, {"train/loss": 2.5})
    writer.write(12, {"a": 4, "b": -math.inf})
  path = tmp_path / "metrics.jsonl"
  for content in _flips(path.read_bytes()):
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"metrics\.jsonl, line [12]: "):
      read_metrics(tmp_path)


def test_lines_of_older_versions_get_a_checksum(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1, "time": 7.5, "x": 3}\n')
  MetricWriter(tmp_path, resume_step=1).close()
  assert read_metrics(tmp_path) == [{"step": 1, "time": 7.5, "x": 3}]
  path.write_text(path.read_text().replace('"x": 3', '"x": 4'))
  with pytest.raises(InputError, match="line 1: .*its checksum differs"):
    read_metrics(tmp_path)


def test_lines_that_are_gone_are_told(tmp_path, caplog):
  with MetricWriter(tmp_path) as writer:
    for step in (10, 20, 30, 40):
      writer.write(step, {"x": step})
    assert writer.lines == 4
  path = tmp_path / "metrics.jsonl"
  path.write_text("".join(path.read_text().splitlines(True)[1:]))
  with MetricWriter(tmp_path, resume_step=30, resume_lines=3) as writer:
    assert writer.lines == 2
  assert "1 of the 3 lines up to update 30 are lost" in caplog.text


def test_missing_metrics_are_told(tmp_path, caplog):
  with MetricWriter(tmp_path, resume_step=30) as writer:
    writer.write(31, {"x": 1})
  assert "metrics up to update 30 are lost" in caplog.text


def test_other_processes_touch_nothing(tmp_path):
  with MetricWriter(tmp_path / "run", enabled=False) as writer:
    writer.write(1, {"x": 1})
  assert not (tmp_path / "run").exists()
  assert read_metrics(tmp_path / "run") == []


def test_storage_that_fails_is_a_storage_error(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(StorageError, match="file"):
    MetricWriter(tmp_path / "file")
  with pytest.raises(StorageError, match=r"results\.json"):
    write_atomically(tmp_path / "file" / "results.json", "{}")


class _FullDisk:
  """Takes what a buffer holds, and fails when it should reach the disk."""

  def write(self, content):
    pass

  def flush(self):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("full", ["jsonl", "board"])
def test_a_full_disk_is_a_storage_error_at_the_next_write(
  tmp_path, monkeypatch, full
):
  with MetricWriter(tmp_path) as writer:
    with monkeypatch.context() as patch:
      # As if half a minute had passed since TensorBoard's last flush.
      patch.setattr("infoxlm_jax.runtime.event_file._FLUSH_SECONDS", -1.0)
      if full == "jsonl":
        patch.setattr(writer, "_file", _FullDisk())
      else:
        records = writer._board._writer._py_recordio_writer
        patch.setattr(records, "_writer", _FullDisk())
      with pytest.raises(StorageError, match="No space left"):
        writer.write(1, {"x": 1})
    writer.write(2, {"x": 2})
  assert read_metrics(tmp_path)[-1]["step"] == 2


def test_series_takes_the_last_of_a_step_in_order_of_steps():
  rows = [
    {"step": 3, "x": 1.0},
    {"step": 1, "x": 5.0},
    {"step": 2, "x": None},
    {"step": 3, "x": 2.0},
    {"step": 4, "y": 0.0},
  ]
  steps, values = series(rows, "x")
  assert steps.tolist() == [1, 3]
  assert values.tolist() == [5.0, 2.0]


@pytest.mark.parametrize(
  ("value", "message"),
  [(np.zeros(2), r"one number, got shape \(2,\)"), ("text", "'text'")],
)
def test_a_metric_is_one_number(tmp_path, value, message):
  with (
    MetricWriter(tmp_path) as writer,
    pytest.raises(ValueError, match=message),
  ):
    writer.write(1, {"x": value})


def test_reserved_names_are_refused(tmp_path):
  with (
    MetricWriter(tmp_path) as writer,
    pytest.raises(ValueError, match="time"),
  ):
    writer.write(1, {"time": 1.0})
