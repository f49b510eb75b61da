"""Ids are compared with transformers' in the folder that was imported."""

import dataclasses
import json
import shutil

import oracle
import pytest
import small_corpus
import small_model

from infoxlm_jax.checkpoint.exporters import export, source
from infoxlm_jax.checkpoint.exporters.model_card import About
from infoxlm_jax.checkpoint.importers.compare_tokenizer import (
  SENTENCES,
  compare_with_folder,
)
from infoxlm_jax.checkpoint.importers.find_tokenizer import (
  imported_folder,
  with_ids_of,
)
from infoxlm_jax.cli import import_checkpoint
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError

TEXTS = (*SENTENCES, "In the beginning [ENT] God created", "", "  a  b ")


@pytest.fixture(scope="module")
def camembert(tmp_path_factory):
  """A folder as CamemBERT's: SentencePiece, its class, a token added."""
  folder = tmp_path_factory.mktemp("camembert") / "model"
  shutil.copytree(small_model.folder(), folder)
  (folder / "tokenizer.json").unlink()
  config = json.loads((folder / "config.json").read_text())
  config |= {"model_type": "camembert", "architectures": ["CamembertModel"]}
  (folder / "config.json").write_text(json.dumps(config))
  (folder / "tokenizer_config.json").write_text(
    '{"tokenizer_class": "CamembertTokenizer"}'
  )
  (folder / "special_tokens_map.json").unlink()
  (folder / "added_tokens.json").write_text('{"[ENT]": 8005}')
  return folder


@pytest.fixture(scope="module")
def imported(camembert, tmp_path_factory):
  """Its checkpoint; nobody writes here."""
  output = tmp_path_factory.mktemp("imported") / "checkpoint"
  flags = ["--input", str(camembert), "--output", str(output)]
  assert import_checkpoint.main([*flags, "--skip_comparison"]) == 0
  return output


def test_a_checkpoint_knows_its_folder(camembert, imported, tmp_path):
  assert imported_folder(camembert) == camembert
  assert imported_folder(camembert / "model.safetensors") == camembert
  assert imported_folder(imported) == camembert
  assert imported_folder(imported / "x", camembert) == camembert
  named = tmp_path / "my.model"
  shutil.copy(small_corpus.TOKENIZER, named)
  shutil.copy(camembert / "added_tokens.json", tmp_path)
  assert imported_folder(camembert, named) is None
  # A run that started from the checkpoint.
  run = tmp_path / "run"
  steps = run / "checkpoints"
  steps.mkdir(parents=True)
  plain = ["--input", str(oracle.ORACLES / "xlmr_mlm")]
  assert import_checkpoint.main([*plain, "--output", str(steps / "1")]) == 0
  identity = run / "identity.json"
  identity.write_text(json.dumps({"init_from": str(imported)}))
  assert imported_folder(run) == camembert
  identity.write_text(json.dumps({"init_from": str(tmp_path / "gone")}))
  assert imported_folder(run) is None


def test_nothing_to_compare_with_is_said(tmp_path):
  ours = load_tokenizer(small_corpus.TOKENIZER)
  for folder in (None, tmp_path):
    assert "not compared" in compare_with_folder(ours, folder)


def test_ids_of_the_imported_checkpoint(imported):
  """CamemBERT's: piece + 4; XLM-R's would be piece + 1."""
  found = source.open_source(imported)
  ids = found.config.ids
  assert (ids.bos, ids.pad, ids.eos, ids.unk, ids.mask) == (5, 1, 6, 3, 8004)
  plain = load_tokenizer(small_corpus.TOKENIZER)
  text = "In the beginning God created"
  shifted = [i + 3 for i in plain.encode(text).tolist()]
  assert found.tokenizer.encode(text).tolist() == shifted


@pytest.mark.parity
def test_import_and_export_in_transformers(
  camembert, imported, tmp_path, capsys
):
  import transformers

  flags = ["--input", str(camembert), "--output", str(tmp_path / "again")]
  assert import_checkpoint.main(flags) == 0
  said = (
    f"ids: equal to those of transformers' CamembertTokenizer in {camembert}"
  )
  assert said in capsys.readouterr().out
  found = source.open_source(imported)
  lines = export.export_transformers(found, tmp_path / "out", About("test"))
  assert said in lines
  theirs, exported = (
    transformers.AutoTokenizer.from_pretrained(folder)
    for folder in (camembert, tmp_path / "out")
  )
  expected = theirs(list(TEXTS))["input_ids"]
  assert exported(list(TEXTS))["input_ids"] == expected
  assert 8005 in expected[-3]


@pytest.mark.parity
def test_wrong_ids_are_found(camembert, tmp_path):
  """XLM-R's numbering, as the file alone would have it."""
  found = source.open_source(camembert)
  plain = load_tokenizer(small_corpus.TOKENIZER)
  config = with_ids_of(found.config, plain, "here")
  wrong = dataclasses.replace(found, tokenizer=plain, config=config)
  with pytest.raises(InputError, match="id 0 is '<s>NOTUSED' for transform"):
    export.export_transformers(wrong, tmp_path / "out", About("test"))
  assert not (tmp_path / "out").exists()
  with pytest.raises(InputError, match="id 0 is '<s>NOTUSED'"):
    compare_with_folder(plain, camembert)


@pytest.mark.parity
@pytest.mark.parametrize(
  ("config", "reason"),
  [
    ('{"tokenizer_class": "XLMRobertaTokenizer"}', "finds no vocabulary in"),
    ("{", "cannot read"),
  ],
)
def test_a_folder_that_transformers_cannot_read(tmp_path, config, reason):
  (tmp_path / "tokenizer_config.json").write_text(config)
  said = compare_with_folder(load_tokenizer(small_corpus.TOKENIZER), tmp_path)
  assert f"transformers {reason}" in said
