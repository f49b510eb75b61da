"""Whole updates of the authors' trainer, through the step that training uses.

Each file has what the others have not: accumulation, a delayed start, batches
without a masked token, updates that overflow.
"""

import dataclasses
import inspect
import os
import platform
import subprocess
import sys
from pathlib import Path

import gin.config
import numpy as np
import pytest

from infoxlm_jax import gin_utils
from infoxlm_jax.analysis import official, official_differences
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
