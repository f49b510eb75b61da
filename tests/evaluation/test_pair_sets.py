"""Files of translations: TSV, and Tatoeba in each of its layouts."""

import in_a_process
import numpy as np
import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation import tatoeba
from infoxlm_jax.evaluation.pair_sets import data_hash, read_tsv_sets
from infoxlm_jax.evaluation.tatoeba import (
  PAPER,
  PAPER_14,
  XTREME_36,
  read_tatoeba,
)

ENGLISH = ["I'm at a loss.\u2028", "Tom fell.", "Ask him."]
SWAHILI = ["Sijui la kufanya.", "Tom alianguka.", "Muulize."]


def write(folder, files):
  for name, lines in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{x}\n" for x in lines), encoding="utf-8")
  return folder


LASER = {
  "tatoeba.swh-eng.swh": SWAHILI,
  "tatoeba.swh-eng.eng": ENGLISH,
  "tatoeba.cmn-eng.cmn": ["你好。", "谢谢。"],
  "tatoeba.cmn-eng.eng": ["Hello.", "Thanks."],
  "tatoeba.ceb-eng.ceb": ["Oo."],
  "tatoeba.ceb-eng.eng": ["Yes."],
}
XTREME = {"sw-en.sw": SWAHILI, "sw-en.en": ENGLISH}


def test_laser(tmp_path):
  layout, sets = read_tatoeba(write(tmp_path, LASER))
  assert layout == "LASER"
  assert [one.language for one in sets] == ["sw", "zh"]
  assert sets[0].pivot_texts == ENGLISH
  assert sets[0].texts == SWAHILI
  # A language without a code of two letters keeps its three.
  _, every = read_tatoeba(tmp_path, "all")
  assert [one.language for one in every] == ["ceb", "sw", "zh"]


def test_xtreme(tmp_path):
  layout, [one] = read_tatoeba(write(tmp_path, XTREME))
  assert (layout, one.language) == ("XTREME", "sw")
  assert (one.pivot_texts, one.texts) == (ENGLISH, SWAHILI)


def test_what_xtremes_script_sorted_is_refused(tmp_path):
  english = sorted(f"Sentence {n}." for n in range(30))
  files = {"sw-en.sw": map(str, range(30)), "sw-en.en": english}
  with pytest.raises(InputError, match=r"alphabetical order.*LASER's files"):
    read_tatoeba(write(tmp_path, files))


BUILD = """
import sys
import tensorflow_datasets as tfds
folder = sys.argv[1]
builder = tfds.builder("tatoeba/tatoeba_sw", data_dir=folder + "/built")
type(builder).url_infos = {}  # nothing is downloaded
builder._split_generators = lambda downloads: {
  "train": builder._generate_examples(
    source_file=folder + "/tatoeba.swh-eng.swh",
    target_file=folder + "/tatoeba.swh-eng.eng",
  )
}
builder.download_and_prepare()
from infoxlm_jax.evaluation.tatoeba import read_tatoeba
for inner in ("/built", "/built/tatoeba"):
  layout, [one] = read_tatoeba(__import__("pathlib").Path(folder + inner))
  print(ascii((layout, one.language, sorted(zip(one.texts, one.pivot_texts)))))
"""


@pytest.mark.slow  # TensorFlow
def test_what_tfds_built_from_lasers_files(tmp_path, root):
  write(tmp_path, LASER)
  said = in_a_process.said(BUILD, str(tmp_path), folder=root)
  pairs = sorted(zip(SWAHILI, ENGLISH, strict=True))
  expected = ascii(("TFDS", "sw", pairs))
  # TFDS's own messages come first.
  assert said.strip().split("\n")[-2:] == [expected, expected]


def test_languages_and_published_figures():
  assert len(PAPER_14) == 14 and len(XTREME_36) == 36
  assert set(PAPER_14) < set(XTREME_36)
  assert set(XTREME_36) <= set(tatoeba.ISO_639_1.values())
  assert len(set(tatoeba.ISO_639_1.values())) == len(tatoeba.ISO_639_1)
  for figures in PAPER.values():
    mean = np.mean([figures[language] for language in PAPER_14])
    assert mean == pytest.approx(figures["mean"], abs=0.05)


@pytest.mark.parametrize(
  ("files", "message"),
  [
    (
      {"tatoeba.swh-eng.eng": ENGLISH[:2]},
      "eng has 2 lines and .*swh has 3: from line 3 on",
    ),
    ({"tatoeba.swh-eng.swh": ["a", " ", "c"]}, r"swh-eng\.swh, line 2: it is"),
    ({"tatoeba.fra-eng.fra": ["a"]}, r"fra-eng\.eng: no such file"),
    ({"tatoeba.fra-eng.eng": ["a"]}, r"fra-eng\.fra: no such file"),
    (XTREME, "found LASER and XTREME"),
  ],
)
def test_broken_folders_are_named(tmp_path, files, message):
  write(tmp_path, LASER | files)
  with pytest.raises(InputError, match=message):
    read_tatoeba(tmp_path)


def test_languages_that_are_missing(tmp_path):
  write(tmp_path, LASER)
  message = r"no files for fr \(expected tatoeba\.fra-eng\.eng, tatoeba\.fra"
  with pytest.raises(InputError, match=message):
    read_tatoeba(tmp_path, ("sw", "fr"))
  with pytest.raises(InputError, match=r"no files for ar, bg.*ceb, sw, zh"):
    read_tatoeba(tmp_path, "paper_14")
  with pytest.raises(InputError, match="found none"):
    read_tatoeba(write(tmp_path / "other", {"a.txt": ["a"]}))
  with pytest.raises(InputError, match="no such folder"):
    read_tatoeba(tmp_path / "nowhere")


def test_tsv_pairs_in_either_order(tmp_path):
  files = {"en-de.tsv": ["a\tA", "b\tB", "c\tC"], "x.fr-en.tsv": ["Q\tq"]}
  write(tmp_path, files)
  german, french = read_tsv_sets(str(tmp_path / "*.tsv"))
  assert (german.language, german.pivot_texts) == ("de", ["a", "b", "c"])
  assert german.texts == ["A", "B", "C"]
  assert (french.language, french.pivot_texts) == ("fr", ["q"])
  [cut] = read_tsv_sets(str(tmp_path / "en-de.tsv"), max_pairs=2)
  assert cut.texts == ["A", "B"]
  assert data_hash([cut]) != data_hash([german]) == data_hash([german])


@pytest.mark.parametrize(
  ("lines", "message"),
  [
    (["a\tA", "b\t "], r"en-de\.tsv, line 2: the side in de is empty"),
    (["en\tde", "\tA"], r"en-de\.tsv, line 2: the side in en is empty"),
    (["a\tA", "b"], r"en-de\.tsv, line 2: 1 tab-separated"),
  ],
)
def test_broken_pairs_are_named(tmp_path, lines, message):
  write(tmp_path, {"en-de.tsv": lines})
  with pytest.raises(InputError, match=message):
    read_tsv_sets(str(tmp_path / "en-de.tsv"))


def test_pairs_that_do_not_go_together(tmp_path):
  write(tmp_path, {"en-de.tsv": ["a\tA"], "more.en-de.tsv": ["b\tB"]})
  with pytest.raises(InputError, match=r"more.*en and de already"):
    read_tsv_sets(str(tmp_path / "*.tsv"))
  with pytest.raises(InputError, match="one of the two has to be fr"):
    read_tsv_sets(str(tmp_path / "en-de.tsv"), pivot="fr")
  with pytest.raises(InputError, match="MAX_PAIRS = 0"):
    read_tsv_sets(str(tmp_path / "en-de.tsv"), max_pairs=0)
