"""XLM-R's ids, the shipped tokenizer, and the tool that trained it."""

import gzip
import pickle
import re
import unicodedata

import numpy as np
import pytest
import sentencepiece
from small_corpus import TOKENIZER, table

from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError
from tools import train_tokenizer


@pytest.fixture(scope="module")
def xlmr(shared):
  return load_tokenizer(
    shared / "data" / "tokenizer" / "xlmr.sentencepiece.bpe.model"
  )


@pytest.fixture(scope="module")
def shipped():
  return load_tokenizer(TOKENIZER)


# Published ids of XLM-R, with <s> and </s>.
@pytest.mark.parametrize(
  ("text", "ids"),
  [
    ("Hello world!", [0, 35378, 8999, 38, 2]),
    ("你好，世界", [0, 6, 124084, 4, 3221, 2]),
    ("Bonjour le monde", [0, 84602, 95, 11146, 2]),
  ],
)
def test_published_ids(xlmr, text, ids):
  assert xlmr.encode(text).tolist() == ids[1:-1]
  assert xlmr.encode(text).dtype == np.int32
  assert xlmr.decode(ids) == unicodedata.normalize("NFKC", text)


def test_xlmr_layout(xlmr):
  assert (xlmr.vocab_size, xlmr.mask_id) == (250_002, 250_001)
  specials = (xlmr.bos_id, xlmr.pad_id, xlmr.eos_id, xlmr.unk_id)
  assert specials == (0, 1, 2, 3)
  names = xlmr.pieces([0, 1, 2, 3, 250_001, 35378])
  assert names == ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "▁Hello"]


def test_shipped_layout(shipped):
  spm = sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER))
  assert spm.get_piece_size() == 8000
  assert (shipped.vocab_size, shipped.mask_id) == (8002, 8001)
  assert shipped.pieces([4]) == [spm.id_to_piece(3)]
  assert shipped.pieces([8000]) == [spm.id_to_piece(7999)]
  ids = shipped.encode("In the beginning ☃ <s> <pad>")
  assert shipped.unk_id in ids
  # Text never makes special tokens, whatever it says.
  assert not np.isin(ids, [0, 1, 2, shipped.mask_id]).any()


def test_decode_gives_the_text(shipped):
  for row in table()[:40]:
    for language in ("en", "ar", "fa", "ru", "tl"):
      text = " ".join(unicodedata.normalize("NFKC", row[language]).split())
      ids = [0, *shipped.encode(row[language]), 2, 1, shipped.mask_id]
      assert shipped.decode(ids) == text


def test_batch_is_one_by_one_and_pickles(shipped):
  texts = [row["ja"] for row in table()[:5]] + [""]
  batch = pickle.loads(pickle.dumps(shipped)).encode_batch(texts)
  for text, ids in zip(texts, batch, strict=True):
    assert ids.dtype == np.int32 and ids.ndim == 1
    assert ids.tolist() == shipped.encode(text).tolist()
  assert not len(batch[-1])


def test_ids_of_another_vocabulary(shipped):
  with pytest.raises(InputError, match="8002 ids"):
    shipped.decode([5, 8002])


def test_bad_files(tmp_path):
  with pytest.raises(InputError, match="cannot read.*nowhere.model"):
    load_tokenizer(tmp_path / "nowhere.model")
  for content in (b"", b"no model", TOKENIZER.read_bytes()[:5000]):
    path = tmp_path / "broken.model"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a SentencePiece model"):
      load_tokenizer(path)


def test_other_special_ids(tmp_path):
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter([row["en"] for row in table()]),
    model_prefix=str(tmp_path / "t5"),
    vocab_size=150,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    minloglevel=2,
  )
  with pytest.raises(InputError, match=r"\(2, -1, 1\)"):
    load_tokenizer(tmp_path / "t5.model")


def test_tool(tmp_path, capsys):
  tsv = tmp_path / "three.tsv.gz"
  with gzip.open(tsv, "wt", encoding="utf-8", newline="\n") as file:
    file.write("id\ten\tja\n")
    for row in table():
      file.write(f"{row['id']}\t{row['en']}\t{row['ja']}\n")
  plain = tmp_path / "ru.txt"
  lines = [row["ru"] for row in table()[:50]]
  plain.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
  command = ["--input", str(tsv), str(plain), "--vocab_size", "900"]
  outputs = [tmp_path / "one.model", tmp_path / "deep" / "two.model"]
  for output in outputs:
    assert train_tokenizer.main([*command, "--output", str(output)]) == 0
  assert outputs[0].read_bytes() == outputs[1].read_bytes()
  assert load_tokenizer(outputs[0]).vocab_size == 902
  report = capsys.readouterr().out
  assert "unknown %" in report
  for language in ("en", "ja", "ru"):
    assert f"\n{language} " in report
  # Never over a file that is there.
  assert train_tokenizer.main([*command, "--output", str(outputs[0])]) == 2
  assert "move it away" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("model_type", "unknown", "mask_id"),
  [("wordpiece", "[UNK]", 4), ("bpe", "<unk>", 899)],
)
def test_tool_for_other_kinds(tmp_path, capsys, model_type, unknown, mask_id):
  tables = {}
  for language in ("en", "ru"):
    lines = [row[language] for row in table()]
    path = tmp_path / f"{language}.txt"
    path.write_text("\n".join(lines) + "\n", "utf-8", newline="\n")
    tables[language] = lines
  inputs = [str(tmp_path / "en.txt"), str(tmp_path / "ru.txt")]
  command = ["--input", *inputs, "--vocab_size", "900"]
  command += ["--model_type", model_type]
  outputs = [tmp_path / "tokenizer.json", tmp_path / "two.json"]
  for output in outputs:
    assert train_tokenizer.main([*command, "--output", str(output)]) == 0
  assert outputs[0].read_bytes() == outputs[1].read_bytes()
  tokenizer = load_tokenizer(outputs[0])
  assert (tokenizer.vocab_size, tokenizer.mask_id) == (900, mask_id)
  assert tokenizer.pieces([tokenizer.unk_id]) == [unknown]
  # The report's last column, and the share of the unknown.
  out = capsys.readouterr().out
  for language, lines in tables.items():
    row = next(x for x in out.splitlines() if x.startswith(f"{language} "))
    ids = np.concatenate(tokenizer.encode_batch(lines))
    assert row.split()[-1] == f"{len(set(ids.tolist())):,}"
    assert row.split()[3] == f"{len(ids):,}"
    assert (ids == tokenizer.unk_id).mean() < 0.01
    assert len(ids) < 0.6 * sum(map(len, lines))
  sentence = tables["ru"][1]
  if model_type == "bpe":
    assert tokenizer.decode(tokenizer.encode(sentence)) == sentence
  assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (["--output", "x.model", "--model_type", "bpe"], "bpe is written as a .js"),
    (["--output", "x.json"], "unigram is written as a .model"),
    (
      ["--output", "x.json", "--model_type", "bpe", "--vocab_size", "260"],
      "alone take 261",
    ),
    (
      ["--output", "x.json", "--model_type", "wordpiece", "--vocab_size", "9"],
      "vocab_size = 9 is too small",
    ),
    (["--output", "x.model", "--vocab_size", "100000"], "could not train"),
    (["--output", "x.model", "--input", "no.txt"], "no file|cannot read"),
    (["--output", "x.model", "--input", "en.txt", "No.txt"], "language code"),
  ],
)
def test_tool_refuses(tmp_path, capsys, monkeypatch, options, message):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "en.txt").write_text("In the beginning\n")
  (tmp_path / "No.txt").write_text("In the beginning\n")
  if "--input" not in options:
    options = ["--input", "en.txt", *options]
  assert train_tokenizer.main(options) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ") and re.search(message, error)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["No.txt", "en.txt"]


def test_balance():
  # n^.7 of 1,000 and 100 is 125.89 and 25.12: all 100 beside 501.
  pools = {"en": [f"e{i}" for i in range(1000)], "sw": ["s"] * 100}
  chosen = train_tokenizer.balance(pools, 0.7, 0, 10**6)
  assert {k: len(v) for k, v in chosen.items()} == {"en": 501, "sw": 100}
  assert len(set(chosen["en"])) == 501
  assert chosen == train_tokenizer.balance(pools, 0.7, 0, 10**6)
  assert chosen != train_tokenizer.balance(pools, 0.7, 1, 10**6)
  few = train_tokenizer.balance(pools, 0.7, 0, 60)
  assert {k: len(v) for k, v in few.items()} == {"en": 50, "sw": 10}
