"""Weights that cannot be used: one paragraph, exit code 2, nothing written."""

import contextlib
import functools
import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import oracle
import pytest
import weights_files
from hypothesis import given
from hypothesis import strategies as st
from weights_files import tensors_of

from infoxlm_jax.checkpoint.importers.load import load_weights, model_of
from infoxlm_jax.checkpoint.importers.torch_pickle import check_zip
from infoxlm_jax.cli import import_checkpoint
from infoxlm_jax.errors import InputError

WORD = "roberta.embeddings.word_embeddings.weight"
POSITION = "roberta.embeddings.position_embeddings.weight"
TYPE = "roberta.embeddings.token_type_embeddings.weight"
QUERY = "roberta.encoder.layer.1.attention.self.query.weight"


def refused(path, capsys, *flags) -> str:
  """The message of the command; nothing may be left behind."""
  output = path.parent / "out"
  before = sorted(path.parent.iterdir())
  code = import_checkpoint.main(
    ["--input", str(path), "--output", str(output), *flags]
  )
  printed = capsys.readouterr()
  assert code == 2
  assert printed.out == ""
  assert sorted(path.parent.iterdir()) == before
  message = printed.err.strip()
  assert message.startswith("error: ") and "\n" not in message
  assert len(message) < 700
  return message


def changed(tmp_path, **tensors):
  """xlmr_mlm with other tensors; None leaves one out."""
  found = tensors_of("xlmr_mlm") | tensors
  kept = {k: v for k, v in found.items() if v is not None}
  return weights_files.write(tmp_path / "model", kept)


def test_nothing_there(tmp_path, capsys):
  message = refused(tmp_path / "absent", capsys)
  assert "no such file or folder" in message and "downloaded" in message


def test_a_folder_without_weights(tmp_path, capsys):
  weights_files.write_config(tmp_path)
  message = refused(tmp_path, capsys)
  assert "holds no weights" in message and "model.safetensors" in message


def test_an_unknown_kind_of_file(tmp_path, capsys):
  (tmp_path / "model.h5").write_bytes(b"x")
  assert "unknown kind of file" in refused(tmp_path / "model.h5", capsys)


def test_an_existing_output(tmp_path, capsys):
  (tmp_path / "out").mkdir()
  folder = weights_files.copy(tmp_path / "model")
  assert "exists: move it away" in refused(folder, capsys)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (None, "no config.json beside it"),
    (b"{", "is not JSON"),
    (b"\xff\xfe", "is not UTF-8"),
    (b"[" * 100000, "levels of nesting"),
    (b"[1]", "no JSON object"),
    (b"{}", "model_type is None"),
    (b'{"model_type": "gpt2"}', "model_type is 'gpt2'"),
    (
      b'{"model_type": "bert", "vocab_size": 9, "hidden_size": 8}',
      "num_hidden_layers, num_attention_heads, intermediate_size,"
      " max_position_embeddings are missing",
    ),
    (
      b'{"model_type": "xlm", "n_layers": 1, "emb_dim": 2, "n_heads": 1,'
      b' "max_position_embeddings": 8}',
      "vocab_size is missing",
    ),
    ({"num_hidden_layers": 10**12}, "num_layers is 1000000000000"),
    ({"num_hidden_layers": 0}, "num_layers is 0"),
    ({"num_attention_heads": 0}, "describes no model"),
    ({"hidden_size": "32"}, "describes no model"),
    ({"vocab_size": 10.5}, "vocab_size is 10.5"),
    ({"vocab_size": True}, "vocab_size is True"),
    ({"pad_token_id": None}, "describes no model"),
    ({"layer_norm_eps": "tiny"}, "layer_norm_eps is 'tiny'"),
  ],
)
def test_config(tmp_path, capsys, content, message):
  folder = weights_files.copy(tmp_path / "model")
  (folder / "config.json").unlink()
  if isinstance(content, bytes):
    (folder / "config.json").write_bytes(content)
  elif content is not None:
    weights_files.write_config(folder, **content)
  assert message in refused(folder, capsys)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "It is empty"),
    (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    (b"<!DOCTYPE html>" + bytes(100), "web page"),
    (b"PK\3\4" + bytes(100), "zip file"),
    (b"\x80\x02}" + bytes(100), "pickle"),
    (struct.pack("<Q", 2) + b"{", "truncated"),
    (struct.pack("<Q", 1 << 60) + b"{}", "cannot be read as safetensors"),
    (struct.pack("<Q", 6) + b'{"a":1', "cannot be read as safetensors"),
    # 17 MiB of header, for which the library takes seconds.
    (struct.pack("<Q", 17 << 20) + bytes(17 << 20), "INFOXLM_MAX_HEADER_BYTES"),
  ],
)
def test_no_safetensors(tmp_path, capsys, content, message):
  folder = weights_files.copy(tmp_path / "model")
  (folder / "model.safetensors").write_bytes(content)
  assert message in refused(folder, capsys)


def test_names_that_no_file_can_have(tmp_path, capsys):
  for name in ("x" * 5000, "a\0b"):
    code = import_checkpoint.main(
      ["--input", f"{tmp_path}/{name}", "--output", str(tmp_path / "out")]
    )
    assert code == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_weights_that_are_no_file(tmp_path, capsys):
  folder = weights_files.copy(tmp_path / "model")
  (folder / "model.safetensors").unlink()
  os.mkfifo(folder / "model.safetensors")
  assert "holds no weights" in refused(folder, capsys)


@pytest.mark.parametrize("share", [0.0001, 0.05, 0.5, 0.9999])
def test_truncated(tmp_path, capsys, share):
  folder = weights_files.copy(tmp_path / "model")
  file = folder / "model.safetensors"
  content = file.read_bytes()
  file.write_bytes(content[: int(share * len(content))])
  message = refused(folder, capsys)
  assert str(file) in message and "cannot be read as safetensors" in message


def test_overlapping_tensors(tmp_path, capsys):
  """A header that gives the same bytes to two tensors."""
  entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
  header = json.dumps({"a": entry, "b": entry}).encode()
  folder = weights_files.copy(tmp_path / "model")
  (folder / "model.safetensors").write_bytes(
    struct.pack("<Q", len(header)) + header + bytes(8)
  )
  assert "cannot be read as safetensors" in refused(folder, capsys)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [WORD, QUERY])
def test_not_finite(tmp_path, capsys, name, value):
  array = tensors_of("xlmr_mlm")[name].copy()
  array[3, :5] = value
  message = refused(changed(tmp_path, **{name: array}), capsys)
  assert (
    f"tensor {name} holds NaN or infinity in 5 of {array.size:,}" in message
  )


def test_beyond_float32(tmp_path, capsys):
  array = tensors_of("xlmr_mlm")[QUERY].astype(np.float64)
  array[0, 0] = 1e300
  message = refused(changed(tmp_path, **{QUERY: array}), capsys)
  assert "in 1 of 1,024 values" in message


def test_whole_numbers_are_no_weights(tmp_path, capsys):
  array = np.ones((32, 32), np.int64)
  message = refused(changed(tmp_path, **{QUERY: array}), capsys)
  assert f"tensor {QUERY} holds int64" in message


@pytest.mark.parametrize(
  ("name", "shape", "likely"),
  [
    (POSITION, (38, 32), "38 positions without RoBERTa's first 2 rows"),
    (POSITION, (42, 32), "40 positions and RoBERTa's first two"),
    (POSITION, (50, 32), "Set max_position_embeddings to 50"),
    (WORD, (128, 32), "padded for the hardware: set vocab_size to 128"),
    (WORD, (110, 32), "enlarged: set vocab_size to 110"),
    (WORD, (90, 32), "fewer rows than the vocabulary has ids"),
    (WORD, (101, 48), "hidden sizes differ"),
    (TYPE, (2, 32), "set type_vocab_size (XLM: n_langs) to 2"),
    ("lm_head.bias", (128,), "padded for the hardware"),
    (
      "roberta.encoder.layer.0.intermediate.dense.weight",
      (32, 64),
      "It is transposed",
    ),
    (QUERY, (32, 16), "makes it [32, 32]"),
    (QUERY, (1024,), "makes it [32, 32]"),
  ],
)
def test_shapes_name_themselves_and_the_likely_cause(
  tmp_path, capsys, name, shape, likely
):
  folder = changed(tmp_path, **{name: np.ones(shape, np.float32)})
  message = refused(folder, capsys)
  assert f"tensor {name} has shape {list(shape)}" in message
  assert f"{folder / 'config.json'} makes it" in message
  assert likely in message


def test_bert_without_two_positions(tmp_path, capsys):
  """An XLM-R body under BERT's name: 514 rows for 512 positions."""
  found = {
    k.replace("roberta.", "bert."): v
    for k, v in tensors_of("xlmr_mlm").items()
    if "lm_head" not in k
  }
  folder = weights_files.write(
    tmp_path / "model", found, "bert_mlm", max_position_embeddings=38
  )
  message = refused(folder, capsys)
  assert "40 rows are 38 positions" in message
  assert "model_type must be xlm-roberta" in message


def test_a_config_of_terabytes_allocates_nothing(tmp_path, capsys):
  folder = weights_files.copy(tmp_path / "model")
  weights_files.write_config(folder, vocab_size=2**31)
  assert "fewer rows than the vocabulary" in refused(folder, capsys)


def test_missing_and_left_over(tmp_path, capsys):
  message = refused(changed(tmp_path, **{QUERY: None}), capsys)
  assert f"tensor {QUERY} is missing" in message
  for layers, expected in (
    (3, "encoder.layer.2.attention.self.query.weight is missing, and 15 more"),
    (1, "not part of this architecture: roberta.encoder.layer.1."),
  ):
    weights_files.write_config(tmp_path / "model", num_hidden_layers=layers)
    weights_files.write(
      tmp_path / "model", tensors_of("xlmr_mlm"), num_hidden_layers=layers
    )
    message = refused(tmp_path / "model", capsys)
    assert expected in message and "different models" in message


@pytest.mark.parametrize("other", ["bert_mlm", "xlm_lm"])
def test_another_architecture(tmp_path, capsys, other):
  found = tensors_of("xlmr_mlm")
  folder = weights_files.write(tmp_path / "model", found, other)
  message = refused(folder, capsys)
  assert "holds no tensor of the architecture" in message
  assert "of another model" in message


def index(folder, **places):
  text = json.dumps({"weight_map": places})
  (folder / "model.safetensors.index.json").write_text(text)


@pytest.mark.parametrize(
  ("places", "message"),
  [
    ({}, "has no weight_map"),
    ({"a": "absent.safetensors"}, "absent.safetensors, which is missing"),
    ({"a": "../model.safetensors"}, "not the name of a file in its folder"),
    ({"a": "/etc/model.safetensors"}, "not the name of a file in its folder"),
    ({"a": "x" * 5000}, "not the name of a file in its folder"),
    ({"a": "a\0b"}, "not the name of a file in its folder"),
    ({"a": "b/a.safetensors"}, "shards stand beside their index"),
    # An index that names itself would be opened for ever.
    ({"a": "model.safetensors.index.json"}, "shards stand beside their index"),
    ({"a": 1}, "is no name of a file"),
    ({"a": ["b"]}, "is no name of a file"),
    ({"a": "one.safetensors"}, "holds the tensor a, which it does not"),
    ({WORD: "one.bin"}, "--allow_pickle"),
  ],
)
def test_shards(tmp_path, capsys, places, message):
  folder = weights_files.copy(tmp_path / "model")
  (folder / "model.safetensors").rename(folder / "one.safetensors")
  (folder / "one.bin").write_bytes(b"\x80\x02.")
  index(folder, **places)
  assert message in refused(folder, capsys)


class Harmful:
  """Unpickled, it would make a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (open, (str(self.path), "w"))


def zipped(**members):
  written = io.BytesIO()
  with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, content in members.items():
      archive.writestr(name, content)
  return written.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_files_that_torch_never_opens(tmp_path):
  file = tmp_path / "model.bin"
  file.write_bytes(zipped(a=bytes(100), b=bytes(200)))
  check_zip(file)
  file.write_bytes(zipped(a=bytes(40 << 20)))
  with pytest.raises(InputError, match="would unpack to 41,943,040, .* bomb"):
    check_zip(file)
  file.write_bytes(zipped(a=bytes(100), b=bytes(200))[:-10])
  with pytest.raises(InputError, match="model.bin: cannot be read as a zip"):
    check_zip(file)
  with zipfile.ZipFile(file, "w") as archive:
    for content in ("first", "second"):
      archive.writestr("data.pkl", content)
  with pytest.raises(InputError, match="holds the member 'data.pkl' more than"):
    check_zip(file)


@given(places=st.lists(st.integers(0, 10**6), min_size=1), value=st.binary())
def test_a_damaged_zip_is_told_or_harmless(tmp_path_factory, places, value):
  file = tmp_path_factory.mktemp("damaged") / "model.bin"
  content = bytearray(zipped(a=bytes(100), b=bytes(200)))
  for place, byte in zip(places, value, strict=False):
    content[place % len(content)] = byte
  file.write_bytes(content)
  with contextlib.suppress(InputError):
    check_zip(file)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickles_are_refused_unread(tmp_path, capsys, name):
  folder = tmp_path / "model"
  folder.mkdir()
  weights_files.write_config(folder)
  mark = folder / "mark"
  (folder / name).write_bytes(pickle.dumps(Harmful(mark)))
  message = refused(folder, capsys)
  assert "CVE-2025-32434" in message and "CVE-2026-24747" in message
  assert "--allow_pickle" in message and "safetensors" in message
  assert not mark.exists()


def test_safetensors_are_preferred_to_pickles(tmp_path):
  folder = weights_files.copy(tmp_path / "model")
  (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")
  assert load_weights(folder)[0].vocab_size == 101


def test_a_tokenizer_with_more_ids_than_rows(tmp_path):
  import small_corpus

  with pytest.raises(InputError, match="has 101 rows, the tokenizer"):
    model_of(oracle.ORACLES / "xlmr_mlm", tokenizer=str(small_corpus.TOKENIZER))


@given(seed=st.integers(0, 2**32 - 1))
def test_any_damage_is_told_or_harmless(tmp_path_factory, seed):
  """Bytes changed, cut off or added anywhere: InputError, or weights."""
  draw = np.random.default_rng(seed)
  folder = tmp_path_factory.mktemp("damaged")
  weights_files.write_config(folder)
  file = folder / "model.safetensors"
  content = bytearray(_whole())
  # Half of the damage where the structure is: at the two ends.
  ends = [*range(4000), *range(len(content) - 4000, len(content))]
  for _ in range(draw.integers(1, 4)):
    place = draw.choice(ends) if draw.random() < 0.5 else draw.integers(1 << 16)
    content[place] = draw.integers(256)
  if draw.random() < 0.3:
    del content[draw.integers(len(content)) :]
  file.write_bytes(bytes(content))
  try:
    params = load_weights(folder)[1]
  except InputError as error:
    assert "\n" not in str(error)
  else:
    assert params["embed"]["token"].shape == (128, 32)


@functools.cache
def _whole():
  return (oracle.ORACLES / "xlmr_mlm" / "model.safetensors").read_bytes()
