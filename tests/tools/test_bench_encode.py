"""bench_encode.py: alone, and beside sentence-transformers."""

import json

import pytest
import small_model

import bench_encode
from infoxlm_jax.checkpoint.exporters import export
from infoxlm_jax.checkpoint.exporters.model_card import About


def report(capsys, *flags):
  flags = [*flags, "--texts", "24", "--rounds", "3"]
  assert bench_encode.main([str(flag) for flag in flags]) == 0
  return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_alone(capsys):
  last = report(capsys, "--model", small_model.folder(), "--layer", 1)
  times = sorted(last["ours_seconds"])
  assert last["texts"] == 24 and len(times) == 3
  assert last["ours_texts_per_second"] == pytest.approx(24 / times[1], rel=0.1)
  assert "ratio" not in last


@pytest.mark.parity
def test_in_turns(capsys, tmp_path):
  pytest.importorskip("sentence_transformers")
  export.export_sentence_transformers(
    small_model.source(),
    tmp_path / "st",
    About("small"),
    layer=3,
    pooling="mean_all",
    encode=None,
  )
  flags = ["--model", tmp_path / "st", "--prompt", "query: ", "--peer"]
  last = report(capsys, *flags, "--max_length", 40)
  assert last["smallest_cosine"] == pytest.approx(1, abs=1e-5)
  medians = [sorted(last[f"{name}_seconds"])[1] for name in ("peer", "ours")]
  assert last["ratio"] == pytest.approx(medians[0] / medians[1], rel=0.1)
