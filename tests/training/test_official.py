"""Whole updates of the authors' trainer, through the step that training uses.

Each file has what the others have not: accumulation, a delayed start, batches
without a masked token, updates that overflow.
"""

import dataclasses
import inspect
import io
import json
import os
import platform
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import gin.config
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infoxlm_jax import gin_utils
from infoxlm_jax.analysis import (
  official,
  official_differences,
  official_file,
)
from infoxlm_jax.errors import InputError
from infoxlm_jax.training import step

ROOT = Path(__file__).resolve().parents[2]
# How many times its bound a number may differ. Some gradients of official_g are
# so small that Adam's division makes rounding large: computed in float64, its
# parameters are 2.5e-6 from the file's and key biases 1.5e-5 (bounds 2e-6 and
# 1e-5), as far as ours in float32 (2.7e-6, 1.1e-5). tools/check_official.py
# rounds as PyTorch does, and the last test here checks that.
ALLOWED = {"official_b": 1, "official_f": 1, "official_g": 2, "official_h": 1}


@pytest.mark.parametrize(
  "name",
  [
    "official_b",
    pytest.param("official_f", marks=pytest.mark.slow),
    pytest.param("official_g", marks=pytest.mark.slow),
    "official_h",
  ],
)
def test_the_update_is_the_released_trainers(shared, name):
  file = shared / "oracles" / "official" / f"{name}.npz"
  differences = official.compare(file)
  for kind, (size, where) in differences.items():
    bound = ALLOWED[name] * official_differences.BOUNDS[kind]
    assert size <= bound, (kind, where)
  for kind in ("parameters", "key parameters", "queue", "loss in bits"):
    assert differences[kind].size > 0, f"{kind}: nothing was compared"


def test_a_file_of_another_kind_is_refused(tmp_path):
  file = tmp_path / "numbers.npz"
  with pytest.raises(InputError, match="cannot be read"):
    official.compare(file)
  np.savez(file, a=np.zeros(1))
  with pytest.raises(InputError, match="no `case`"):
    official.compare(file)
  np.savez(file, case='{"batch": 4}')
  with pytest.raises(InputError, match="says nothing of updates"):
    official.compare(file)
  np.savez(file, case=np.array([{}], object))
  with pytest.raises(InputError, match="is none of numbers"):
    official.compare(file)


def npy(shape: str, stored: int, dtype: str = "<f4") -> bytes:
  """An .npy whose header says this shape, with so many bytes."""
  header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}\n"
  size = len(header).to_bytes(2, "little")
  return b"\x93NUMPY\x01\x00" + size + header.encode() + bytes(stored)


@pytest.mark.parametrize(
  "array",
  [
    npy(f"({2**70},)", 4),
    npy("(-1,)", 4),
    npy("(-2, -2)", 16),
    npy("(3000000000, 3000000000)", 4),
    npy("(2,)", 4),
    npy("(0,)", 4),
    npy("(" * 500, 4),
    npy("(2,)", 8, "|O"),
    npy("(2.5,)", 8),
    npy("('a',)", 8),
    npy("()", 0)[:8],
    b"",
    b"\x93NUMPY\x09\x00",
  ],
)
def test_arrays_that_are_not_as_they_say(tmp_path, array):
  file = tmp_path / "numbers.npz"
  with zipfile.ZipFile(file, "w") as archive:
    archive.writestr("case.npy", array)
  tracemalloc.start()
  with pytest.raises(InputError, match="numbers.npz: cannot be read as .npz"):
    official_file.read(file)
  assert tracemalloc.get_traced_memory()[1] < 5e6
  tracemalloc.stop()


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255))))
def test_noise_in_npz(tmp_path_factory, changes):
  written = io.BytesIO()
  np.savez(written, case='{"batch": 4}', a=np.arange(6.0).reshape(2, 3))
  content = bytearray(written.getvalue())
  for place, value in changes:
    content[int(place * len(content))] = value
  file = tmp_path_factory.mktemp("noise") / "numbers.npz"
  file.write_bytes(content)
  with pytest.raises(InputError):
    official_file.read(file)


@pytest.mark.parametrize("updates", [10**12, -1, 1.5, "2"])
def test_a_number_of_updates_that_the_file_does_not_hold(tmp_path, updates):
  file = tmp_path / "numbers.npz"
  case = dict.fromkeys(official_file._CASE, 1) | {"updates": updates}
  np.savez(file, case=json.dumps(case))
  with pytest.raises(InputError, match="`case`"):
    official_file.read(file)


# What a file's own case says.
OF_THE_CASE = {
  "layer",
  "projection",
  "temperature",
  "queue_size",
  "weight",
  "start_step",
  "momentum",
}
# What draws masks (the inputs of files are masked already), and memory alone.
NOT_COMPARED = {
  "logits_chunk",
  "mask_prob",
  "mask_specials",
  "mask_slots",
  "random_mask",
}


@pytest.fixture(autouse=True)
def _forget():
  yield
  gin.config.clear_config()


class Stopped(Exception):
  """Raised where `compare` would build the update."""


def test_the_preset_has_the_options_that_are_compared(shared, monkeypatch):
  """gin/objectives/infoxlm.gin trains by the rules that `compare` checks."""
  calls = {}

  def keep_adamw(*args, **options):
    calls["adamw"] = options
    return adamw(*args, **options)

  def keep_step(recipe, *args, **options):
    calls["recipe"], calls["step"] = recipe, options
    raise Stopped

  adamw = official.optimizer.adamw
  with monkeypatch.context() as patched, pytest.raises(Stopped):
    patched.setattr(official.optimizer, "adamw", keep_adamw)
    patched.setattr(official.step, "make_train_step", keep_step)
    official.compare(shared / "oracles" / "official" / "official_b.npz")
  config = gin_utils.load(
    ["gin/quickstart.gin", "gin/objectives/infoxlm.gin"],
    ["--gin.MODEL_DIR=unused"],
  )
  arguments = config.arguments()
  preset, checked = arguments["objectives"], calls["recipe"].objectives
  assert set(preset) == {"mlm", "tlm", "xlco"} == set(checked)
  for name, objective in preset.items():
    theirs = checked[name]
    assert type(objective) is type(theirs)
    left_out = NOT_COMPARED | (OF_THE_CASE if name == "xlco" else set())
    for field in dataclasses.fields(objective):
      if field.name not in left_out:
        at = getattr(objective, field.name), getattr(theirs, field.name)
        assert at[0] == at[1], (name, field.name)
  # Those that another update than the released one would leave off.
  assert preset["xlco"].push_per_microbatch and preset["xlco"].push_skipped
  assert preset["xlco"].sync_last_five and preset["xlco"].random_mask
  assert preset["mlm"].random_mask and preset["tlm"].random_mask
  assert arguments["update"].count_skipped == calls["step"]["count_skipped"]
  assert arguments["update"].count_skipped is False
  joint = inspect.signature(step.make_train_step).parameters["loss_norm"]
  assert arguments["update"].loss_norm == joint.default
  assert calls["adamw"]["fairseq_eps"] is True
  assert gin.config.query_parameter("optimizer.adamw.fairseq_eps") is True


@pytest.mark.slow
@pytest.mark.skipif(
  platform.machine() not in ("x86_64", "AMD64"), reason="no such flag"
)
def test_the_tool_rounds_after_every_operation(shared):
  """So parameters of official_g are within their bound, as nowhere else.

  Key biases are not asked for: what they differ by is chance.
  """
  result = subprocess.run(
    [
      sys.executable,
      "tools/check_official.py",
      shared / "oracles" / "official" / "official_g.npz",
    ],
    capture_output=True,
    text=True,
    check=False,
    cwd=ROOT,
    env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
  )
  lines = [line.split()[:2] for line in result.stdout.splitlines()[1:]]
  bad = {kind for mark, kind in lines if mark != "ok"}
  assert len(lines) == len(official_differences.BOUNDS), result.stderr
  assert bad <= {"key"}
  assert ["ok", "parameters"] in lines
