"""The Tatoeba test set (Artetxe and Schwenk, TACL 2019) in its layouts.

    LASER    tatoeba.fra-eng.fra, tatoeba.fra-eng.eng    (data/tatoeba/v1)
    XTREME   fr-en.fr, fr-en.en
    TFDS     tatoeba/tatoeba_fr/1.0.0/

XTREME's own script sorts the English sentences, so that the test has no
answers in it; such a file is refused. TFDS keeps the end of line of a sentence,
which is removed here.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from infoxlm_jax.data.corpora.tfds_folder import read_tfds_folder
from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.pair_sets import PairSet, read_aligned

# The languages of XNLI without English: those of the paper's Table 2.
PAPER_14 = tuple("ar bg de el es fr hi ru sw th tr ur vi zh".split())
XTREME_36 = tuple(
  "af ar bg bn de el es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr nl"
  " pt ru sw ta te th tl tr ur vi zh".split()
)
GROUPS = {"paper_14": PAPER_14, "xtreme_36": XTREME_36}

# ISO 639-3, as LASER's files have it, to ISO 639-1. Languages without a code
# of two letters keep their three.
ISO_639_1 = dict(
  code.split(":")
  for code in """
  afr:af ara:ar aze:az bel:be ben:bn bos:bs bre:br bul:bg cat:ca ces:cs cha:ch
  cmn:zh cor:kw cym:cy dan:da deu:de ell:el eng:en epo:eo est:et eus:eu fao:fo
  fin:fi fra:fr fry:fy gla:gd gle:ga glg:gl heb:he hin:hi hrv:hr hun:hu hye:hy
  ido:io ile:ie ina:ia ind:id isl:is ita:it jav:jv jpn:ja kat:ka kaz:kk khm:km
  kor:ko kur:ku lat:la lit:lt lvs:lv mal:ml mar:mr mkd:mk mon:mn nld:nl nno:nn
  nob:nb oci:oc pes:fa pol:pl por:pt ron:ro rus:ru slk:sk slv:sl spa:es sqi:sq
  srp:sr swe:sv swh:sw tam:ta tat:tt tel:te tgl:tl tha:th tuk:tk tur:tr uig:ug
  ukr:uk urd:ur uzb:uz vie:vi xho:xh yid:yi zsm:ms
  """.split()
)
_ISO_639_3 = {short: long for long, short in ISO_639_1.items()}

# InfoXLM base in the paper's Table 2, per cent: layer 7, mean over all tokens
# with <s> and </s>, cosine.
PAPER_LAYER, PAPER_POOLING = 7, "mean_all"
PAPER: Mapping[str, Mapping[str, float]] = {
  "en_to_xx": dict(
    zip(
      PAPER_14,
      (68.6, 78.7, 95.1, 72.6, 87.2, 84.0, 88.3)
      + (85.7, 40.8, 91.2, 84.7, 73.3, 92.0, 86.4),
      strict=True,
    )
  )
  | {"mean": 80.6},
  "xx_to_en": dict(
    zip(
      PAPER_14,
      (59.1, 78.7, 93.9, 62.2, 88.2, 79.4, 87.1)
      + (83.8, 39.5, 85.0, 83.2, 73.0, 89.6, 86.4),
      strict=True,
    )
  )
  | {"mean": 77.8},
}

# Fewer lines may be in order by chance.
_SORTED_LINES = 10


def read_tatoeba(
  folder: Path, languages: Sequence[str] | str | None = None
) -> tuple[str, list[PairSet]]:
  """Reads the pairs of English and each language.

  Args:
    folder: holds the files of one layout.
    languages: ISO 639-1 codes (639-3 where there is none), "paper_14",
      "xtreme_36", or "all" for all that the folder has. None: those of
      xtreme_36 that it has, or all if it has none of these.

  Returns:
    (layout, sets): "LASER", "XTREME" or "TFDS", and the sets, in the order
    of the languages.

  Raises:
    InputError: no folder, no layout or several, a language without files, a
      broken file, or English sentences that XTREME's script has sorted.
  """
  if not folder.is_dir():
    raise InputError(f"DATA = {folder}: no such folder.")
  layouts = {
    "LASER": _laser(folder),
    "XTREME": _xtreme(folder),
    "TFDS": _tfds(folder),
  }
  present = {name: paths for name, paths in layouts.items() if paths}
  if len(present) != 1:
    have = " and ".join(present) or "none"
    raise InputError(
      f"{folder}: expected Tatoeba in one layout, found {have}. The layouts"
      " are LASER's (tatoeba.fra-eng.fra and tatoeba.fra-eng.eng), XTREME's"
      " (fr-en.fr and fr-en.en) and TFDS's (tatoeba/tatoeba_fr/1.0.0)."
    )
  [(layout, paths)] = present.items()
  sets = []
  for language in _wanted(folder, layout, languages, list(paths)):
    if layout == "TFDS":
      sets.append(_read_tfds(language, paths[language]))
      continue
    one = read_aligned(language, *_two_files(layout, folder, language))
    _check_not_sorted(one, folder)
    sets.append(one)
  return layout, sets


def _wanted(
  folder: Path,
  layout: str,
  languages: Sequence[str] | str | None,
  present: Sequence[str],
) -> Sequence[str]:
  if languages is None:
    return [x for x in XTREME_36 if x in present] or sorted(present)
  if languages == "all":
    return sorted(present)
  if isinstance(languages, str):
    wanted = GROUPS.get(languages) or tuple(languages.split(","))
  else:
    wanted = tuple(languages)
  if missing := [x for x in wanted if x not in present]:
    files = ", ".join(_names(layout, missing[0]))
    raise InputError(
      f"{folder}: no files for {', '.join(missing)} (expected {files}). Fetch"
      " them, or set LANGUAGES to those that are there:"
      f" {', '.join(sorted(present))}."
    )
  return wanted


def _laser(folder: Path) -> dict[str, list[Path]]:
  return _by_language(folder, r"tatoeba\.([a-z]{3})-eng\.(\1|eng)")


def _xtreme(folder: Path) -> dict[str, list[Path]]:
  return _by_language(folder, r"([a-z]{2,3})-en\.(\1|en)")


def _by_language(folder: Path, pattern: str) -> dict[str, list[Path]]:
  """{language: its files}, one or both of the two."""
  paths: dict[str, list[Path]] = {}
  for path in sorted(folder.iterdir()):
    if match := re.fullmatch(pattern, path.name):
      code = ISO_639_1.get(match[1], match[1])
      paths.setdefault(code, []).append(path)
  return paths


def _tfds(folder: Path) -> dict[str, list[Path]]:
  paths: dict[str, list[Path]] = {}
  for inner in (folder, folder / "tatoeba"):
    for path in sorted(inner.glob("tatoeba_*/*/dataset_info.json")):
      language = path.parent.parent.name.removeprefix("tatoeba_")
      paths.setdefault(language, []).append(path.parent)
  return paths


def _names(layout: str, language: str) -> tuple[str, ...]:
  """Names of a language's files: English, then the language."""
  if layout == "LASER":
    code = _ISO_639_3.get(language, language)
    return f"tatoeba.{code}-eng.eng", f"tatoeba.{code}-eng.{code}"
  if layout == "XTREME":
    return f"{language}-en.en", f"{language}-en.{language}"
  return (f"tatoeba/tatoeba_{language}",)


def _two_files(layout: str, folder: Path, language: str) -> tuple[Path, Path]:
  english, other = _names(layout, language)
  return folder / english, folder / other


def _check_not_sorted(one: PairSet, folder: Path) -> None:
  english = list(one.pivot_texts)
  if len(english) >= _SORTED_LINES and english == sorted(english):
    raise InputError(
      f"{one.source}: the English sentences are in alphabetical order. XTREME's"
      " script sorts them, which removes the answers: line n is not the"
      " translation of line n any more. Use LASER's files (data/tatoeba/v1)"
      f" in place of {folder}."
    )


def _read_tfds(language: str, folders: Sequence[Path]) -> PairSet:
  folder = folders[-1]  # the latest version
  texts: tuple[list[str], list[str]] = [], []
  names = ("target_sentence", "source_sentence")
  examples = read_tfds_folder(folder, "train", names)
  for number, example in enumerate(examples, 1):
    for side, name in zip(texts, names, strict=True):
      text = example[name].rstrip("\r\n")
      if not text.strip():
        raise InputError(
          f"{folder}, example {number}: {name} is empty. Build the data set"
          " again."
        )
      side.append(text)
  return PairSet(language, texts[0], texts[1], str(folder))
