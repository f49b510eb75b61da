"""tokenizer.json, vocab.txt, XLM's files: found, read, stored, refused."""

import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small_corpus
import small_tokenizers
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from infoxlm_jax.data.prepare.pipeline import prepare
from infoxlm_jax.data.tokenizers.base import (
  load_tokenizer,
  save_tokenizer,
  tokenizer_from_files,
)
from infoxlm_jax.errors import InputError

# BERT's own example of word pieces, and more.
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES += ["un", "##aff", "##able", "Un", "!", "über", "uber", "世", "界"]
VOCAB_TXT = "".join(f"{piece}\n" for piece in PIECES).encode()
XLM_VOCAB = {p: i for i, p in enumerate(small_tokenizers.XLM)}
XLM_VOCAB |= {"a": 14, "b</w>": 15, "ab</w>": 16}


def of_json(content):
  return tokenizer_from_files({"tokenizer.json": content}, "somewhere")


def _files(kind):
  if kind == "sentencepiece":
    return {"tokenizer.model": small_corpus.TOKENIZER.read_bytes()}
  if kind == "vocab.txt":
    return {"vocab.txt": small_tokenizers.vocab_txt()}
  return {"tokenizer.json": getattr(small_tokenizers, kind)()}


@pytest.fixture(
  scope="module",
  params=["sentencepiece", "wordpiece", "byte_bpe", "unigram", "vocab.txt"],
)
def kind(request):
  return tokenizer_from_files(_files(request.param), request.param)


def test_ids_of_word_pieces():
  cased = b'{"do_lower_case": false, "model_max_length": 512}'
  files = {"vocab.txt": VOCAB_TXT, "tokenizer_config.json": cased}
  read = tokenizer_from_files(files, "somewhere")
  assert read.vocab_size == 14
  specials = (read.pad_id, read.unk_id, read.bos_id, read.eos_id, read.mask_id)
  assert specials == (0, 1, 2, 3, 4)
  assert read.special_ids == {0, 1, 2, 3, 4}
  ids = read.encode("unaffable  Unable! über uber Über 世界x")
  assert ids.dtype == np.int32
  assert ids.tolist() == [5, 6, 7, 8, 7, 9, 10, 11, 1, 12, 13, 1]
  assert read.decode([2, 5, 6, 7, 9, 1, 3, 0, 4]) == "unaffable! [UNK]"
  assert read.pieces([2, 6, 4]) == ["[CLS]", "##aff", "[MASK]"]


@pytest.mark.parametrize(
  ("config", "text", "ids"),
  [
    # Lower case takes accents off too, unless it is told not to.
    ({"do_lower_case": True}, "UNaffable Über", [5, 6, 7, 11]),
    ({"do_lower_case": True, "strip_accents": False}, "Über", [10]),
    ({"do_lower_case": False, "strip_accents": True}, "über", [11]),
    ({"do_lower_case": False, "tokenize_chinese_chars": False}, "世界", [1]),
  ],
)
def test_options_of_a_vocab_txt(config, text, ids):
  files = {
    "vocab.txt": VOCAB_TXT,
    "tokenizer_config.json": json.dumps(config).encode(),
  }
  assert tokenizer_from_files(files, "x").encode(text).tolist() == ids


def test_without_options_the_vocabulary_decides_about_case():
  read = tokenizer_from_files({"vocab.txt": VOCAB_TXT}, "x")
  assert read.encode("Unable unable").tolist() == [8, 7, 5, 7]
  lower = VOCAB_TXT.replace(b"Un\n", b"an\n")
  read = tokenizer_from_files({"vocab.txt": lower}, "x")
  assert read.encode("Unable UNable").tolist() == [5, 7, 5, 7]


@pytest.mark.parametrize("name", ["wordpiece", "byte_bpe", "unigram"])
def test_ids_are_those_of_the_package(name):
  content = getattr(small_tokenizers, name)()
  package = tokenizers.Tokenizer.from_str(content.decode())
  package.no_truncation()
  package.no_padding()
  read = of_json(content)
  assert read.vocab_size == package.get_vocab_size()
  for text in small_tokenizers.texts()[::9]:
    expected = package.encode(text, add_special_tokens=False)
    ids = read.encode(text)
    # The files ask for 8 tokens a text: none of our business.
    assert ids.tolist() == expected.ids
    assert read.pieces(ids) == expected.tokens


def test_old_vocab_txt_and_tokenizer_json_agree():
  new = of_json(small_tokenizers.wordpiece())
  old = tokenizer_from_files({"vocab.txt": small_tokenizers.vocab_txt()}, "x")
  for text in small_tokenizers.texts()[::9]:
    assert new.encode(text).tolist() == old.encode(text).tolist()
  assert new.sha256 != old.sha256


def test_bytes_bring_every_text_back():
  read = of_json(small_tokenizers.byte_bpe())
  text = "  Grüße, 世界! ☃\t🎉 "
  assert read.decode([0, *read.encode(text), 2, 1]) == text


def test_text_never_makes_special_ids(kind):
  names = ["<s>", "</s>", "<pad>", "<unk>", "<mask>", *small_tokenizers.BERT]
  ids = kind.encode(" ".join(names) + "<s></s>a<mask>")
  assert len(ids)
  assert not set(ids.tolist()) & (kind.special_ids - {kind.unk_id})


def test_batches_threads_and_processes(kind):
  texts = [*small_tokenizers.texts()[::7], ""]
  expected = [kind.encode(text).tolist() for text in texts]
  assert expected[-1] == []
  copied = pickle.loads(pickle.dumps(kind))
  assert [ids.tolist() for ids in copied.encode_batch(texts)] == expected
  assert (copied.sha256, copied.path) == (kind.sha256, kind.path)
  assert kind.encode_batch([]) == []
  with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(kind.encode, texts))
  assert [ids.tolist() for ids in found] == expected
  assert all(ids.dtype == np.int32 for ids in found)


def test_special_ids(kind):
  five = {kind.bos_id, kind.pad_id, kind.eos_id, kind.unk_id, kind.mask_id}
  assert len(five) == 5
  assert kind.special_ids == five
  assert max(five) < kind.vocab_size
  assert kind.decode(five - {kind.unk_id}) == ""
  with pytest.raises(InputError, match=f"id {kind.vocab_size} is not in"):
    kind.pieces([kind.vocab_size])


def test_stored_and_found_again(kind, tmp_path):
  save_tokenizer(kind, tmp_path)
  assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kind.files)
  # What else lies there is left alone.
  (tmp_path / "model.json").write_text("{}")
  found = load_tokenizer(tmp_path)
  assert found.sha256 == kind.sha256
  among = tokenizer_from_files(kind.files | {"position.json": b"{}"}, "step 3")
  assert among.sha256 == kind.sha256
  text = small_tokenizers.texts()[3]
  assert found.encode(text).tolist() == kind.encode(text).tolist()


def test_order_in_a_folder(tmp_path):
  """The SentencePiece file first, then tokenizer.json, then vocab.txt."""
  spm = small_corpus.TOKENIZER.read_bytes()
  (tmp_path / "sentencepiece.bpe.model").write_bytes(spm)
  (tmp_path / "vocab.txt").write_bytes(VOCAB_TXT)
  (tmp_path / "tokenizer_config.json").write_text("{}")
  found = load_tokenizer(tmp_path)
  assert found.vocab_size == 8002
  # Stored under one name, whatever it was called.
  assert found.files == {"tokenizer.model": spm}
  assert found.sha256 == load_tokenizer(small_corpus.TOKENIZER).sha256
  (tmp_path / "sentencepiece.bpe.model").unlink()
  (tmp_path / "tokenizer.json").write_bytes(small_tokenizers.unigram())
  assert load_tokenizer(tmp_path).vocab_size == 1500
  (tmp_path / "tokenizer.json").unlink()
  assert load_tokenizer(tmp_path).vocab_size == 14
  assert load_tokenizer(tmp_path / "vocab.txt").vocab_size == 14
  (tmp_path / "vocab.txt").unlink()
  with pytest.raises(
    InputError, match=r"no tokenizer in .*vocab.json \+ merges.txt, vocab.txt"
  ):
    load_tokenizer(tmp_path)


def test_hash_of_several_files_holds_names_and_contents():
  def sha(**files):
    named = {name.replace("_txt", ".txt"): c for name, c in files.items()}
    if "config" in named:
      named["tokenizer_config.json"] = named.pop("config")
    return tokenizer_from_files(named, "x").sha256

  hashes = {
    sha(vocab_txt=VOCAB_TXT),
    sha(vocab_txt=VOCAB_TXT, config=b"{}"),
    sha(vocab_txt=VOCAB_TXT, config=b"{} "),
    sha(vocab_txt=VOCAB_TXT + b"x\n", config=b"{}"),
  }
  assert len(hashes) == 4
  assert sha(config=b"{}", vocab_txt=VOCAB_TXT) in hashes


def test_prepared_data_keeps_all_files(tmp_path):
  source = tmp_path / "bert"
  source.mkdir()
  (source / "vocab.txt").write_bytes(small_tokenizers.vocab_txt())
  (source / "tokenizer_config.json").write_text('{"do_lower_case": false}')
  options = small_corpus.OPTIONS | {"tokenizer": source}
  folder = prepare(tmp_path / "data", **options)
  assert load_tokenizer(folder).sha256 == load_tokenizer(source).sha256
  manifest = json.loads((folder / "train" / "manifest.json").read_text())
  assert manifest["tokenizer_sha256"] == load_tokenizer(source).sha256
  # Found finished.
  assert prepare(folder, **options) == folder
  (folder / "vocab.txt").unlink()
  with pytest.raises(InputError, match="no tokenizer in"):
    load_tokenizer(folder)


def _without(content, name):
  """A tokenizer.json without one of its special tokens."""
  described = json.loads(content)
  described["added_tokens"] = [
    t for t in described["added_tokens"] if t["content"] != name
  ]
  vocabulary = described["model"]["vocab"]
  vocabulary["other"] = vocabulary.pop(name)
  return json.dumps(described).encode()


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("tokenizer.json", b"{", "is not JSON"),
    ("tokenizer.json", b"\xff\xfe{}", "0xff at place 1 is not UTF-8"),
    ("tokenizer.json", b"[" * 100_000, "levels of nesting"),
    ("tokenizer.json", b"[1]", "holds a list"),
    ("tokenizer.json", b'{"a": 1}', 'no "model"'),
    (
      "tokenizer.json",
      b'{"model": {"type": "Trie"}}',
      "the tokenizer cannot be used",
    ),
    ("vocab.txt", b"", r"no token <s> or \[CLS\]"),
    ("vocab.txt", VOCAB_TXT.replace(b"[MASK]", b"x"), r"<mask> or \[MASK\]"),
    ("vocab.txt", VOCAB_TXT + b"un\n", "line 15: the piece 'un' .* line 6"),
    ("vocab.txt", b"\xff\n", "byte 1 is not UTF-8"),
  ],
)
def test_broken_files(tmp_path, name, content, message):
  path = tmp_path / name
  path.write_bytes(content)
  for place in (path, tmp_path):
    with pytest.raises(InputError, match=message):
      load_tokenizer(place)


@pytest.mark.parametrize("token", small_tokenizers.BERT)
def test_missing_special_tokens(token):
  content = _without(small_tokenizers.wordpiece(), token)
  with pytest.raises(InputError, match="or \\" + token):
    of_json(content)


@given(seed=st.integers(0, 2**32 - 1))
def test_any_damage_is_told_or_harmless(kind, seed):
  """Bytes changed or cut off anywhere: InputError, or a tokenizer."""
  draw = np.random.default_rng(seed)
  name = next(iter(kind.files))
  content = bytearray(kind.files[name])
  # Half of the damage at the two ends, where the structure is.
  ends = [*range(2000), *range(len(content) - 2000, len(content))]
  for _ in range(draw.integers(1, 4)):
    place = (
      draw.choice(ends) if draw.random() < 0.5 else draw.integers(len(content))
    )
    content[place] = draw.integers(256)
  if draw.random() < 0.3:
    del content[draw.integers(len(content)) :]
  try:
    found = tokenizer_from_files({name: bytes(content)}, "x")
  except InputError as error:
    assert "\n" not in str(error)
  else:
    ids = found.encode("In the beginning 世界 ☃")
    assert ids.dtype == np.int32
    assert len(found.pieces(range(found.vocab_size))) == found.vocab_size
    found.decode(ids)


@pytest.mark.parametrize("end", [10, 1000, -1])
def test_truncated(end):
  with pytest.raises(InputError, match="is not JSON"):
    of_json(small_tokenizers.wordpiece()[:end])


@pytest.mark.parametrize(
  ("config", "message"),
  [
    (b"[", "tokenizer_config.json is not JSON"),
    (b'{"do_lower_case": "no"}', "do_lower_case = 'no'"),
    (b'{"strip_accents": 1}', "strip_accents = 1"),
  ],
)
def test_broken_options(config, message):
  files = {"vocab.txt": VOCAB_TXT, "tokenizer_config.json": config}
  with pytest.raises(InputError, match=message):
    tokenizer_from_files(files, "x")


def test_nothing_there(tmp_path):
  with pytest.raises(InputError, match="cannot read the tokenizer .*no.json"):
    load_tokenizer(tmp_path / "no.json")
  with pytest.raises(InputError, match="no tokenizer in step 3"):
    tokenizer_from_files({"model.json": b"{}"}, "step 3")


@pytest.mark.parametrize(
  ("vocabulary", "merges", "message"),
  [
    (XLM_VOCAB, b"", "holds no merges"),
    (XLM_VOCAB, b"a b</w> 5\nab\n", "line 2: 'ab' is not two pieces"),
    (XLM_VOCAB, b"a b c d\n", "line 1: 'a b c d' is not two"),
    (XLM_VOCAB, b"a \xff\n", "byte 3 is not UTF-8"),
    (XLM_VOCAB | {"a": "0"}, b"a b</w>\n", "'a' has the id '0'"),
    (XLM_VOCAB | {"a": -1}, b"a b</w>\n", "'a' has the id -1"),
    (XLM_VOCAB | {"a": True}, b"a b</w>\n", "'a' has the id True"),
    # RoBERTa's files have the same names.
    ({"<s>": 0, "</s>": 2, "a": 3}, b"a b\n", "no <pad>, <unk>, <special1>"),
    (
      {p: i for p, i in XLM_VOCAB.items() if "/w" not in p},
      b"a b\n",
      "ends in",
    ),
  ],
)
def test_broken_files_of_xlm(tmp_path, vocabulary, merges, message):
  (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
  with pytest.raises(InputError, match="no tokenizer in"):
    load_tokenizer(tmp_path)
  with pytest.raises(
    InputError, match="cannot read the tokenizer .*merges.txt"
  ):
    load_tokenizer(tmp_path / "vocab.json")
  (tmp_path / "merges.txt").write_bytes(merges)
  for name in (".", "vocab.json", "merges.txt"):
    with pytest.raises(InputError, match=message):
      load_tokenizer(tmp_path / name)


def test_xlm_without_its_package(monkeypatch):
  monkeypatch.setitem(sys.modules, "sacremoses", None)
  files = {"vocab.json": json.dumps(XLM_VOCAB).encode()}
  with pytest.raises(InputError, match=r"pip install 'infoxlm-jax\[xlm\]'"):
    tokenizer_from_files(files | {"merges.txt": b"a b</w>\n"}, "x")
