"""XNLI and MultiNLI as TensorFlow Datasets builds them.

xnli/1.1.0/        splits validation and test; all languages in an example:
                   premise {"fr": text, ...}, hypothesis {"language": [...],
                   "translation": [...]}, label
multi_nli/1.1.0/   split train: premise, hypothesis, label; English
"""

from pathlib import Path
from typing import NamedTuple

from infoxlm_jax.data.corpora.tfds_folder import read_tfds_folder
from infoxlm_jax.data.labelled.tsv import Texts
from infoxlm_jax.errors import InputError

_FEATURES = ("premise", "hypothesis", "label")
_AGAIN = "Build the data set again (tfds build)."
Sets = dict[str, Texts]  # by language


class Built(NamedTuple):
  """Folders of the latest version of each data set."""

  xnli: Path
  multi_nli: Path


def find(folder: str) -> Built | None:
  """The data sets in a folder that TFDS has written (its data_dir).

  Raises:
    InputError: xnli is there without multi_nli.
  """
  xnli, multi_nli = (_latest(folder, name) for name in ("xnli", "multi_nli"))
  if xnli is None:
    return None
  if multi_nli is None:
    raise InputError(
      f"{folder}: holds xnli of TensorFlow Datasets, and no multi_nli, which is"
      " the training set; build it there (tfds build multi_nli)"
    )
  return Built(xnli, multi_nli)


def read(built: Built) -> tuple[Sets, Sets, Sets]:
  """Pairs to train on, of dev and of test, by language.

  Raises:
    InputError: a folder cannot be read, or an example lacks a text or label.
  """
  dev, test = (_xnli(built.xnli, split) for split in ("validation", "test"))
  return {"en": _multi_nli(built.multi_nli)}, dev, test


def _latest(folder: str, name: str) -> Path | None:
  versions = [
    path.parent
    for path in Path(folder).glob(f"{name}/*/dataset_info.json")
    if all(part.isdigit() for part in path.parent.name.split("."))
  ]
  return max(
    versions,
    key=lambda path: [int(part) for part in path.name.split(".")],
    default=None,
  )


def _multi_nli(folder: Path) -> Texts:
  out = Texts(f"{folder} (train)", [], [], [])
  for number, row in enumerate(read_tfds_folder(folder, "train", _FEATURES), 1):
    where = f"{out.where}, example {number}"
    _add(out, where, row["premise"], row["hypothesis"], row["label"])
  return out


def _xnli(folder: Path, split: str) -> Sets:
  out: Sets = {}
  for number, row in enumerate(read_tfds_folder(folder, split, _FEATURES), 1):
    listed = row["hypothesis"]
    hypotheses = dict(
      zip(listed["language"], listed["translation"], strict=True)
    )
    for language, premise in row["premise"].items():
      own = out.setdefault(
        language, Texts(f"{folder} ({split}, {language})", [], [], [])
      )
      where = f"{own.where}, example {number}"
      _add(own, where, premise, hypotheses.get(language, ""), row["label"])
  return out


def _add(
  out: Texts, where: str, premise: str, hypothesis: str, label: str
) -> None:
  values = zip(_FEATURES, (premise, hypothesis, label), strict=True)
  for name, value in values:
    if not value.strip():
      raise InputError(f"{where}: no {name}. {_AGAIN}")
  assert out.second is not None
  out.first.append(premise)
  out.second.append(hypothesis)
  out.labels.append(label)
