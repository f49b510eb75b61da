"""XNLI and PAWS-X in the layouts in which they are handed out.

                train                      dev, test
  TFDS          multi_nli/1.1.0/           xnli/1.1.0/, see tfds_pairs.py
  XNLI 1.0      multinli.train.en.tsv      xnli.dev.tsv, xnli.test.tsv, with a
                (XNLI-MT-1.0), or          header and a column "language"
                multinli_1.0_train.txt
  PAWS-X        en/train.tsv,              de/dev_2k.tsv, de/test_2k.tsv
                de/translated_train.tsv
  XTREME        train-en.tsv               dev-de.tsv, test-de.tsv, no header:
                                           text, text, label

Files are looked for in the folder and below it; they may be compressed.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from infoxlm_jax.data.corpora.open_files import read_lines
from infoxlm_jax.data.labelled import tfds_pairs, tsv
from infoxlm_jax.data.labelled.tsv import Texts
from infoxlm_jax.errors import InputError

# The translated training sets of XNLI spell it so.
_SPELLINGS = {"contradictory": "contradiction"}
_NO_AGREEMENT = "-"  # MultiNLI's label where its five annotators do not agree
_NLI_LABELS = ("entailment", "neutral", "contradiction")
_PACKED = r"(\.gz|\.xz|\.zst)?"
_LANGUAGE = r"(?P<language>[a-z]{2,3})"
_XTREME = {
  split: re.compile(rf"{split}-{_LANGUAGE}\.tsv{_PACKED}")
  for split in ("train", "dev", "test")
}
Wanted = Sequence[str] | None


class Form(NamedTuple):
  """The columns of a file with a header, and the labels that it may have."""

  first: str
  second: str
  label: str
  labels: tuple[str, ...] = _NLI_LABELS


_XNLI = Form("sentence1", "sentence2", "gold_label")
_MULTINLI = _XNLI._replace(labels=(*_NLI_LABELS, _NO_AGREEMENT))
_MULTINLI_MT = Form("premise", "hypo", "label")
_PAWSX = Form("sentence1", "sentence2", "label", ("0", "1"))


class PairSet(NamedTuple):
  """Pairs of a task, by language.

  Attributes:
    train, dev, test: by language.
    notes: what was left out, and why.
  """

  train: dict[str, Texts]
  dev: dict[str, Texts]
  test: dict[str, Texts]
  notes: dict[str, int]


def read_xnli(
  folder: str, train: Wanted = ("en",), languages: Wanted = None
) -> PairSet:
  """Reads XNLI.

  Args:
    folder: of the files, see the module.
    train: languages to train on; None: all that there are.
    languages: of dev and test; None: all that there are.

  Raises:
    InputError: a file is missing, broken, or lacks a language.
  """
  built = tfds_pairs.find(folder)
  # A TFDS data_dir may have many files, of which none is of another layout.
  files = [] if built else _files(folder)
  notes: dict[str, int] = {}
  if built:
    trained, dev, test = tfds_pairs.read(built)
  elif _any(files, "xnli.dev.tsv"):
    dev = _one_file(_only(files, "xnli.dev.tsv", folder))
    test = _one_file(_only(files, "xnli.test.tsv", folder))
    trained = _multinli(files, folder, notes)
  else:
    trained, dev, test = _xtreme(files, folder, "XNLI", _NLI_LABELS)
  return PairSet(
    _chosen(trained, train, f"{folder}: no training set"),
    _chosen(dev, languages, f"{folder}: no dev set"),
    _chosen(test, languages, f"{folder}: no test set"),
    notes,
  )


def read_pawsx(
  folder: str, train: Wanted = ("en",), languages: Wanted = None
) -> PairSet:
  """Reads PAWS-X; arguments and errors as read_xnli's."""
  files = _files(folder)
  official = {
    "train": re.compile(rf"(translated_)?train\.tsv{_PACKED}"),
    "dev": re.compile(rf"dev_2k\.tsv{_PACKED}"),
    "test": re.compile(rf"test_2k\.tsv{_PACKED}"),
  }
  splits: dict[str, dict[str, Texts]] = {name: {} for name in official}
  for name, pattern in official.items():
    for path in files:
      if pattern.fullmatch(path.name):
        own = splits[name]
        _add(own, path.parent.name, path, _PAWSX)
  if not splits["train"]:
    sets = _xtreme(files, folder, "PAWS-X", _PAWSX.labels)
    splits = dict(zip(official, sets, strict=True))
  return PairSet(
    _chosen(splits["train"], train, f"{folder}: no training set"),
    _chosen(splits["dev"], languages, f"{folder}: no dev set"),
    _chosen(splits["test"], languages, f"{folder}: no test set"),
    {},
  )


def _files(folder: str) -> list[Path]:
  if not Path(folder).is_dir():
    raise InputError(f"{folder}: no such folder; set DATA to that of the task")
  return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def _any(files: Iterable[Path], name: str) -> list[Path]:
  pattern = re.compile(re.escape(name) + _PACKED)
  return [path for path in files if pattern.fullmatch(path.name)]


def _only(files: Iterable[Path], name: str, folder: str) -> Path:
  candidates = _any(files, name)
  if len(candidates) != 1:
    count = f"{len(candidates)} files" if candidates else "no file"
    raise InputError(f"{folder}: {count} named {name}; there must be one")
  return candidates[0]


def _multinli(
  files: Sequence[Path], folder: str, notes: dict[str, int]
) -> dict[str, Texts]:
  """Training sets: MultiNLI in English and in translation."""
  out: dict[str, Texts] = {}
  pattern = re.compile(rf"multinli\.train\.{_LANGUAGE}\.tsv{_PACKED}")
  for path in files:
    if match := pattern.fullmatch(path.name):
      _add(out, match["language"], path, _MULTINLI_MT)
  if "en" not in out:
    for path in _any(files, "multinli_1.0_train.txt"):
      _add(out, "en", path, _MULTINLI)
      kept = [n for n, x in enumerate(out["en"].labels) if x != _NO_AGREEMENT]
      notes["without_agreed_label"] = len(out["en"].labels) - len(kept)
      out["en"] = _rows(out["en"], kept)
  if not out:
    raise InputError(
      f"{folder}: no training set: neither multinli.train.en.tsv (XNLI-MT-1.0)"
      " nor multinli_1.0_train.txt (MultiNLI 1.0) is there"
    )
  return out


def _xtreme(
  files: Sequence[Path], folder: str, task: str, known: Sequence[str]
) -> tuple[dict[str, Texts], ...]:
  out = []
  for split, pattern in _XTREME.items():
    own: dict[str, Texts] = {}
    for path in files:
      if match := pattern.fullmatch(path.name):
        _add(own, match["language"], path, known)
    if not own:
      raise InputError(
        f"{folder}: no {split} set of {task}: no file is named as in its own"
        f" layout or in XTREME's ({split}-en.tsv)"
      )
    out.append(own)
  return tuple(out)


def _add(
  out: dict[str, Texts],
  language: str,
  path: Path,
  form: Form | Sequence[str],
) -> None:
  """Reads a file of a form, or of XTREME's three cells with these labels."""
  if language in out:
    raise InputError(
      f"{out[language].where} and {path} are both of {language!r}; keep one"
    )
  if isinstance(form, Form):
    out[language] = _headed(path, form)
    return
  read = tsv.read(path, columns=(2, 0, 1))
  for number, label in enumerate(read.labels, 1):
    _check_label(label, form, f"{path}, line {number}")
  out[language] = _spelt(read)


def _one_file(path: Path) -> dict[str, Texts]:
  """A file of all languages, by language."""
  out: dict[str, tuple[list[str], list[str], list[str]]] = {}
  for cells in _cells(path, _XNLI, ("language",)):
    language, label, first, second = cells
    own = out.setdefault(language, ([], [], []))
    own[0].append(label)
    own[1].append(first)
    own[2].append(second)
  return {
    language: _spelt(Texts(f"{path} ({language})", *own))
    for language, own in out.items()
  }


def _headed(path: Path, form: Form) -> Texts:
  """A file with a header."""
  labels, firsts, seconds = [], [], []
  for label, first, second in _cells(path, form):
    labels.append(label)
    firsts.append(first)
    seconds.append(second)
  return _spelt(Texts(str(path), labels, firsts, seconds))


def _cells(
  path: Path, form: Form, before: tuple[str, ...] = ()
) -> Iterable[list[str]]:
  """Label, first and second text of each row, after the columns `before`."""
  columns = (*before, form.label, form.first, form.second)
  places: list[int] = []
  width = rows = 0
  for number, line in read_lines(path):
    cells = line.split("\t")
    if not places:
      missing = [name for name in columns if name not in cells]
      if missing:
        raise InputError(
          f"{path}, line 1: no column {missing[0]!r} among {cells}; the file"
          " must have its own header"
        )
      places, width = [cells.index(name) for name in columns], len(cells)
      continue
    # Some rows of MultiNLI have fewer labels of single annotators at their end.
    if len(cells) <= max(places) or len(cells) > width:
      raise InputError(
        f"{path}, line {number}: {len(cells)} tab-separated cells, the header"
        f" has {width}"
      )
    chosen = [cells[n].strip() for n in places]
    if "" in chosen:
      name = columns[chosen.index("")]
      raise InputError(f"{path}, line {number}: {name} is empty")
    rows += 1
    _check_label(chosen[len(before)], form.labels, f"{path}, line {number}")
    yield chosen
  if not rows:
    raise InputError(f"{path} has no rows below its header")


def _check_label(label: str, known: Sequence[str], where: str) -> None:
  if _SPELLINGS.get(label, label) not in known:
    raise InputError(
      f"{where}: the label {label!r} is none of {', '.join(known)}"
    )


def _spelt(own: Texts) -> Texts:
  return own._replace(labels=[_SPELLINGS.get(x, x) for x in own.labels])


def _rows(own: Texts, kept: Sequence[int]) -> Texts:
  return Texts(
    own.where,
    [own.labels[n] for n in kept],
    [own.first[n] for n in kept],
    own.second and [own.second[n] for n in kept],
  )


def _chosen(
  sets: dict[str, Texts], wanted: Wanted, message: str
) -> dict[str, Texts]:
  if wanted is None:
    return sets
  for language in wanted:
    if language not in sets:
      raise InputError(
        f"{message} in {language!r}; there are {', '.join(sorted(sets))}"
      )
  return {language: sets[language] for language in wanted}
