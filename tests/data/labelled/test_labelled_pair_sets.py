"""XNLI and PAWS-X from small files in exactly the layouts of their releases."""

import json
from pathlib import Path

import in_a_process
import pytest

from infoxlm_jax.data.labelled import pair_sets, tfds_pairs
from infoxlm_jax.data.labelled.crossed import crossed
from infoxlm_jax.errors import InputError

HEADER = (
  "language\tgold_label\tsentence1_binary_parse\tsentence2_binary_parse\t"
  "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tpromptID\tpairID\t"
  "genre\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tsentence1_tokenized\t"
  "sentence2_tokenized\tmatch"
)


def xnli_row(language, label, first, second, pair):
  return (
    f"{language}\t{label}\t\t\t\t\t{first}\t{second}\t{pair}\t{pair}\t"
    f"facetoface\t{label}\t{label}\t{label}\t{label}\t{label}\t{first}\t"
    f"{second}\tTrue"
  )


def official_xnli(folder: Path) -> Path:
  rows = [HEADER]
  for language, words in {"en": ("A", "B"), "de": ("Ä", "Ö")}.items():
    rows.append(xnli_row(language, "neutral", words[0], words[1], 1))
    rows.append(xnli_row(language, "contradiction", words[1], words[0], 2))
  own = folder / "XNLI-1.0"
  own.mkdir(parents=True)
  for split in ("dev", "test"):
    (own / f"xnli.{split}.tsv").write_text("\n".join(rows) + "\n")
  trained = folder / "XNLI-MT-1.0" / "multinli"
  trained.mkdir(parents=True)
  for language, word in {"en": "train", "de": "Zug"}.items():
    (trained / f"multinli.train.{language}.tsv").write_text(
      "premise\thypo\tlabel\n"
      f"{word} 1\t{word} 2\tcontradictory\n{word} 3\t{word} 4\tentailment\n"
    )
  return folder


def test_xnli_as_released(tmp_path):
  sets = pair_sets.read_xnli(str(official_xnli(tmp_path)))
  assert list(sets.train) == ["en"]
  assert sets.train["en"].labels == ["contradiction", "entailment"]
  assert sets.train["en"].first == ["train 1", "train 3"]
  assert sets.train["en"].second == ["train 2", "train 4"]
  assert list(sets.test) == ["en", "de"]
  assert sets.test["de"].labels == ["neutral", "contradiction"]
  assert sets.test["de"].second == ["Ö", "Ä"]
  everything = pair_sets.read_xnli(str(tmp_path), train=None)
  assert set(everything.train) == {"en", "de"}


def multinli() -> str:
  """Two rows of multinli_1.0_train.txt."""
  names = (
    "gold_label\tsentence1_binary_parse\tsentence2_binary_parse\t"
    "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tpromptID\tpairID\t"
    "genre\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5"
  )
  rows = [
    "neutral\t\t\t\t\tP\tH\t31193\t31193n\tgovernment\tneutral\t\t\t\t",
    "-\t\t\t\t\tP2\tH2\t31194\t31194n\tfiction\tneutral\tentailment",
  ]
  return "\n".join([names, *rows])


def test_multinli_as_released(tmp_path):
  """Its own file: pairs without an agreed label are left out and counted."""
  official_xnli(tmp_path)
  (tmp_path / "XNLI-MT-1.0/multinli/multinli.train.en.tsv").unlink()
  (tmp_path / "multinli_1.0_train.txt").write_text(multinli())
  sets = pair_sets.read_xnli(str(tmp_path))
  assert sets.train["en"].first == ["P"]
  assert sets.notes == {"without_agreed_label": 1}


# What TFDS's own builders make of the released files.
BUILD = """
import json, sys
from pathlib import Path
import tensorflow_datasets as tfds
folder, built = Path(sys.argv[1]), sys.argv[1] + "/built"
files = {
  "xnli": {
    "validation": folder / "XNLI-1.0/xnli.dev.tsv",
    "test": folder / "XNLI-1.0/xnli.test.tsv",
  },
  "multi_nli": {"train": folder / "multinli_1.0_train.txt"},
}
for name, splits in files.items():
  builder = tfds.builder(name, data_dir=built)
  type(builder).url_infos = {}  # nothing is downloaded
  builder._split_generators = lambda downloads, splits=splits: {
    split: builder._generate_examples(str(path))
    for split, path in splits.items()
  }
  builder.download_and_prepare()
from infoxlm_jax.data.labelled.pair_sets import read_xnli
sets = read_xnli(built, languages=("en", "de"))
told = {
  split: {
    language: sorted(zip(own.labels, own.first, own.second))
    for language, own in getattr(sets, split).items()
  }
  for split in ("train", "dev", "test")
}
print(json.dumps(told))
"""
LANGUAGES = "ar bg de el en es fr hi ru sw th tr ur vi zh".split()


@pytest.mark.slow  # TensorFlow
def test_what_tfds_builds_is_what_the_files_hold(tmp_path, root):
  own = tmp_path / "XNLI-1.0"
  own.mkdir()
  for split in ("dev", "test"):
    rows = [HEADER]
    for language in LANGUAGES:  # of which TFDS wants all
      for n, label in enumerate(("neutral", "contradiction", "entailment")):
        texts = f"{language} {split} {n}", f"{language} ö {n}"
        rows.append(xnli_row(language, label, *texts, n))
    (own / f"xnli.{split}.tsv").write_text("\n".join(rows) + "\n")
  (tmp_path / "multinli_1.0_train.txt").write_text(multinli())
  said = in_a_process.said(BUILD, str(tmp_path), folder=root)
  told = json.loads(said.strip().split("\n")[-1])
  sets = pair_sets.read_xnli(str(tmp_path), languages=("en", "de"))
  assert told == {
    split: {
      language: sorted(
        map(list, zip(own.labels, own.first, own.second, strict=True))
      )
      for language, own in getattr(sets, split).items()
    }
    for split in ("train", "dev", "test")
  }
  assert set(told["test"]) == {"en", "de"} and len(told["dev"]["de"]) == 3


def test_tfds_examples_that_lack_a_text(tmp_path, monkeypatch):
  """The latest version is read, of examples as TFDS's features have them."""
  for name in ("xnli/1.1.0", "xnli/1.10.0", "multi_nli/1.1.0"):
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / "dataset_info.json").write_text("{}")
  built = tfds_pairs.find(str(tmp_path))
  assert built.xnli == tmp_path / "xnli" / "1.10.0"
  example = {
    "premise": {"de": "Ä", "en": "A"},
    "hypothesis": {"language": ["en", "de"], "translation": ["B", "Ö"]},
    "label": "neutral",
  }
  english = {"premise": "P", "hypothesis": "H", "label": "entailment"}
  examples = {"xnli": [example], "multi_nli": [english]}

  def read(folder, split, features):
    assert features == ("premise", "hypothesis", "label")
    yield from examples[folder.parent.name]

  monkeypatch.setattr(tfds_pairs, "read_tfds_folder", read)
  sets = pair_sets.read_xnli(str(tmp_path))
  assert sets.train["en"].first == ["P"] and sets.train["en"].second == ["H"]
  assert sets.test["de"].second == ["Ö"] and sets.dev["en"].second == ["B"]
  assert sets.dev["de"].labels == ["neutral"]
  for broken, problem in (
    ({"hypothesis": {"language": ["en"], "translation": ["B"]}}, "hypothesis"),
    ({"premise": {"de": " "}}, "premise"),
    ({"label": ""}, "label"),
  ):
    examples["xnli"] = [example, example | broken]
    message = rf"validation, de\), example 2: no {problem}"
    with pytest.raises(InputError, match=message):
      pair_sets.read_xnli(str(tmp_path))


def test_tfds_without_its_training_set(tmp_path):
  (tmp_path / "xnli" / "1.1.0").mkdir(parents=True)
  (tmp_path / "xnli" / "1.1.0" / "dataset_info.json").write_text("{}")
  with pytest.raises(InputError, match="no multi_nli.*tfds build multi_nli"):
    pair_sets.read_xnli(str(tmp_path))


def xtreme(folder: Path) -> Path:
  (folder / "train-en.tsv").write_text("a\tb\tcontradiction\nc\td\tneutral\n")
  for split in ("dev", "test"):
    for language in ("en", "sw"):
      (folder / f"{split}-{language}.tsv").write_text(
        f"{language} 1\t{language} 2\tcontradictory\n"
        f"{language} 3\t{language} 4\tneutral\n"
      )
  return folder


def test_xtremes_layout(tmp_path):
  sets = pair_sets.read_xnli(str(xtreme(tmp_path)))
  assert sets.test["sw"].labels == ["contradiction", "neutral"]
  assert sets.test["sw"].first == ["sw 1", "sw 3"]
  assert sets.test["sw"].second == ["sw 2", "sw 4"]
  for text, message in (
    ("a\tb\tneutral\nc\td\tyes\n", "line 2: the label 'yes' is none of"),
    ("a\tb\n", "line 1: 2 tab-separated cells.*test sets without labels"),
  ):
    (tmp_path / "test-sw.tsv").write_text(text)
    with pytest.raises(InputError, match=rf"test-sw\.tsv, {message}"):
      pair_sets.read_xnli(str(tmp_path))


def test_pawsx_as_released(tmp_path):
  header = "id\tsentence1\tsentence2\tlabel\n"
  for language, train in {"en": "train", "de": "translated_train"}.items():
    own = tmp_path / "x-final" / language
    own.mkdir(parents=True)
    (own / f"{train}.tsv").write_text(f"{header}1\t{language} a\tb\t0\n")
    for split in ("dev", "test"):
      (own / f"{split}_2k.tsv").write_text(f"{header}1\ta\t{language} b\t1\n")
  sets = pair_sets.read_pawsx(str(tmp_path), train=None)
  assert sets.train["de"].first == ["de a"]
  assert sets.train["en"].labels == ["0"]
  assert sets.test["de"].second == ["de b"]
  assert list(pair_sets.read_pawsx(str(tmp_path)).train) == ["en"]
  with pytest.raises(InputError, match="no dev set in 'fr'; there are de, en"):
    pair_sets.read_pawsx(str(tmp_path), languages=("fr",))
  broken = tmp_path / "x-final" / "de" / "test_2k.tsv"
  for text, message in (
    (f"{header}1\ta\tb\t2\n", "line 2: the label '2' is none of 0, 1"),
    (f"{header}1\ta\tb\n", "line 2: 3 tab-separated cells"),
    (header, "no rows below its header"),
  ):
    broken.write_text(text)
    with pytest.raises(InputError, match=rf"de/test_2k\.tsv.*{message}"):
      pair_sets.read_pawsx(str(tmp_path))


def test_two_languages_in_one_pair(tmp_path):
  test = pair_sets.read_xnli(str(official_xnli(tmp_path))).test
  mixed = crossed(test, rows=1)
  assert set(mixed) == {"en-en", "en-de", "de-en", "de-de"}
  assert mixed["en-de"].first == ["A"] and mixed["en-de"].second == ["Ö"]
  assert mixed["en-de"].labels == ["neutral"]
  assert crossed(test, rows=0) == {}
  test["de"].labels.reverse()
  with pytest.raises(InputError, match="labels are not those of"):
    crossed(test, rows=1)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda f: (f / "XNLI-1.0/xnli.test.tsv").unlink(), "no file named xnli.t"),
    (lambda f: _append(f, "en\tneutral\n"), "line 6: 2 tab-separated cells"),
    (lambda f: _append(f, xnli_row("en", "neutral", "", "b", 3)), "is empty"),
    (lambda f: _replace(f, "gold_label", "gold"), "no column 'gold_label'"),
    (
      lambda f: _append(f, xnli_row("de", "neutrl", "a", "b", 3)),
      r"test\.tsv, line 6: the label 'neutrl' is none of entailment, neutral",
    ),
  ],
)
def test_errors_name_file_and_line(tmp_path, change, message):
  change(official_xnli(tmp_path))
  with pytest.raises(InputError, match=message):
    pair_sets.read_xnli(str(tmp_path))


def _append(folder: Path, text: str) -> None:
  with (folder / "XNLI-1.0/xnli.test.tsv").open("a") as file:
    file.write(text)


def _replace(folder: Path, old: str, new: str) -> None:
  path = folder / "XNLI-1.0/xnli.test.tsv"
  path.write_text(path.read_text().replace(old, new))


def test_a_missing_language(tmp_path):
  official_xnli(tmp_path)
  with pytest.raises(InputError, match="no training set in 'fr'"):
    pair_sets.read_xnli(str(tmp_path), train=("fr",))
  with pytest.raises(InputError, match="no dev set in 'sw'"):
    pair_sets.read_xnli(str(tmp_path), languages=("sw",))
  with pytest.raises(InputError, match="no such folder"):
    pair_sets.read_xnli(str(tmp_path / "missing"))
