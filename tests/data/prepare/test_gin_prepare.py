"""gin/prepare: each file's own command makes the corpus that it promises."""

import re
import shlex

import pytest
import small_corpus

from infoxlm_jax import gin_utils
from infoxlm_jax.data.corpora.documents import Documents
from infoxlm_jax.data.corpora.sources import (
  FairseqBinary,
  Moses,
  SeqioTask,
  TextFiles,
  Tmx,
  Tsv,
)
from infoxlm_jax.errors import InputError
from infoxlm_jax.main import main

EXPECTED = {
  "text": TextFiles("corpora/*.txt.gz"),
  "documents": Documents("corpora/*.txt.gz"),
  "tsv_pairs": Tsv("en-*.tsv.xz"),
  "moses": Moses("corpora/Europarl.en-fr"),
  "tmx": Tmx("memories/*.tmx"),
  "fairseq": FairseqBinary("data/tlm", "tlm", languages=("mul", "mul")),
  "tfds": SeqioTask("tfds_wikipedia_sw", ("tasks.tfds", "tasks.paper"), "text"),
}


@pytest.fixture
def made(root, tmp_path, monkeypatch):
  """Parses a file with arguments; gives the corpora that it makes."""
  # What the files include is prepare's business: here only the corpora count.
  monkeypatch.chdir(tmp_path)
  common = tmp_path / "gin" / "prepare" / "prepare.gin"
  common.parent.mkdir(parents=True)
  common.write_text("TOKENIZER = None\nMODEL_DIR = None\n")

  def function(name, arguments):
    path = root / "gin" / "prepare" / f"{name}.gin"
    config = gin_utils.load([str(path)], arguments)
    return [reference() for reference in _unpacked(config.macro("CORPORA"))]

  return function


def _unpacked(references):
  return [r.scoped_configurable_fn for r in references]


def _command(root, name):
  first = (root / "gin" / "prepare" / f"{name}.gin").read_text().split("\n")[0]
  assert first.startswith("# python -m infoxlm_jax.main ")
  words = shlex.split(first[2:])[3:]
  assert words[0] == f"--gin_file=gin/prepare/{name}.gin"
  return words[1:]


@pytest.mark.parametrize("name", EXPECTED)
def test_its_own_command(root, made, name):
  assert made(name, _command(root, name)) == [EXPECTED[name]]


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_missing(root, made, name):
  with pytest.raises(InputError, match=r"add --gin.INPUT=\.\.\."):
    made(name, [])


def test_options(made):
  columns = "--gin.COLUMNS=('source', 'target')"
  languages = "--gin.LANGUAGES=('en', 'fr')"
  (corpus,) = made("tsv_pairs", ["--gin.INPUT=a.tsv,b.tsv", columns, languages])
  assert corpus == Tsv("a.tsv,b.tsv", ("source", "target"), ("en", "fr"))
  (corpus,) = made(
    "tsv_pairs", ["--gin.INPUT=['a', 'b']", "--gin.COLUMNS=(2, 3)"]
  )
  assert corpus == Tsv(["a", "b"], (2, 3))
  (corpus,) = made("text", ["--gin.INPUT=a", "--gin.LANGUAGE=de"])
  assert corpus == TextFiles("a", "de")
  with pytest.raises(InputError, match="'German' is no language"):
    made("text", ["--gin.INPUT=a", "--gin.LANGUAGE=German"])


def test_every_file_is_tested(root):
  files = {p.stem for p in (root / "gin" / "prepare").glob("*.gin")}
  assert files - {"prepare"} == set(EXPECTED)
  for name in EXPECTED:
    text = (root / "gin" / "prepare" / f"{name}.gin").read_text()
    assert re.search(r"^include 'gin/prepare/prepare.gin'$", text, re.M)


def test_a_dry_run_needs_no_folder_to_write(tmp_path, capsys):
  """MODEL_DIR is what a run needs; looking at the corpora does not."""
  (tmp_path / "en.txt").write_text("One sentence.\n")
  argv = [
    "--gin_file=gin/prepare/text.gin",
    "--dry_run",
    f"--gin.INPUT={tmp_path / 'en.txt'}",
    f"--gin.TOKENIZER={small_corpus.TOKENIZER}",
    f"--gin.DEV_PAIRS={tmp_path}/dev.en-*.tsv",
    f"--gin.TEST_PAIRS={tmp_path}/test.en-*.tsv",
  ]
  assert main(argv) == 0
  said = capsys.readouterr().out
  assert "8,002 token ids" in said and "text: " in said
  assert re.search(r"^pairs: held_out_pairs-.*, validation$", said, re.M)
  assert re.search(r"^pairs: held_out_pairs-.*, test$", said, re.M)
