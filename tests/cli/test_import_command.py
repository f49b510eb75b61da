"""The command infoxlm-import-checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import oracle
import pytest
import small_corpus
import small_run
from weights_files import assert_same

from infoxlm_jax.checkpoint.importers.load import load_weights, model_of
from infoxlm_jax.cli.import_checkpoint import main
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.model import partitioning


def convert(source, output, *flags):
  code = main(
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


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"--tokenizer": small_corpus.TOKENIZER},
      "More rows than ids are normal",
    ),
    ({"--tokenizer": "absent"}, "cannot read the tokenizer absent"),
    ({"--input": "absent"}, "absent: no such file or folder"),
    ({"--output": "file"}, "file exists"),
    ({"--output": "file/own"}, "file is no folder"),
  ],
)
def test_bad_input_is_one_line_and_writes_nothing(
  tmp_path, monkeypatch, refused, changes, message
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "file").write_text("")
  options = {
    "--input": oracle.ORACLES / "xlmr_mlm",
    "--output": "own",
  } | changes
  error = refused(main, *(word for pair in options.items() for word in pair))
  assert message in error
  assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_process_of_its_own(tmp_path, root, monkeypatch):
  """As a person runs it, from another folder."""
  monkeypatch.setenv("PYTHONPATH", str(root))
  command = [sys.executable, root / "tools" / "import_checkpoint.py"]
  command += ["--input", oracle.ORACLES / "xlmr_mlm", "--output", "own"]
  done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "loaded       42 tensors into 22 arrays" in done.stdout
  assert load_weights(tmp_path / "own")[0].vocab_size == 101
