"""XNLI and PAWS-X from small files in exactly the layouts of their releases."""

from pathlib import Path

import pytest

from infoxlm_jax.data.labelled import pair_sets
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


def test_multinli_as_released(tmp_path):
  """Its own file: pairs without an agreed label are left out and counted."""
  official_xnli(tmp_path)
  (tmp_path / "XNLI-MT-1.0/multinli/multinli.train.en.tsv").unlink()
  names = (
    "gold_label\tsentence1_binary_parse\tsentence2_binary_parse\t"
    "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tpromptID\tpairID\t"
    "genre\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5"
  )
  rows = [
    "neutral\t\t\t\t\tP\tH\t31193\t31193n\tgovernment\tneutral\t\t\t\t",
    "-\t\t\t\t\tP2\tH2\t31194\t31194n\tfiction\tneutral\tentailment",
  ]
  (tmp_path / "multinli_1.0_train.txt").write_text("\n".join([names, *rows]))
  sets = pair_sets.read_xnli(str(tmp_path))
  assert sets.train["en"].first == ["P"]
  assert sets.notes == {"without_agreed_label": 1}


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
