"""Costs of a run on machines that are not here."""

import dataclasses
import importlib.util
import json
import math
import os
import re
import subprocess
import sys

import gin.config
import jax
import jax.numpy as jnp
import pytest

from infoxlm_jax.analysis import (
  compile_ahead,
  compile_report,
  cost_model,
  roofline,
  targets,
)
from infoxlm_jax.analysis.chips import CHIPS
from infoxlm_jax.analysis.hlo import Collective
from infoxlm_jax.data import streams
from infoxlm_jax.errors import InputError
from infoxlm_jax.main import main
from infoxlm_jax.model import encoder, partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.contrast import Contrast
from infoxlm_jax.objectives.masked_lm import MaskedLM
from infoxlm_jax.training import optimizer, schedules
from infoxlm_jax.training import state as train_state
from infoxlm_jax.training.options import Parallelism, UpdateOptions
from infoxlm_jax.training.program import make_program

RUNS = ("infoxlm_base", "infoxlm_base_readme", "infoxlm_large")
# Each machine's devices, and its chip if it has one.
MESHES = {
  "one_device": (1, None),
  "cpu_8": (8, None),
  "h100_8": (8, "h100"),
  "v5e_16": (16, "v5e"),
  "v5p_64": (32, "v5p"),
  "v6e_256": (256, "v6e"),
  "two_slices": (32, "v5e"),
}
MISSING = {"tpu": "libtpu", "cuda": "jax_cuda12_plugin"}


@pytest.fixture(autouse=True)
def _leave_no_configuration():
  yield
  gin.config.clear_config()


def _file(kind, name):
  return f"--gin_file=gin/{kind}/{name}.gin"


# Names of machines


@pytest.mark.parametrize(
  ("name", "chip", "count", "slices"),
  [
    ("v5e:4x4", "v5e", 16, 1),
    ("2*v5e:4x4", "v5e", 32, 2),
    ("v5p:2x4x4", "v5p", 32, 1),
    ("cuda:h100:8", "h100", 8, 1),
    ("2*cuda:a100:8", "a100", 16, 2),
  ],
)
def test_names_of_machines(name, chip, count, slices):
  target = targets.parse(name)
  assert target.chip is CHIPS[chip]
  assert (target.count, target.slices) == (count, slices)


@pytest.mark.parametrize(
  ("name", "says"),
  [
    ("v5f:4x4", "did you mean v5p?"),
    ("v5e", "such as v5e:4x4"),
    ("v5e-16", "such as v5e:4x4"),
    ("v5e:16", "give v5e's shape as v5e:4x4"),
    ("v5p:4x4", "give v5p's shape as v5p:2x2x4"),
    ("h100:8", "give h100's shape as cuda:h100:8"),
    ("cuda:v5e:4x4", "give v5e's shape as v5e:4x4"),
  ],
)
def test_names_that_are_none(name, says):
  with pytest.raises(InputError, match=re.escape(says)):
    targets.parse(name)


@pytest.mark.parametrize(
  ("name", "says"), [("v5e:2x2", "tpu-compile"), ("cuda:h100:8", "cuda")]
)
def test_what_to_install(name, says):
  package = MISSING[targets.parse(name).chip.platform]
  if importlib.util.find_spec(package):
    pytest.skip(f"{package} is installed here")
  with pytest.raises(InputError, match=rf"pip install -e '\.\[{says}\]'"):
    targets.devices(targets.parse(name))


def test_every_gpu_has_a_description():
  for chip in CHIPS.values():
    if chip.platform == "cuda":
      text = targets.gpu_description(chip)
      assert f"device_memory_size: {chip.memory}\n" in text
      assert text.count("{") == text.count("}")


# The bound


def test_bound_by_hand():
  chip = CHIPS["v5e"]  # 197 TFLOP/s, 819 GB/s, 200 GB/s, 3.125 GB/s
  bound = roofline.lower_bound(chip, "bfloat16", 197e12, 819e8, 400e9, 6.25e9)
  assert dataclasses.astuple(bound) == pytest.approx((1.0, 0.1, 2.0, 2.0))
  assert (bound.seconds, bound.by) == (2.0, "links")
  # float32 products are TF32 on a GPU, half as fast.
  bound = roofline.lower_bound(CHIPS["h100"], "float32", 989.4e12, 0, 0, 0)
  assert bound.compute == pytest.approx(2.0) and bound.by == "compute"
  unknown = roofline.lower_bound(CHIPS["v5p"], "bfloat16", 459e12, 0, 0, 1e9)
  assert unknown.network is None and unknown.seconds == pytest.approx(1.0)


@pytest.mark.parametrize(
  ("kind", "devices", "bytes_"),
  [
    ("all-gather", 4, 750),  # three quarters are the others'
    ("reduce-scatter", 2, 500),
    ("all-reduce", 4, 1500),  # reduce-scatter, then all-gather
    ("all-reduce", 1, 0),
  ],
)
def test_bytes_that_must_be_sent(kind, devices, bytes_):
  assert roofline.exchanged(kind, 1000, devices) == bytes_


def test_traffic_by_hand():
  def one(kind, size, groups, loops=()):
    return Collective(kind, size, size, groups, loops, "")

  everyone = (tuple(range(8)),)
  halves = ((0, 1, 2, 3), (4, 5, 6, 7))
  across = ((0, 4), (1, 5), (2, 6), (3, 7))
  # One slice of 8: 2 x 7/8 of 800 bytes, in a loop of 3 x 2.
  summed = one("all-reduce", 800, everyone, (3, 2))
  assert roofline.traffic([summed], 8) == (6 * 1400, 0)
  # Two slices of 4: 2 x 3/4 of 800 inside; then a quarter, 2 x 1/2 of it.
  assert roofline.traffic([summed], 8, 2) == (6 * 1200, 6 * 200)
  assert roofline.traffic([one("all-gather", 800, halves)], 8, 2) == (600, 0)
  assert roofline.traffic([one("all-gather", 800, across)], 8, 2) == (0, 400)
  pairs = one("collective-permute", 800, ((0, 1), (1, 0)))
  assert roofline.traffic([pairs], 8, 2) == (800, 0)


# From shapes

MODEL = EncoderConfig(
  vocab_size=500,
  num_layers=2,
  hidden_size=32,
  num_heads=2,
  ffn_size=64,
  max_positions=32,
  dtype="bfloat16",
  remat="full",
)
OBJECTIVES = {
  "mlm": MaskedLM("mlm", logits_chunk=64),
  "xlco": Contrast(layer=1, queue_size=64, projection=False),
}
STREAMS = {
  "mlm": streams.TextStream(batch=16, rows=16, row_length=32),
  "xlco": streams.ContrastStream(batch=16, rows=16, row_length=32),
}


def _recipe(adam, microbatches=1, objectives=OBJECTIVES):
  batches = {name: stream.batch for name, stream in STREAMS.items()}
  return train_state.Recipe(MODEL, objectives, adam, batches, microbatches)


def _state(mesh, objectives=OBJECTIVES):
  adam = optimizer.adamw(schedules.constant(1e-3))
  return train_state.abstract(_recipe(adam, objectives=objectives), mesh)


def test_bytes_of_the_state():
  """On a mesh that is not here, by hand: 4 x 2 over data and fsdp."""
  mesh = partitioning.abstract_mesh(partitioning.MeshShape(data=4, fsdp=2), 8)
  sizes = cost_model.state_bytes(_state(mesh, {"xlco": OBJECTIVES["xlco"]}))
  d, f, v, p = 32, 64, MODEL.padded_vocab, 34
  layer_split = 4 * d * d + 2 * d * f  # kernels
  layer_whole = 4 * d + f + d + 4 * d  # their biases, and two norms
  layer = layer_split // 2 + layer_whole
  embed = (v * d + p * d) // 2 + 2 * d
  assert sizes["params"] == 4 * (2 * layer + embed)
  assert sizes["key_params"] == 4 * (layer + embed)
  moments = sizes["opt_state"] - 2 * sizes["params"]
  assert 0 <= moments < 64  # and the numbers of updates
  assert sizes["queue"] == 4 * 64 * d // 8 + 4


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("run", RUNS)
def test_every_run_on_every_mesh(run, mesh, tmp_path, monkeypatch, capsys):
  """From shapes, on a CPU, without weights and data."""
  monkeypatch.chdir(tmp_path)
  args = [_file("runs", run), _file("meshes", mesh), "--dry_run", "--json=a"]
  assert main(args) == 0, capsys.readouterr().err
  report = json.loads((tmp_path / "a").read_text())
  devices, chip = MESHES[mesh]
  assert report["devices"] == devices
  assert math.prod(report["mesh"].values()) == devices
  # The numbers of the models: spec, part 1 (279M and about 560M).
  size = 560e6 if run == "infoxlm_large" else 278e6
  assert report["parameters"] == pytest.approx(size, rel=0.01)
  if chip is not None:
    assert report["fits_estimate"] == {chip: True}
    assert report["bound_seconds"]["compute"] == pytest.approx(
      report["flops_total"] / devices / CHIPS[chip].peak["bfloat16"]
    )
  said = capsys.readouterr().out
  assert "peak, estimated" in said and "should fit" in said
  assert os.listdir(tmp_path) == ["a"]


def test_paper_settings(monkeypatch, tmp_path, capsys):
  """Of the resolved configuration: 150K / 200K updates and so on."""
  monkeypatch.chdir(tmp_path)
  for run, settings in (
    ("infoxlm_base", ("STEPS = 150000", "PEAK_RATE = 0.0002", "0.9999")),
    ("infoxlm_base_readme", ("STEPS = 200000", "PEAK_RATE = 0.0002", "0.9999")),
    ("infoxlm_large", ("STEPS = 200000", "PEAK_RATE = 0.0001", "0.999")),
  ):
    assert main([_file("runs", run), "--dry_run", "--print_config"]) == 0
    said = capsys.readouterr().out
    *macros, momentum = settings
    layer = 12 if run == "infoxlm_large" else 8
    for line in (
      *macros,
      f"schedules.constant.value = {momentum}",
      f"CONTRAST_LAYER = {layer}",
      "WARMUP_STEPS = 10000",
      "BATCH = 2048",
      "ROW_LENGTH = 512",
      "contrast.Contrast.queue_size = 131072",
    ):
      assert f"{line}\n" in said, (run, line)


def test_run_files_are_short_and_begin_with_their_command(root):
  for file in sorted((root / "gin" / "runs").glob("*.gin")):
    first, *lines = file.read_text().splitlines()
    command = f"# python -m infoxlm_jax.main --gin_file=gin/runs/{file.name}"
    assert first.startswith(command), file
    own = [line for line in lines if re.match(r"[\w./]+ = ", line)]
    assert own, file
    if file.stem in RUNS:
      assert len(own) < 15, file


def test_a_run_still_needs_weights_and_data(capsys):
  assert main([_file("runs", "infoxlm_base")]) == 2
  said = capsys.readouterr().err
  for name in ("INIT_FROM", "DATA", "MODEL_DIR"):
    assert f"--gin.{name}=" in said


@pytest.mark.parametrize(
  ("args", "says"),
  [
    ([_file("runs", "infoxlm_base"), "--json=a"], "goes with --dry_run"),
    (
      [_file("runs", "infoxlm_base"), "--dry_run", "--json=none/a"],
      "there is no such folder",
    ),
    (
      [_file("runs", "infoxlm_base"), "--compile_for=v9:2x2"],
      "no chip 'v9' is known",
    ),
    (
      [_file("runs", "continue"), "--dry_run", "--gin.MONO=a", "--gin.PAIRS=b"],
      "--gin.INIT_FROM=",
    ),
    (
      [_file("prepare", "text"), "--compile_for=v5e:2x2", "--gin.INPUT=a"]
      + ["--gin.TOKENIZER=b"],
      "--compile_for and --json are for training",
    ),
  ],
)
def test_bad_input(args, says, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main(args) == 2
  error = capsys.readouterr().err
  assert says in error and error.count("\n") == 1
  assert not os.listdir(tmp_path)


# Compiled

# A chip that this CPU is taken for; too small for anything.
SMALL = dataclasses.replace(CHIPS["v5e"], name="small", memory=4096)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
  """The report of a step that is compiled and does not fit, and the error."""
  rate = schedules.constant(1e-3)
  program = make_program(
    MODEL,
    OBJECTIVES,
    STREAMS,
    UpdateOptions(optimizer.adamw(rate), rate),
    Parallelism(groups=16, microbatches=2),
    partitioning.make_mesh(partitioning.MeshShape(data=4, fsdp=2)),
  )
  file = tmp_path_factory.mktemp("report") / "compile.json"
  # Of XLA's passes none is left out by this, only the machine code is worse.
  jax.config.update("jax_disable_most_optimizations", True)
  with pytest.raises(compile_ahead.DoesNotFit) as error:
    compile_ahead.report_costs(
      program,
      target=targets.Target("eight of them", SMALL, (4, 2)),
      compiling=True,
      json_file=str(file),
    )
  jax.config.update("jax_disable_most_optimizations", False)
  return json.loads(file.read_text()), str(error.value)


def test_what_does_not_fit_names_three_settings(compiled):
  report, error = compiled
  assert report["fits"] is False and report["peak_bytes"] > 4096
  assert "eight of them: the step does not fit" in error
  assert len(re.findall(r"--gin\.\w+|--gin\.[\w.]+=", error)) >= 2
  said = compile_report.remedies(report)
  assert "--gin.MICROBATCHES=4 (now 2, and --gin.GROUPS=32)" in said
  assert "fsdp=4 (now 2)" in said
  assert said.count(";") == 2
  # remat is full and the chunk small already: nothing to gain there.
  assert "REMAT" not in said and "LOGITS_CHUNK" not in said


def test_remedies_begin_with_what_is_largest():
  report = {
    "settings": {
      "microbatches": 1,
      "groups": 8,
      "zero1": False,
      "remat": "none",
      "logits_chunk": 4096,
    },
    "state_bytes": {"params": 1, "opt_state": 2},
    "temporary_bytes_estimate": {
      "gradients": 1,
      "kept": 5,
      "layer": 1,
      "softmax": 100,
    },
    "mesh": {"data": 4, "fsdp": 1},
    "devices": 4,
  }
  said = compile_report.remedies(report)
  assert [part.split(" (now")[0] for part in said.split("; ")] == [
    "Change one of these: --gin.MICROBATCHES=2",
    "--gin.LOGITS_CHUNK=1024 (now 4096)".split(" (now")[0],
    "--gin.REMAT=dots",
  ]


def test_a_compiled_report(compiled):
  report, _ = compiled
  state = sum(report["state_bytes"].values())
  batch = 4 * (9 * 16 * 32 + 16) // 8  # three arrays of three sides, items
  # On a CPU there is no padding of arrays.
  assert report["compiled_bytes"]["arguments"] == pytest.approx(
    state + batch, abs=64
  )
  loops = {
    (entry["kind"], tuple(entry["axes"]), tuple(entry["loops"]))
    for entry in report["collectives"]
  }
  # Layers are gathered where they are used, in the loop over microbatches (that
  # over two layers may be unrolled); gradients are summed once.
  assert ("all-gather", ("fsdp",), (2,)) in {
    (kind, axes, trips[:1]) for kind, axes, trips in loops
  }
  assert ("all-reduce", ("data",), ()) in loops
  sent = report["sent_bytes"]
  assert sent["in a slice"] > 0 and sent["between slices"] == 0
  seconds = report["bound_seconds"]
  assert report["bound"] == max(seconds.values())
  assert seconds["links"] == pytest.approx(sent["in a slice"] / 200e9)
  text = compile_report.in_words(report)
  assert re.search(r"all-gather +\d\S+ +\d+  fsdp +2", text)
  assert "fits              NO" in text and "compiled in" in text
  assert "lower bound" in text and "no forecast" in text


def test_collectives_of_one_kind_are_one_line():
  one = Collective("all-reduce", 10, 10, ((0, 1), (2, 3)), (3,), "jit(f)/psum")
  other = dataclasses.replace(one, bytes=1000, loops=())
  (first, second) = compile_ahead.summary(
    [one, one, other], {"data": 2, "fsdp": 2}
  )
  assert (first["bytes"], first["count"], first["times"]) == (1000, 1, 1)
  assert (second["count"], second["times"]) == (2, 6)
  assert second["axes"] == ("fsdp",)


def test_the_batch_has_the_shapes_that_the_loader_gives():
  mesh = partitioning.abstract_mesh(partitioning.MeshShape(data=8), 8)
  batch = compile_ahead.abstract_batch(STREAMS, 16, mesh)
  assert batch["mlm"]["tokens"].shape == (16, 1, 32)
  assert batch["xlco"]["query"]["segments"].shape == (16, 1, 32)
  assert batch["xlco"]["items"].shape == (16, 1)
  assert all(x.dtype == jnp.int32 for x in jax.tree.leaves(batch))
  tokens = batch["mlm"]["tokens"]
  assert tokens.sharding.shard_shape(tokens.shape) == (2, 1, 32)


def test_logits_are_the_largest_array_of_the_head():
  """The estimate's part of the vocabulary against the function itself."""
  head = jax.eval_shape(lambda: encoder.init_lm_head(jax.random.key(0), MODEL))
  table = jax.ShapeDtypeStruct((MODEL.padded_vocab, 32), jnp.float32)
  hidden = jax.ShapeDtypeStruct((64, 32), jnp.bfloat16)
  logits = jax.eval_shape(
    lambda *args: encoder.lm_logits(*args, MODEL), head, table, hidden
  )
  mesh = partitioning.abstract_mesh(available=1)
  sizes = cost_model.temporary_bytes(
    MODEL, _state(mesh), OBJECTIVES, STREAMS, mesh.shape, microbatches=1
  )
  assert sizes["softmax"] == 2 * logits.size * logits.dtype.itemsize


# With the compilers for TPUs, where they are installed

SMALL_BASE = [
  _file("runs", "infoxlm_base"),
  "--gin.config.EncoderConfig.num_layers=2",
  "--gin.config.EncoderConfig.hidden_size=64",
  "--gin.config.EncoderConfig.num_heads=4",
  "--gin.config.EncoderConfig.ffn_size=128",
  "--gin.config.EncoderConfig.vocab_size=2000",
  "--gin.CONTRAST_LAYER=1",
  "--gin.GROUPS=16",
  "--gin.BATCH=64",
  "--gin.MLM_ROWS=64",
  "--gin.TLM_ROWS=64",
  "--gin.XLCO_ROWS=64",
  "--gin.ROW_LENGTH=32",
  "--gin.PAIR_ROW_LENGTH=32",
  "--gin.MICROBATCHES=2",
]


def _compile(plain_env, folder, *args):
  if importlib.util.find_spec("libtpu") is None:
    pytest.skip("libtpu is not installed: pip install -e '.[tpu-compile]'")
  command = [sys.executable, "-m", "infoxlm_jax.main", *SMALL_BASE, *args]
  root = str(partitioning.__file__).rpartition("/infoxlm_jax/")[0]
  return subprocess.run(
    [*command, f"--json={folder / 'report'}"],
    env=plain_env | {"PYTHONPATH": root},
    cwd=folder,
    capture_output=True,
    text=True,
    timeout=500,
  )


@pytest.mark.slow
def test_compiles_for_a_tpu(plain_env, tmp_path):
  small = "--gin.contrast.Contrast.queue_size=256"
  done = _compile(
    plain_env, tmp_path, "--compile_for=v5e:2x2", "--gin.FSDP=2", small
  )
  assert done.returncode == 0, done.stderr
  report = json.loads((tmp_path / "report").read_text())
  assert report["fits"] and report["devices"] == 4
  assert report["peak_bytes"] < 2**30
  loops = {
    (entry["kind"], tuple(entry["axes"]), tuple(entry["loops"]))
    for entry in report["collectives"]
  }
  assert ("all-gather", ("fsdp",), (2, 2)) in loops
  assert ("all-reduce", ("data",), ()) in loops
  assert "lower bound" in done.stdout
  assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_step_that_the_compiler_finds_too_large(plain_env, tmp_path):
  """A queue of 40 GiB on one chip of 16."""
  large = "--gin.contrast.Contrast.queue_size=167772160"
  done = _compile(plain_env, tmp_path, "--compile_for=v5e:1x1", large)
  assert done.returncode == 1, done.stderr
  error = done.stderr[done.stderr.index("error: ") :]
  assert "does not fit" in error and "--gin.MICROBATCHES=4" in error
  assert json.loads((tmp_path / "report").read_text())["fits"] is False
