"""The benchmark for accelerators, at toy shapes on the CPU."""

import argparse
import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from bench_common import PRESETS, Bench, Rows, synthetic

SHAPE = Rows(rows=4, length=16)
OPTIONS = argparse.Namespace(
  dtype="float32", attention="xla", remat="none", unroll=1, microbatches=1
)
# What a bare machine lacks: it has jax, flax and optax, and what these need.
ABSENT = (
  "array_record defusedxml gin grain matplotlib nervaluate orbax regex"
  " safetensors sentencepiece seqio tensorboardX tensorflow"
  " tensorflow_datasets tokenizers tqdm"
).split()


def _run(root, *command, code=0):
  done = subprocess.run(
    [sys.executable, *command], cwd=root, capture_output=True, text=True
  )
  assert done.returncode == code, done.stderr
  return done.stdout.splitlines()


def test_the_step_needs_jax_flax_and_optax_alone(root):
  """An update runs where the package's other needs cannot be imported."""
  program = f"""
import sys
for name in {ABSENT}:
  sys.modules[name] = None  # an import of it fails
sys.path.append("tools")
import bench_step
sys.argv = "x --preset toy --rows 4 --length 16 --warm 0 --steps 1".split()
bench_step.main()
"""
  report = json.loads(_run(root, "-c", program)[-1])
  assert report["tokens_per_step"] == 4 * 4 * 16
  assert np.isfinite(report["losses"]).all()


@pytest.mark.slow
def test_settings_are_tried_in_turn_and_one_that_fails_ends_alone(
  root, tmp_path
):
  lines = _run(
    root,
    *("tools/bench_accelerator.py", "--preset", "toy", "--rows", "3"),
    *("--length", "16", "--queue", "64", "--steps", "1", "--warm", "0"),
    *("--output", str(tmp_path / "report.json")),
  )
  report = json.loads(lines[-1])
  assert report == json.loads((tmp_path / "report.json").read_text())
  plain, dots, split = report["ours"]
  assert plain["losses"] == dots["losses"] and dots["remat"] == "dots"
  # Three rows do not divide into two microbatches: bench_step.py says so.
  assert "--microbatches 2" in split["error"]
  table = [line for line in lines if line.startswith("|3|xla|")]
  assert len(table) == 3 and split["error"] in table[-1]


@pytest.mark.parity
def test_the_update_in_pytorch_is_ours():
  """Losses of four updates from the same weights, at rates that matter."""
  import torch

  import bench_torch

  preset = PRESETS["toy"]
  batches = [synthetic(1, n, preset.vocab, SHAPE) for n in range(4)]
  ours = Bench(preset, batches[0], SHAPE.rows, OPTIONS)
  theirs = bench_torch.Update(preset, SHAPE, "cpu", False, "float32")
  ours.state = _with_full_queue(ours.state)
  _copy(ours.state, theirs)
  rates = iter(2e-4 * np.arange(4) / 10)  # the warm-up of both
  other = []
  for batch in batches:
    theirs.optimizer.param_groups[0]["lr"] = float(next(rates))
    other.append(float(theirs(batch)))
  ours.seconds(iter(batches), 0, 4)
  np.testing.assert_allclose(ours.losses, other, atol=2e-5)
  token = ours.state.params["embed"]["token"]
  with torch.no_grad():
    own = theirs.model.encoder.token.weight.numpy()
  np.testing.assert_allclose(np.asarray(token), own, atol=2e-6)


def _with_full_queue(state):
  """The state with 64 keys, which an update replaces from the first on."""
  import jax

  own = state.objective_state["xlco"]
  keys = np.random.default_rng(0).normal(size=own.queue.keys.shape) / 8
  queue = dataclasses.replace(
    own.queue,
    keys=jax.device_put(keys.astype("f4"), own.queue.keys.sharding),
    pushes=jax.device_put(np.int32(16), own.queue.pushes.sharding),
  )
  return dataclasses.replace(
    state, objective_state={"xlco": dataclasses.replace(own, queue=queue)}
  )


def _copy(state, update):
  """Our weights and queue into the program in PyTorch."""
  import torch

  def put(target, value):
    value = np.array(value, np.float32)
    with torch.no_grad():
      target.copy_(torch.from_numpy(value.reshape(target.shape)))

  def encoder(module, params):
    embed = params["embed"]
    put(module.token.weight, embed["token"])
    rows = len(module.position.weight)
    put(module.position.weight, embed["position"][:rows])
    norm(module.norm, embed["norm"])
    for number, layer in enumerate(module.layers):
      for name, own in params["layers"].items():
        one = {key: value[number] for key, value in own.items()}
        to = getattr(layer, name)
        if "scale" in one:
          norm(to, one)
        else:
          outputs = one["bias"].size  # an axis or several
          linear(to, one["kernel"].reshape(-1, outputs), one["bias"])

  def norm(module, own):
    put(module.weight, own["scale"])
    put(module.bias, own["bias"])

  def linear(module, kernel, bias):
    put(module.weight, np.array(kernel).T)
    put(module.bias, np.array(bias).reshape(-1))

  model, heads = update.model, state.params["heads"]
  contrast = state.objective_state["xlco"]
  keys = contrast.key_params
  encoder(model.encoder, state.params)
  linear(
    model.dense,
    heads["masked_lm"]["dense"]["kernel"],
    heads["masked_lm"]["dense"]["bias"],
  )
  norm(model.head_norm, heads["masked_lm"]["norm"])
  put(model.bias, heads["masked_lm"]["bias"])
  put(model.projection, heads["contrast"]["projection"])
  encoder(update.key_encoder, keys)
  put(update.key_projection, keys["heads"]["contrast"]["projection"])
  put(update.queue, contrast.queue.keys)
