"""A run begun when checkpoints had format 1 goes on.

expected/run_format_1.tar.xz was made by commit 2348b73: the options below, 20
updates; once in one go (losses and gradient norms of updates 13 to 20 are
kept), once stopped by SIGTERM at update 12 (its folder is kept).
"""

import dataclasses
import json
import tarfile

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import small_corpus
import small_run

from infoxlm_jax.checkpoint.exporters.source import open_source
from infoxlm_jax.checkpoint.manager import Checkpoints
from infoxlm_jax.data.prepare.pipeline import prepare
from infoxlm_jax.model import partitioning
from infoxlm_jax.runtime.metrics import read_metrics
from infoxlm_jax.training import pretrain
from infoxlm_jax.training.program import make_program


@pytest.fixture(scope="module")
def unpacked(expected, tmp_path_factory):
  folder = tmp_path_factory.mktemp("format_1")
  with tarfile.open(expected / "run_format_1.tar.xz") as archive:
    archive.extractall(folder, filter="data")
  return folder


def _options(folder):
  def prepare_here(output):
    return prepare(output, **small_corpus.OPTIONS)

  model = small_run.options(folder)["model"]
  return small_run.options(
    folder,
    model=dataclasses.replace(model, hidden_size=8, ffn_size=16),
    data=None,
    prepare=prepare_here,
    eval_every=5,
    save_every=100,
  )


def _by_orbax(run):
  """The arrays of the checkpoint as they are on disk."""
  with ocp.StandardCheckpointer() as reader:
    return reader.restore(run / "checkpoints" / "12" / "state")


def test_arrays_come_back(unpacked):
  stored = _by_orbax(unpacked / "run")
  assert {"key_params", "queue"} <= set(stored)
  options = _options(unpacked / "run")
  program = make_program(
    options["model"],
    options["objectives"],
    options["streams"],
    options["update"],
    options["parallelism"],
    partitioning.make_mesh(options["parallelism"].mesh),
  )
  with Checkpoints(unpacked / "run" / "checkpoints") as checkpoints:
    restored = checkpoints.restore(program.state)
  assert restored is not None
  state, _ = restored
  contrast = state.objective_state["xlco"]
  for ours, theirs in (
    (state.params, stored["params"]),
    (contrast.key_params, stored["key_params"]),
    (contrast.queue.keys, stored["queue"]["keys"]),
    (contrast.queue.pushes, stored["queue"]["pushes"]),
    (jax.tree.leaves(state.opt_state), jax.tree.leaves(stored["opt_state"])),
    (state.step, 12),
  ):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_its_key_encoder_is_found(unpacked):
  source = open_source(unpacked / "run", encoder="key")
  stored = _by_orbax(unpacked / "run")["key_params"]
  assert source.config.num_layers == 1
  jax.tree.map(
    np.testing.assert_array_equal, source.params["layers"], stored["layers"]
  )


def test_it_goes_on_as_it_would_have(unpacked):
  run = unpacked / "run"
  pretrain.pretrain(**_options(run))
  wanted = json.loads((unpacked / "updates_13_to_20.json").read_text())
  rows = {row["step"]: row for row in read_metrics(run) if "train/loss" in row}
  assert [row["step"] for row in wanted] == list(range(13, 21))
  for row in wanted:
    for name, value in row.items():
      assert rows[row["step"]][name] == pytest.approx(value, rel=1e-5), name
  assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["12", "20"]
  stored = _by_orbax_new(run)
  assert "objective_state" in stored and "key_params" not in stored


def _by_orbax_new(run):
  with ocp.StandardCheckpointer() as reader:
    return reader.restore(run / "checkpoints" / "20" / "state")
