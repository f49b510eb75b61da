"""Our own checkpoints as a source, the command, and runs that start there."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import oracle
import pytest
import small_corpus
import small_run
from weights_files import assert_same

from infoxlm_jax.checkpoint import checksums
from infoxlm_jax.checkpoint.importers.load import load_weights, model_of
from infoxlm_jax.checkpoint.manager import write_params
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.model import partitioning
from tools import bench_import, import_checkpoint


def convert(source, output, *flags):
  code = import_checkpoint.main(
    ["--input", str(source), "--output", str(output), *map(str, flags)]
  )
  assert code == 0
  return output


@pytest.mark.parametrize("name", ["xlmr_mlm", "bert_pretraining", "xlm_lm"])
def test_to_a_checkpoint_and_back(tmp_path, capsys, name):
  source = oracle.ORACLES / name
  config, params, report = load_weights(source)
  own = convert(source, tmp_path / "own")
  assert str(report) in capsys.readouterr().out
  assert {p.name for p in own.iterdir()} == {"state", "files"}
  assert [p.name for p in tmp_path.iterdir()] == ["own"]
  found, again, _ = load_weights(own)
  assert found == config == model_of(own)
  assert_same(again, params)
  mesh = partitioning.make_mesh(partitioning.MeshShape(data=4, fsdp=2))
  laid_out = load_weights(own, mesh=mesh)[1]
  assert_same(laid_out, params)
  assert "fsdp" in laid_out["layers"]["ffn_in"]["kernel"].sharding.spec
  # Its own import is the same once more, and some heads may be left out.
  twice = convert(own, tmp_path / "twice")
  _, some, report = load_weights(twice, heads=[])
  assert some["heads"] == {}
  assert_same(some["layers"], params["layers"])
  assert set(report.ignored.values()) == {"a head that is not asked for"}


def test_with_a_tokenizer(tmp_path, capsys):
  source = small_run.hugging_face(tmp_path / "model")
  own = convert(source, tmp_path / "own")
  stored = (own / "files" / "tokenizer.model").read_bytes()
  assert stored == Path(small_corpus.TOKENIZER).read_bytes()
  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  described = json.loads((own / "files" / "model.json").read_text())
  assert described["tokenizer_sha256"] == tokenizer.sha256
  assert described["special_ids"]["mask"] == tokenizer.mask_id
  assert model_of(own).ids.size == tokenizer.vocab_size
  # So INIT_FROM alone says which tokenizer a run takes.
  assert load_tokenizer(own).sha256 == tokenizer.sha256
  assert "with a tokenizer" in capsys.readouterr().out
  # A checkpoint keeps what it has.
  again = convert(own, tmp_path / "again") / "files"
  for name in ("tokenizer.model", "model.json"):
    assert (again / name).read_bytes() == (own / "files" / name).read_bytes()


def test_a_tokenizer_that_does_not_fit(tmp_path, capsys):
  code = import_checkpoint.main(
    [
      f"--input={oracle.ORACLES / 'xlmr_mlm'}",
      f"--output={tmp_path / 'own'}",
      f"--tokenizer={small_corpus.TOKENIZER}",
    ]
  )
  assert code == 2
  assert "More rows than ids are normal" in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_the_command(tmp_path, root):
  """As a person runs it, from another folder."""
  command = [sys.executable, root / "tools" / "import_checkpoint.py"]
  run = {"cwd": tmp_path, "capture_output": True, "text": True}
  helped = subprocess.run([*command, "--help"], **run)
  assert helped.returncode == 0 and "nothing is downloaded" in helped.stdout
  done = subprocess.run(
    [*command, "--input", oracle.ORACLES / "xlmr_mlm", "--output", "own"], **run
  )
  assert done.returncode == 0, done.stderr
  assert "loaded       42 tensors into 22 arrays" in done.stdout
  assert load_weights(tmp_path / "own")[0].vocab_size == 101


@pytest.fixture(scope="module")
def own(tmp_path_factory):
  """A checkpoint of weights only; nobody writes here."""
  folder = tmp_path_factory.mktemp("own") / "own"
  return convert(oracle.ORACLES / "xlmr_mlm", folder)


def test_a_flipped_bit_is_told(own, tmp_path):
  copy = Path(shutil.copytree(own, tmp_path / "copy"))
  value = load_weights(own)[1]["layers"]["ffn_in"]["kernel"]
  start = np.asarray(value).tobytes()[:64]
  files = [p for p in (copy / "state").rglob("*") if p.is_file()]
  place = next(p for p in files if start in p.read_bytes())
  content = bytearray(place.read_bytes())
  at = content.index(start)
  content[at + 8] ^= 1
  place.write_bytes(bytes(content))
  with pytest.raises(InputError, match="layers/ffn_in/kernel is not what"):
    load_weights(copy)
  place.write_bytes(bytes(content[: at + 8]))
  with pytest.raises(InputError, match="cannot be read"):
    load_weights(copy)


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("model.json", b"{}", "model.json is not what was saved"),
    ("model.json", None, "model.json is not what was saved"),
    ("checksums.json", b"{}", "cannot be used as a checkpoint"),
    ("checksums.json", None, "cannot be used as a checkpoint"),
    ("checksums.json", b'{"format": 99, "files": {}}', "checkpoint format 99"),
  ],
)
def test_broken_files_are_told(own, tmp_path, name, content, message):
  copy = Path(shutil.copytree(own, tmp_path / "copy"))
  (copy / "files" / name).unlink()
  if content is not None:
    (copy / "files" / name).write_bytes(content)
  with pytest.raises(InputError, match=message):
    load_weights(copy)


def test_model_json_of_other_versions(tmp_path, own):
  params = jax.tree.map(np.asarray, load_weights(own)[1])
  described = json.loads((own / "files" / "model.json").read_text())
  for field in ("architecture", "activation", "tied", "num_ids", "mask_id"):
    del described["encoder"][field]  # unknown before there were three kinds
  old = {"model.json": json.dumps(described).encode()}
  write_params(tmp_path / "old", params, old)
  assert model_of(tmp_path / "old") == model_of(own)
  described["encoder"]["rotary"] = True
  late = {"model.json": json.dumps(described).encode()}
  write_params(tmp_path / "late", params, late)
  with pytest.raises(InputError, match="rotary, which this version does not"):
    model_of(tmp_path / "late")


def test_fingerprints_on_the_host_are_those_of_the_device():
  draw = np.random.default_rng(0)
  tree = {
    "a": draw.normal(size=(1300, 301)).astype(np.float32),  # several pieces
    "b": draw.integers(0, 2**32, 7, np.uint32),
    "c": np.float32(2.5).reshape(()),
    "d": draw.normal(size=(3, 5)).astype(np.float16),
  }
  assert checksums.describe(tree) == checksums.describe(
    jax.tree.map(jax.numpy.asarray, tree)
  )


@pytest.mark.slow
def test_peak_memory_of_a_base_size_import(capsys):
  """At most 1.3 times the file, all of Python and jax included.

  Also over a mesh, whether its devices split the arrays or each have all;
  and of several processes each holds its part only.
  """
  assert bench_import.main([]) == 0
  found = json.loads(capsys.readouterr().out)
  assert found["file_mb"] > 1100
  for what in ("load_weights", "import_checkpoint", "mesh", "replicas"):
    assert found[what]["ratio"] <= 1.3, found
  first, second = found["two_processes"]
  assert first["ratio_over_start"] + second["ratio_over_start"] <= 1.1, found
