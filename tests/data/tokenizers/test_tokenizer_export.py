"""tokenizer.json of a SentencePiece model, read by the tokenizers package.

The package has code of its own for unigram and BPE models.

test_tokenizer_parity.py has transformers read the same files.
"""

import gzip
import json
import re

import pytest
import small_corpus
import small_tokenizers
import tokenizers
from small_tokenizers import sentencepiece_files
from test_tokenizer_trim import MAKE

from infoxlm_jax.data.prepare import job
from infoxlm_jax.data.tokenizers.base import tokenizer_from_files
from infoxlm_jax.data.tokenizers.export import (
  hugging_face_files,
  why_not_exported,
)
from infoxlm_jax.errors import InputError


def _texts():
  path = small_corpus.DATA / "verses.test.tsv.gz"
  with gzip.open(path, "rt", encoding="utf-8") as file:
    cells = [c for line in list(file)[1:80] for c in line.split("\t")[1:]]
  odd = ["", " ", " a  b\t c ", "ﬁne Ⅳ ①", "世界　☃☃ 🎉", "e\u0301", "\u200b"]
  return [*cells, *odd]


def _bpe_with_bytes():
  return sentencepiece_files(model_type="bpe", byte_fallback=True)


@pytest.mark.parametrize(
  "kind", ["shipped", "spm bytes", "spm bpe", "spm bpe bytes"]
)
def test_same_ids(kind):
  make = MAKE | {"spm bpe bytes": _bpe_with_bytes}
  ours = tokenizer_from_files(make[kind](), kind)
  files = hugging_face_files(ours, 128)
  assert files["sentencepiece.bpe.model"] == ours.files["tokenizer.model"]
  package = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
  assert package.get_vocab_size() == ours.vocab_size
  for text in _texts():
    ids = ours.encode(text).tolist()
    assert package.encode(text).ids == [0, *ids, 2], text
    if ours.unk_id not in ids:
      assert package.decode(ids) == ours.decode(ids)
  pair = package.encode("a", "b").ids
  assert pair[0] == 0 and pair.count(2) == 3 and pair[-1] == 2
  # Our own reader finds the same tokenizer in either file.
  json_only = {"tokenizer.json": files["tokenizer.json"]}
  read = tokenizer_from_files(json_only, "exported")
  assert read.mask_id == ours.mask_id
  assert read.special_ids == ours.special_ids
  found = tokenizer_from_files(files, "exported")
  assert found.sha256 == ours.sha256


@pytest.mark.parametrize(
  ("normalizer", "name"),
  [("nmt_nfkc", "XLMRobertaTokenizer"), ("nfkc", "PreTrainedTokenizerFast")],
)
def test_configs(normalizer, name):
  """XLM-R's own rules make tabs spaces; its class splits at them anyway."""
  files = sentencepiece_files(normalization_rule_name=normalizer)
  ours = tokenizer_from_files(files, "x")
  config = json.loads(hugging_face_files(ours, 77)["tokenizer_config.json"])
  assert config["tokenizer_class"] == name
  assert config["model_max_length"] == 77
  assert (config["cls_token"], config["mask_token"]) == ("<s>", "<mask>")


def test_json_as_it_was():
  content = small_tokenizers.wordpiece()
  ours = tokenizer_from_files({"tokenizer.json": content}, "x")
  assert hugging_face_files(ours)["tokenizer.json"] == content


@pytest.mark.parametrize(
  ("kind", "message"),
  [
    ("spm char", "it is neither a unigram nor a BPE model"),
    ("spm user-defined", "user-defined or unused .'God'"),
  ],
)
def test_what_tokenizer_json_cannot_say(kind, message):
  ours = tokenizer_from_files(MAKE[kind](), kind)
  with pytest.raises(InputError, match=message):
    hugging_face_files(ours)
  said = why_not_exported(ours)
  assert said and re.search(f"{message}.*the weights alone", said)
  assert why_not_exported(tokenizer_from_files(MAKE["spm bpe"](), "x")) is None


def test_it_is_said_before_anything_is_prepared(tmp_path, caplog, capsys):
  path = tmp_path / "char.model"
  path.write_bytes(MAKE["spm char"]()["tokenizer.model"])
  job.prepare(
    model_dir=str(tmp_path / "out"),
    tokenizer=str(path),
    corpora=[],
    row_length=64,
    dry_run=True,
  )
  assert "char.model cannot be written for transformers" in caplog.text
  assert "token ids, from" in capsys.readouterr().out
