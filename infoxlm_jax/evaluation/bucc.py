"""Bitext mining on BUCC 2018: files, mining, and the choice of a threshold.

A folder holds, for each pair of languages and each split,

    fr-en.training.fr    fr-000000001<TAB>sentence
    fr-en.training.en    en-000000001<TAB>sentence
    fr-en.training.gold  fr-000000017<TAB>en-000000005

Mining follows Artetxe and Schwenk (ACL 2019): every sentence proposes the best
sentence of the other side, and of all proposals, the best first, a pair is
taken if both its sentences are still free.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from infoxlm_jax.data.corpora.open_files import read_lines
from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.nearest import local_means, search
from infoxlm_jax.evaluation.scoring import Scoring, prepared

Gold = frozenset[tuple[int, int]]  # places in the two lists of sentences


@dataclasses.dataclass(frozen=True)
class Side:
  """Sentences of one language."""

  ids: Sequence[str]
  texts: Sequence[str]


@dataclasses.dataclass(frozen=True)
class MiningSet:
  """One split of a pair of languages.

  Attributes:
    pair: such as ("fr", "en").
    sides: the sentences of the two languages.
    gold: the true pairs; None where there is no gold file.
    source: the files, for people.
  """

  pair: tuple[str, str]
  sides: tuple[Side, Side]
  gold: Gold | None
  source: str

  @property
  def name(self) -> str:
    return "-".join(self.pair)


class Mined(NamedTuple):
  """Pairs in the order of their scores, the best first.

  Attributes:
    scores: float32 [n].
    pairs: int [n, 2], places in the two lists of sentences.
  """

  scores: np.ndarray
  pairs: np.ndarray


class Scores(NamedTuple):
  """Precision, recall and F1 as fractions."""

  precision: float
  recall: float
  f1: float


def read_bucc(folder: Path, split: str) -> list[MiningSet]:
  """Reads the files of one split, of the folder and of the folders in it.

  Raises:
    InputError: no files of the split, a missing file, a line without an id
      and a sentence, an id that occurs twice, or a gold pair of unknown ids.
  """
  if not folder.is_dir():
    raise InputError(f"DATA = {folder}: no such folder.")
  pattern = re.compile(
    rf"([a-z]{{2,3}})-([a-z]{{2,3}})\.{re.escape(split)}\..+"
  )
  pairs: dict[tuple[str, str], Path] = {}
  for path in sorted([*folder.iterdir(), *folder.glob("*/*")]):
    if match := pattern.fullmatch(path.name):
      pairs.setdefault((match[1], match[2]), path.parent)
  if not pairs:
    raise InputError(
      f"{folder}: no files of the split {split!r}, such as fr-en.{split}.fr,"
      f" fr-en.{split}.en and fr-en.{split}.gold."
    )
  return [_read_pair(where, pair, split) for pair, where in pairs.items()]


def _read_pair(folder: Path, pair: tuple[str, str], split: str) -> MiningSet:
  stem = f"{'-'.join(pair)}.{split}"
  paths = [folder / f"{stem}.{language}" for language in pair]
  for path in paths:
    if not path.is_file():
      raise InputError(f"{path}: no such file; {pair[0]}-{pair[1]} needs it.")
  sides = _read_side(paths[0]), _read_side(paths[1])
  gold_path = folder / f"{stem}.gold"
  gold = _read_gold(gold_path, sides) if gold_path.is_file() else None
  return MiningSet(pair, sides, gold, f"{folder / stem}.*")


def _read_side(path: Path) -> Side:
  ids: dict[str, None] = {}
  texts = []
  for number, line in read_lines(path):
    name, tab, text = line.partition("\t")
    if not (name and tab and text.strip()):
      raise InputError(
        f"{path}, line {number}: expected an id, a tab and a sentence, found"
        f" {line[:60]!r}."
      )
    if name in ids:
      raise InputError(
        f"{path}, line {number}: the id {name!r} occurs a second time."
      )
    ids[name] = None
    texts.append(text)
  return Side(list(ids), texts)


def _read_gold(path: Path, sides: tuple[Side, Side]) -> Gold:
  places = [{name: n for n, name in enumerate(side.ids)} for side in sides]
  gold: set[tuple[int, int]] = set()
  for number, line in read_lines(path):
    names = line.split("\t")
    if len(names) != 2:
      raise InputError(
        f"{path}, line {number}: expected two ids with a tab between them,"
        f" found {line[:60]!r}."
      )
    for name, known in zip(names, places, strict=True):
      if name not in known:
        raise InputError(
          f"{path}, line {number}: the id {name!r} is in no sentence file of"
          " this split."
        )
    pair = places[0][names[0]], places[1][names[1]]
    if pair in gold:
      raise InputError(f"{path}, line {number}: this pair is there already.")
    gold.add(pair)
  return frozenset(gold)


def mine(a_ND: np.ndarray, b_MD: np.ndarray, scoring: Scoring) -> Mined:
  """Mines pairs that share no sentence.

  Of equal scores, the pair with the lowest place in a comes first, then the
  lowest in b.

  Args:
    a_ND: float32 [N, D].
    b_MD: float32 [M, D].
    scoring: how sentences are compared.
  """
  a_ND, b_MD = prepared(a_ND, scoring), prepared(b_MD, scoring)
  local = local_means(a_ND, b_MD, scoring)
  there, back = search(a_ND, b_MD, 1, scoring.name, local)
  first = np.concatenate([np.arange(len(a_ND)), back.indices[:, 0]])
  second = np.concatenate([there.indices[:, 0], np.arange(len(b_MD))])
  scores = np.concatenate([there.scores[:, 0], back.scores[:, 0]])
  order = np.lexsort((second, first, -scores))
  free_a, free_b = np.ones(len(a_ND), bool), np.ones(len(b_MD), bool)
  taken = []
  for n in order:
    if free_a[first[n]] and free_b[second[n]]:
      free_a[first[n]] = free_b[second[n]] = False
      taken.append(n)
  return Mined(scores[taken], np.stack([first[taken], second[taken]], axis=1))


def choose_threshold(mined: Mined, gold: Gold) -> float:
  """The threshold with the best F1; pairs at or above it are kept.

  It lies half-way between the score of the last pair kept and the next lower
  one, and never between equal scores. Of equal F1, the highest threshold.

  Raises:
    InputError: the gold list has no pairs, or none of them was mined.
  """
  right = np.cumsum([tuple(pair) in gold for pair in mined.pairs.tolist()])
  if not len(right) or not right[-1]:
    raise InputError(
      f"none of the {len(gold)} gold pairs of the dev split was mined, so no"
      " threshold can be chosen: set THRESHOLD, or another LAYER and POOLING."
    )
  kept = np.arange(1, len(right) + 1)
  f1 = 2 * right / (kept + len(gold))  # = 2 p r / (p + r)
  scores = mined.scores.astype(np.float64)
  following = np.append(scores[1:], scores[-1])
  last = np.append(scores[1:] < scores[:-1], True)  # of equal scores
  best = int(np.where(last, f1, -1.0).argmax())
  return float((scores[best] + following[best]) / 2)


def at_threshold(mined: Mined, threshold: float) -> list[tuple[int, int]]:
  """The mined pairs whose score is at or above the threshold."""
  return [(a, b) for a, b in mined.pairs[mined.scores >= threshold].tolist()]


def f1_scores(pairs: Iterable[tuple[int, int]], gold: Gold) -> Scores:
  """Precision, recall and F1; what has nothing to divide by is 0."""
  kept = set(pairs)
  right = len(kept & gold)
  return Scores(
    precision=right / len(kept) if kept else 0.0,
    recall=right / len(gold) if gold else 0.0,
    f1=2 * right / (len(kept) + len(gold)) if kept or gold else 0.0,
  )
