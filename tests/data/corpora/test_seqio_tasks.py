"""seqio tasks give what corpora give; TFDS through its own builders.

TensorFlow takes ten seconds to import: one process of its own does all that
needs it and tells what it found.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_fairseq import PAIRS, save, tlm_rows
from test_tmx import HEAD, TAIL, unit

from infoxlm_jax.data.corpora import sources
from infoxlm_jax.errors import InputError

CHILD = Path(__file__).resolve().parents[2] / "tasks_in_a_process.py"


def _write(folder: Path) -> None:
  """A corpus of each family where its task looks for it."""
  (folder / "text").mkdir(parents=True)
  lines = [f"Satz {n}\u2028 \x85" for n in range(2500)]
  (folder / "text" / "de.txt").write_text("\n".join(lines) + "\n\n")
  (folder / "text" / "ja.jsonl").write_text('{"text": "一\\n二"}\n')
  (folder / "tsv").mkdir()
  (folder / "tsv" / "en-fr.tsv").write_text("one\tun\r\ntwo\t\n")
  for name in ("moses", "paper"):
    (folder / name).mkdir()
    for x, text in (("ar", "نعم\n"), ("en", "yes\n")):
      (folder / name / f"MultiUN.ar-en.{x}").write_text(text)
  for x, text in (("en", "no\n"), ("hi", "नहीं\n")):
    (folder / "paper" / f"IITB.en-hi.{x}").write_text(text)
  (folder / "tmx").mkdir()
  body = unit(("en", "a"), ("sw", "b"), ("ur", "c"))
  (folder / "tmx" / "a.tmx").write_text(HEAD + body + TAIL)
  save(folder / "fairseq" / "mlm", [[0, 5, 2, 6, 7, 8, 2], [0, 0, 9, 2]])
  save(folder / "fairseq" / "tlm", tlm_rows(PAIRS, True))
  save(folder / "fairseq" / "xlco", [[0, *x, 2] for p in PAIRS for x in p])


FILES = {
  "text_lines": lambda f: sources.TextFiles(f"{f}/text/de.txt"),
  "text_jsonl": lambda f: sources.TextFiles(f"{f}/text/*.jsonl"),
  "tsv_pairs": lambda f: sources.Tsv(f"{f}/tsv/*"),
  "moses_pairs": lambda f: sources.Moses(f"{f}/moses/*-*"),
  "tmx_pairs": lambda f: sources.Tmx(f"{f}/tmx/*"),
  "fairseq_mlm": lambda f: sources.FairseqBinary(f"{f}/fairseq/mlm"),
  "fairseq_tlm": lambda f: sources.FairseqBinary(
    f"{f}/fairseq/tlm", "tlm", languages=("mul", "mul")
  ),
  "fairseq_xlco": lambda f: sources.FairseqBinary(
    f"{f}/fairseq/xlco", "xlco", languages=("mul", "mul")
  ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
  place = tmp_path_factory.mktemp("tasks") / "corpora"
  _write(place)
  return place


@pytest.fixture(scope="module")
def told(folder, root) -> dict:
  """What the process with TensorFlow found."""
  done = subprocess.run(
    [sys.executable, str(CHILD), str(folder)],
    env={**os.environ, "INFOXLM_CORPORA": str(folder), "PYTHONPATH": str(root)},
    cwd=root,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  return json.loads((folder.parent / "told.json").read_text())


def _plain(example) -> dict:
  return {
    k: v.tolist() if isinstance(v, np.ndarray) else v
    for k, v in example.items()
  }


@pytest.mark.parametrize("name", FILES)
def test_tasks_equal_their_corpora(folder, told, name):
  corpus = FILES[name](folder)
  expected = [_plain(example) for example in corpus.examples("train")]
  assert len(expected) > 0
  assert told["examples"][name] == expected
  assert told["kinds"][name] == corpus.kind


def test_a_task_is_as_many_as_its_lines(folder, told):
  assert len(told["examples"]["text_lines"]) == 2501


def test_ids_are_int32(told):
  assert told["types"] == ["int32"]


def test_errors_arrive_as_they_were_raised(told):
  assert "de.txt, line 2500: byte 0xff at place 1" in told["errors"]["bad_utf8"]
  assert "Did you mean 'tsv_pairs'" in told["errors"]["unknown"]
  assert "has no split 'dev'" in told["errors"]["split"]
  assert "id 999999 is not in the vocabulary" in told["errors"]["vocabulary"]


def test_the_papers_pairs(told):
  """A mixture is its tasks, one after the other."""
  arabic = {
    "text_a": "yes",
    "language_a": "en",
    "text_b": "نعم",
    "language_b": "ar",
  }
  assert told["examples"]["paper_en_ar"] == [arabic]
  assert told["paper_languages"] == 14
  assert told["examples"]["two_pairs"][0] == arabic
  assert told["examples"]["two_pairs"][1]["text_b"] == "नहीं"
  assert told["several"] == ["hi", "ar"]
  assert "no two files" in told["errors"]["paper_pairs"]


def test_fingerprints(told):
  before, after = told["fingerprints"]
  assert before["sources"][0]["task"] == "tsv_pairs"
  assert before["sources"][0]["files"][0]["path"].endswith("en-fr.tsv")
  assert before != after
  assert told["tfds_fingerprint"]["sources"][0]["tfds"].endswith("1.0.0")


def test_sets_that_are_not_built_yet(told):
  """Built at the first use, or one message; never a message of Python's."""
  assert told["examples"]["late_text"] == told["examples"]["tiny_text"]
  lost = told["errors"]["lost"]
  assert (
    "task 'lost_text'" in lost and "has not built lost_set:1.0.0 in" in lost
  )
  assert "no such host" in lost and "TFDS_DATA_DIR" in lost
  assert "tyni_set" in told["errors"]["typo"]


def test_a_set_consumes_its_size(told):
  size, consumed = told["tfds_consumed"]
  assert size > 0 and consumed == pytest.approx(size, abs=1)


def test_a_local_tfds_builder(told):
  assert told["tfds_splits"] == ["train"]
  assert told["examples"]["tiny_text"] == [
    {"text": f"text {n}\n", "language": "sw"} for n in range(3)
  ]
  assert told["examples"]["tiny_pairs"] == [
    {
      "text_a": f"source {n}",
      "language_a": "en",
      "text_b": f"ziel {n}",
      "language_b": "de",
    }
    for n in range(3)
  ]
  # One of the three has no Turkish.
  assert [(e["text_a"], e["text_b"]) for e in told["examples"]["tiny_ted"]] == [
    ("talk 0", "söz 0"),
    ("talk 2", "söz 2"),
  ]


def test_registered_tfds_tasks_with_mock_data(told):
  """Names, versions and features are those of TFDS's own builders."""
  for name, languages in {
    "tfds_wikipedia_sw": ["sw"],
    "tfds_para_crawl_en_el": ["en", "el"],
    "tfds_wmt14_hi_en": ["hi", "en"],
    "tfds_wmt19_zh_en": ["zh", "en"],
    "tfds_opus_koran_de_en": ["de", "en"],
    "tfds_flores_ne_en": ["ne", "en"],
  }.items():
    found = told["mocked"][name]
    counts = Counter(tuple(languages) for _, languages in found)
    assert counts == {tuple(languages): 3}, name
    assert all(all(texts) for texts, _ in found)
  assert told["missing_builders"] == []


def test_unknown_options_need_no_tensorflow():
  with pytest.raises(InputError, match="kind = 'sentences'"):
    sources.SeqioTask("text_lines", ("tasks.text",), "sentences")
