"""Language tags as people write them: one parser for names, TMX and Moses."""

from pathlib import Path

import pytest
from small_corpus import OPTIONS

from infoxlm_jax.data import languages
from infoxlm_jax.data.corpora.file_names import language_of, pair_of
from infoxlm_jax.data.corpora.sources import Moses, TextFiles
from infoxlm_jax.data.languages import parse, scripts_of
from infoxlm_jax.data.prepare.filters import Cleaning
from infoxlm_jax.data.prepare.pipeline import prepare
from infoxlm_jax.data.records import Store


@pytest.mark.parametrize(
  ("tag", "parts"),
  [
    ("en", ("en", "", "", ())),
    ("EN-us", ("en", "", "US", ())),
    ("zh_hans_CN", ("zh", "Hans", "CN", ())),
    ("es_419", ("es", "", "419", ())),
    ("hi_rom", ("hi", "Latn", "", ())),
    ("hi_latn", ("hi", "Latn", "", ())),
    ("sr@latin", ("sr", "Latn", "", ())),
    ("sr_RS@latin", ("sr", "Latn", "RS", ())),
    ("ca@valencia", ("ca", "", "", ("valencia",))),
    ("ca-valencia", ("ca", "", "", ("valencia",))),
    ("zh-yue-HK", ("zh", "", "", ("yue", "hk"))),
    ("de-CH-1901", ("de", "", "CH", ("1901",))),
    ("en-x-twain", ("en", "", "", ("x", "twain"))),
    ("x-none", ("x-none", "", "", ())),
  ],
)
def test_parts(tag, parts):
  assert parse(tag) == parts


@pytest.mark.parametrize("tag", ["German", "e", "", "../x", "en-", "en fr"])
def test_no_tags(tag):
  assert parse(tag) is None and not languages.is_language(tag)


def test_the_same_and_more_special():
  assert languages.same("zh_hant", "zh-Hant")
  assert not languages.same("zh-Hans", "zh-Hant")
  for wanted, other, covered in (
    ("en", "en-US", True),
    ("zh-Hant", "zh_hant_TW", True),
    ("en-US", "en", False),
    ("fi", "fil", False),
    ("en", "x-none", False),
  ):
    assert parse(wanted).covers(parse(other)) == covered


@pytest.mark.parametrize(
  ("language", "scripts"),
  [
    ("hi", {"Devanagari"}),
    ("hi_rom", {"Latn"}),
    ("bn_rom", {"Latn"}),
    ("hi_latn", {"Latn"}),
    ("hi-Latn", {"Latn"}),
    ("my_zaw", {"Mymr"}),
    ("az_IR", {"Latin", "Cyrillic", "Arabic"}),
    ("az", {"Latin", "Cyrillic"}),
    ("sr@latin", {"Latn"}),
    ("sr@cyrillic", {"Cyrl"}),
    ("zh_hant", {"Han", "Bopomofo"}),
    ("ca@valencia", {"Latin"}),
    ("x-none", set()),
    ("xx", set()),
  ],
)
def test_scripts(language, scripts):
  assert set(scripts_of(language)) == scripts


@pytest.mark.parametrize(
  ("name", "language"),
  [
    ("hi_rom.txt", "hi_rom"),
    ("hi_latn.txt.xz", "hi_latn"),
    ("es_419.txt", "es_419"),
    ("es-419.txt", "es-419"),
    ("zh_hans.txt", "zh_hans"),
    ("zh-hant.txt", "zh-hant"),
    ("ca@valencia.txt", "ca@valencia"),
    ("wiki.sr@latin.txt", "sr@latin"),
    ("ca-valencia.txt", "ca-valencia"),
  ],
)
def test_names_of_texts(name, language):
  assert language_of(Path(name)) == language


# All 16 are names of OPUS or of GNOME's and KDE's translations.
NAMES = {
  "en-fr": ("en", "fr"),
  "en-pt_br": ("en", "pt_br"),
  "en-zh_CN": ("en", "zh_CN"),
  "en-zh_hant": ("en", "zh_hant"),
  "en-zh-hant": ("en", "zh-hant"),
  "en-es_419": ("en", "es_419"),
  "en-ca@valencia": ("en", "ca@valencia"),
  "en-sr@latin": ("en", "sr@latin"),
  "en-uz@cyrillic": ("en", "uz@cyrillic"),
  "en_gb-de": ("en_gb", "de"),
  "en-pt-br": ("en", "pt-br"),
  "pt-br-zh-cn": ("pt-br", "zh-cn"),
  "en-deu_Latn": ("en", "deu_Latn"),
  "eng-fra": ("eng", "fra"),
  "be@tarask-en": ("be@tarask", "en"),
  "en-bn_rom": ("en", "bn_rom"),
}


@pytest.mark.parametrize("name", NAMES)
def test_pairs_of_names(name):
  assert pair_of(f"OPUS.{name}") == NAMES[name]


@pytest.mark.parametrize("name", ["en-de-fr", "train-dev-set", "part-of"])
def test_no_pair(name):
  assert pair_of(name) is None


def test_moses_pairs_of_all_names(tmp_path):
  """The endings may be in other letters than the common beginning."""
  for name, (a, b) in NAMES.items():
    (tmp_path / f"{name}.{a}").write_text("one\n")
    (tmp_path / f"{name}.{b}").write_text("eins\n")
  (tmp_path / "ga.en-zh_Hant.en").write_text("one\n")
  (tmp_path / "ga.en-zh_Hant.zh-hant").write_text("eins\n")
  pairs = {
    (e["language_a"], e["language_b"])
    for e in Moses(f"{tmp_path}/*-*").examples("train")
  }
  assert pairs == {*NAMES.values(), ("en", "zh_Hant")}


def test_romanised_text_stays(tmp_path):
  """CC-100's names: no sentence is of the wrong script."""
  texts = {
    "hi": "यह एक वाक्य है",
    "hi_rom": "yah ek vakya hai",
    "hi_latn": "vah ghar bada hai",
    "az_IR": "بو بیر جمله‌دیر",
    "sr@latin": "ovo je recenica",
  }
  for language, text in texts.items():
    lines = [f"{text} {n}" for n in range(5)]
    (tmp_path / f"{language}.txt").write_text("\n".join(lines) + "\n")
  options = OPTIONS | {"corpora": [TextFiles(f"{tmp_path}/*.txt")]}
  options |= {"cleaning": Cleaning()}
  store = Store(prepare(tmp_path / "out", **options) / "train")
  for corpus in store.manifest.corpora:
    assert (corpus.sentences, corpus.dropped) == (5, {})
  assert store.languages == sorted(texts)
