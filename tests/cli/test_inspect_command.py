"""The command infoxlm-inspect-data."""

import json
import re

import gin.config
import pytest
import small_corpus

from infoxlm_jax.analysis import data_statistics
from infoxlm_jax.cli.inspect_data import main
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import load_tokenizer

VOCAB = "--gin.config.EncoderConfig.vocab_size=9"
ARGS = (
  "--gin_file=gin/quickstart.gin",
  "--gin.mlm/streams.TextStream.rows=None",
  "--gin.config.EncoderConfig.hidden_size=16",
)


@pytest.fixture
def inspect(capsys):
  """Runs the command: (exit code, output, errors)."""

  def call(*args):
    code = main([str(arg) for arg in args])
    return code, *capsys.readouterr()

  yield call
  gin.config.clear_config()


def test_the_command_shows_a_step(inspect):
  data = f"--gin.DATA={small_corpus.prepared()}"
  code, text, _ = inspect(*ARGS, data, "--step", 5, "--rows", 2)
  assert code == 0
  for name, first in (("mlm", 16), ("tlm", 32), ("xlco", 384)):
    assert re.search(rf"^{name}: \w+, group 0: samples {first} to", text, re.M)
  assert len(re.findall("row [01]: ", text)) == 4
  assert len(re.findall("row [01] of the query side", text)) == 2
  _, one, _ = inspect(*ARGS, data, "--step", 5, "--rows", 1, "--stream", "tlm")
  part = one[one.index("tlm:") :].rstrip("\n")
  assert "mlm:" not in one and "xlco" not in one
  assert len(part) > 200 and part in text


def test_statistics(inspect, tmp_path):
  folder = small_corpus.prepared()
  code, text, _ = inspect(
    "--data", folder, "--statistics", "--output", tmp_path / "out"
  )
  assert code == 0
  manifest = json.loads((folder / "train" / "manifest.json").read_text())
  texts = {
    c["languages"][0]: c for c in manifest["corpora"] if len(c["languages"]) < 2
  }
  powers = {name: c["tokens"] ** 0.7 for name, c in texts.items()}
  records = sum(c["records"] for c in texts.values())
  tokens = sum(c["tokens"] for c in texts.values())
  for name, c in texts.items():
    cells = re.search(rf"^  {name} +(.*)$", text, re.M)[1].split()
    drawn = powers[name] / sum(powers.values())
    assert cells[:3] == [
      str(c["records"]), str(c["sentences"]), f"{c['tokens']:,}",
    ]  # fmt: skip
    assert float(cells[3]) == pytest.approx(
      100 * c["tokens"] / tokens, abs=0.01
    )
    assert float(cells[4]) == pytest.approx(100 * drawn, abs=0.01)
    repeats = drawn * records / c["records"]
    assert float(cells[5]) == pytest.approx(repeats, abs=0.01)
  # Each seventh row of the corpus has no French.
  dropped = texts["fr"]["dropped"]
  assert dropped and all(f"{why} {n}" in text for why, n in dropped.items())
  png = (tmp_path / "out" / data_statistics.PICTURE).read_bytes()
  assert png.startswith(b"\x89PNG")
  written = (tmp_path / "out" / data_statistics.TABLE).read_text()
  assert written in text
  code, _, error = inspect(
    "--data", folder, "--statistics", "--output", tmp_path / "out"
  )
  assert code == 2 and "is not overwritten" in error


def test_data_alone_shows_records(inspect):
  code, text, _ = inspect("--data", small_corpus.prepared(), "--rows", 1)
  assert code == 0
  store = Store(small_corpus.prepared() / "train")
  first = next(iter(store.text_counts))
  (block,) = store.read_text(first, [0])
  words = load_tokenizer(small_corpus.TOKENIZER).decode(block).split()
  assert f"text {first}, record 0: {len(block)} tokens" in text
  assert " ".join(words[:4]) in text
  assert text.count("\npair ") == 1


@pytest.mark.parametrize(
  ("args", "says"),
  [
    ([], "give one of --gin_file"),
    (["--data", "nowhere"], "holds no prepared data"),
    (["--data", "nowhere", "--gin.A=1"], "unknown argument '--gin.A=1'"),
    ([*ARGS, "--step", "0"], "count from 1"),
    ([*ARGS, "--rows", "0"], "--rows 0"),
    ([*ARGS, "--rows", "x"], "--rows: invalid int value: 'x'"),
    ([*ARGS, "--row", "2"], "unknown argument '--row'"),
    ([*ARGS, "--output", "x"], "goes with --statistics"),
    ([*ARGS, "--gin.DATA=DATA", "--stream", "mml"], "no stream 'mml'"),
    ([*ARGS, "--gin.DATA=DATA", VOCAB], "vocab_size = 9"),
    (["--run", "nowhere"], "config.gin"),
  ],
)
def test_bad_input_is_one_line(refused, args, says):
  args = [a.replace("=DATA", f"={small_corpus.prepared()}") for a in args]
  try:
    assert says in refused(main, *args)
  finally:
    gin.config.clear_config()
