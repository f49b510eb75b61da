"""The command infoxlm-train-tokenizer."""

import gzip
import re

import numpy as np
import pytest
from small_corpus import table

from infoxlm_jax.cli.train_tokenizer import main
from infoxlm_jax.data.tokenizers.base import load_tokenizer


def test_unigram(tmp_path, capsys):
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
    assert main([*command, "--output", str(output)]) == 0
  assert outputs[0].read_bytes() == outputs[1].read_bytes()
  assert load_tokenizer(outputs[0]).vocab_size == 902
  report = capsys.readouterr().out
  assert "unknown %" in report
  for language in ("en", "ja", "ru"):
    assert f"\n{language} " in report
  # Never over a file that is there.
  assert main([*command, "--output", str(outputs[0])]) == 2
  assert "move it away" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("model_type", "unknown", "mask_id"),
  [("wordpiece", "[UNK]", 4), ("bpe", "<unk>", 899)],
)
def test_other_types(tmp_path, capsys, model_type, unknown, mask_id):
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
    assert main([*command, "--output", str(output)]) == 0
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
    (["--output", "en.txt/x.model"], "en.txt is no folder"),
    (["--output", "x.model", "--model_type", "word"], "choice: 'word'"),
    (["--output", "x.model", "--max_sentences", "0"], "--max_sentences 0"),
    (["--output", "x.model", "--character_coverage", "2"], "at most 1"),
    (
      ["--output", "x.model", "--input", "en.txt", "fr.txt", "--alpha", "1e9"],
      "languages of 1 to 2 sentences",
    ),
  ],
)
def test_bad_input_is_one_line_and_writes_nothing(
  tmp_path, refused, monkeypatch, options, message
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "en.txt").write_text("In the beginning\n")
  (tmp_path / "fr.txt").write_text("Au\ncommencement\n")
  (tmp_path / "No.txt").write_text("In the beginning\n")
  if "--input" not in options:
    options = ["--input", "en.txt", *options]
  assert re.search(message, refused(main, *options))
  names = sorted(p.name for p in tmp_path.iterdir())
  assert names == ["No.txt", "en.txt", "fr.txt"]
