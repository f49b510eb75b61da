"""Sentence retrieval: is the nearest sentence by cosine the translation?

For each layer, pooling, language xx and direction: among all sentences of the
other language, is the nearest one (cosine) the translation? Accuracy is the
share for which it is (the Tatoeba measure of the InfoXLM paper, section 4.2,
on any multiway set).

A tie with a wrong sentence counts as wrong, and so does a lead below `TIE`,
the rounding error of float32 cosines: vectors that are all alike score 0, not
the 100 % that an argmax over equal numbers can be made to give. So do zero
vectors and vectors with NaN.

Letters of shapes: N sentences of a language, D size of a vector.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import read_files

# Twice the largest rounding error that was seen in cosines of float32 vectors
# of 64 to 1,024 numbers (9.5e-7, where they are nearly all alike).
TIE = 2e-6
# Numbers of a block of similarities: 64 MiB, and two are held at a time.
_BLOCK = 1 << 24

# vectors[language]: float32 [layers + 1, poolings, N, D]; entry 0 on the first
# axis is the embedding output. rows[language]: int [N], row in the file.
Vectors = Mapping[str, np.ndarray]
Rows = Mapping[str, np.ndarray]


def read_multiway(
  path: str | os.PathLike[str],
) -> tuple[list[str], dict[str, tuple[np.ndarray, list[str]]]]:
  """Reads a multiway set: {"id": "Acts.1.1", "en": "...", ...} a line.

  A language that a line lacks has no translation there.

  Returns:
    (ids of all rows, {language: (rows int64 [N], texts)}).

  Raises:
    InputError: the file is missing, empty, or a line is broken or longer than
      limits.LINE.
  """
  path = Path(path)
  ids: list[str] = []
  by_language: dict[str, tuple[list[int], list[str]]] = {}
  seen: set[str] = set()
  for number, line in enumerate(_lines(path), start=1):
    row = _multiway_line(line, f"{path}, line {number}")
    name = row.pop("id")
    if name in seen:
      raise InputError(
        f"{path}, line {number}: the id {name!r} occurs a second time. Each "
        "sentence needs an id of its own; prepare the data again."
      )
    seen.add(name)
    for language, text in row.items():
      rows, texts = by_language.setdefault(language, ([], []))
      rows.append(len(ids))
      texts.append(text)
    ids.append(name)
  if not ids:
    raise InputError(f"{path}: no sentences in it. Prepare the data again.")
  return ids, {
    language: (np.array(rows, np.int64), texts)
    for language, (rows, texts) in by_language.items()
  }


def _lines(path: Path) -> Iterator[bytes]:
  try:
    with read_files.open_regular(path) as file:
      for line in read_files.lines(file, path):
        yield line.removesuffix(b"\n")
  except OSError as error:
    raise InputError(f"{path}: could not be read: {error}.") from error


def _multiway_line(line: bytes, where: str) -> dict[str, str]:
  wanted = (
    'Each line has to be a JSON object with an "id" and a text for each '
    "language it has; prepare the data again."
  )
  try:
    row = read_files.parse_json(line, where)
  except InputError as error:
    raise InputError(f"{error} {wanted}") from None
  if not isinstance(row, dict) or not isinstance(row.get("id"), str):
    raise InputError(f'{where}: no object with an "id". {wanted}')
  for name, value in row.items():
    if not isinstance(value, str) or not value.strip():
      raise InputError(
        f"{where}: {name!r} holds {value!r}, not a text. A missing "
        f"translation is left out. {wanted}"
      )
  return row


def shared_rows(
  rows: Rows, pivot: str, language: str
) -> tuple[np.ndarray, np.ndarray]:
  """Places [n] in the pivot's and the language's vectors of shared rows.

  Raises:
    InputError: the two have no row in common.
    ValueError: a row occurs twice in one language.
  """
  for name in (pivot, language):
    if len(np.unique(rows[name])) != len(rows[name]):
      raise ValueError(f"{name}: a row number occurs twice")
  common, ours, theirs = np.intersect1d(
    rows[pivot], rows[language], assume_unique=True, return_indices=True
  )
  if not len(common):
    raise InputError(
      f"No sentence is there in both {pivot} and {language}: retrieval between "
      "them cannot be measured. Leave the language out, or check the data."
    )
  return ours, theirs


def unit(vectors_ND: np.ndarray) -> np.ndarray:
  """Rows scaled to length 1, float32; a zero row stays zero."""
  vectors_ND = np.asarray(vectors_ND, np.float32)
  norm_N1 = np.linalg.norm(vectors_ND, axis=-1, keepdims=True)
  return vectors_ND / np.where(norm_N1 > 0, norm_N1, 1)


def nearest_is_own(
  a_ND: np.ndarray, b_ND: np.ndarray, block: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """For each i: is b[i] the nearest of b to a[i], and a[i] of a to b[i]?

  Args:
    a_ND: float32 [N, D], unit rows.
    b_ND: float32 [N, D], unit rows; row i is the translation of a's row i.
    block: rows of a compared at a time; None: what 64 MiB hold.

  Returns:
    Two bool arrays [N]. Ties are False (see the module).
  """
  total = len(a_ND)
  block = block or max(1, _BLOCK // max(total, 1))
  own_N = np.zeros(total, np.float32)
  row_best_N = np.full(total, -np.inf, np.float32)
  column_best_N = np.full(total, -np.inf, np.float32)
  for start in range(0, total, block):
    stop = min(start + block, total)
    cosine = a_ND[start:stop] @ b_ND.T
    # From the same product as the others, so that equal vectors tie.
    inside = np.arange(start, stop)
    own_N[start:stop] = cosine[inside - start, inside]
    cosine[inside - start, inside] = -np.inf
    row_best_N[start:stop] = cosine.max(axis=1)
    np.maximum(column_best_N, cosine.max(axis=0), out=column_best_N)
  # A NaN anywhere makes the comparison False: wrong.
  return own_N - row_best_N > TIE, own_N - column_best_N > TIE


@dataclasses.dataclass(frozen=True)
class Retrieval:
  """Accuracy of one model on one set, fractions 0 to 1."""

  accuracy: np.ndarray  # [layers + 1, poolings, languages, 2]: en->xx, xx->en
  languages: tuple[str, ...]  # without the pivot
  poolings: tuple[str, ...]
  counts: dict[str, int]  # sentences compared, by language
  pivot: str = "en"

  @property
  def directions(self) -> tuple[str, str]:
    return f"{self.pivot}_to_xx", f"xx_to_{self.pivot}"

  def mean(self) -> np.ndarray:
    """[layers + 1, poolings, 2]: the plain mean over languages."""
    return self.accuracy.mean(axis=2)

  def choose(self) -> tuple[int, str]:
    """(layer, pooling) with the best mean over languages and directions.

    Chosen on dev and applied to test. Of equals, the lowest layer.
    """
    mean = self.mean().mean(axis=-1)
    layer, pooling = np.unravel_index(int(mean.argmax()), mean.shape)
    return int(layer), self.poolings[pooling]

  def at(self, layer: int, pooling: str) -> dict[str, Any]:
    """The numbers at one layer and pooling, as results.json holds them."""
    table = self.accuracy[layer, self.poolings.index(pooling)]
    result: dict[str, Any] = {}
    for place, direction in enumerate(self.directions):
      result[direction] = {
        "mean": float(table[:, place].mean()),
        "by_language": {
          language: float(table[number, place])
          for number, language in enumerate(self.languages)
        },
      }
    return result | {
      "layer": int(layer),
      "pooling": pooling,
      "sentences": dict(self.counts),
    }

  def by_layer(self) -> dict[str, Any]:
    """{pooling: {direction: [mean at layer 0, 1, ...]}} for results.json."""
    mean = self.mean()
    return {
      pooling: {
        direction: [float(value) for value in mean[:, number, place]]
        for place, direction in enumerate(self.directions)
      }
      for number, pooling in enumerate(self.poolings)
    }


def sweep(
  vectors: Vectors, rows: Rows, poolings: Sequence[str], pivot: str = "en"
) -> Retrieval:
  """Retrieval between the pivot and each language, all layers and poolings.

  Args:
    vectors: {language: float32 [layers + 1, poolings, N, D]}.
    rows: {language: int [N]}: a language is compared on the rows that the
      pivot has too, and only those are candidates.
    poolings: names of the second axis.
    pivot: the language that all others are compared with.

  Raises:
    InputError: no pivot, no other language, or no shared row.
    ValueError: arrays whose shapes do not fit.
  """
  languages = tuple(language for language in vectors if language != pivot)
  if pivot not in vectors or not languages:
    raise InputError(
      f"Retrieval needs {pivot} and at least one other language; found "
      f"{', '.join(vectors) or 'none'}. Check the languages of the data."
    )
  for language, array in vectors.items():
    if array.ndim != 4 or array.shape[1:3] != (
      len(poolings),
      len(rows[language]),
    ):
      raise ValueError(
        f"{language}: vectors {array.shape} do not fit {len(poolings)} "
        f"poolings and {len(rows[language])} rows"
      )
  layers = vectors[pivot].shape[0]
  accuracy = np.zeros((layers, len(poolings), len(languages), 2))
  counts = {}
  for place, language in enumerate(languages):
    ours, theirs = shared_rows(rows, pivot, language)
    counts[language] = len(ours)
    for layer in range(layers):
      for number in range(len(poolings)):
        both_ways = nearest_is_own(
          unit(vectors[pivot][layer, number][ours]),
          unit(vectors[language][layer, number][theirs]),
        )
        accuracy[layer, number, place] = [hits.mean() for hits in both_ways]
  return Retrieval(accuracy, languages, tuple(poolings), counts, pivot)
