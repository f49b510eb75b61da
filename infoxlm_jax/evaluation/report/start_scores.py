"""Scores before the first update, kept for the report at the end."""

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.retrieval import Retrieval
from infoxlm_jax.evaluation.retrieval_eval import Scored
from infoxlm_jax.evaluation.similarity import Similarity, similarities
from infoxlm_jax.runtime import read_files
from infoxlm_jax.runtime.files import write_atomically
from infoxlm_jax.runtime.json_crc import read_checked, with_crc
from infoxlm_jax.runtime.run_layout import START

Scores = Mapping[str, Scored]  # by split
_COSINES_FILE = "start_cosines.npz"


def keep_start(folder: Path, start: Scores) -> None:
  """Writes start.json and start_cosines.npz.

  These are retrieval before the first update and, since the report of a run
  that is continued has no vectors of then, the cosines that it draws.
  """
  kept = {
    split: dataclasses.asdict(scored.retrieval)
    | {"accuracy": scored.retrieval.accuracy.tolist()}
    for split, scored in start.items()
  }
  write_atomically(folder / START, json.dumps(with_crc(kept)) + "\n")
  content = io.BytesIO()
  np.savez(content, **_cosines(start))  # type: ignore[arg-type]
  write_atomically(folder / _COSINES_FILE, content.getvalue())


def _cosines(start: Scores) -> dict[str, np.ndarray]:
  """Cosines of every split, layer and pooling, float32, by name."""
  out = {}
  for split, scored in start.items():
    layers, poolings = scored.retrieval.accuracy.shape[:2]
    for layer in range(layers if scored.vectors else 0):
      for place in range(poolings):
        own = similarities(scored.vectors, scored.rows, layer, place)
        name = f"{split}/{layer}/{place}"
        out[f"{name}/positives"] = own.positives.astype(np.float32)
        out[f"{name}/negatives"] = own.negatives.astype(np.float32)
  return out


def read_similarity(
  folder: Path, split: str, layer: int, place: int
) -> Similarity | None:
  """Cosines before the first update, without the spread; None: not kept.

  A damaged file is as none, which one line says.

  Args:
    folder: of the run.
    split: "dev" or "test".
    layer, place: of the layer and of the pooling, see `similarities`.
  """
  path = folder / _COSINES_FILE
  try:
    with np.load(path, allow_pickle=False) as kept:
      positives, negatives = (
        kept[f"{split}/{layer}/{place}/{which}"]
        for which in ("positives", "negatives")
      )
  except FileNotFoundError:  # of a run that began before there was one
    return None
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    print(f"similarity.png shows no first update: {path} is damaged ({error})")
    return None
  return Similarity(positives, negatives, {})


def read_start(folder: Path) -> dict[str, Scored]:
  """Reads start.json: scores without vectors; {} if there is no such file.

  A damaged file is as none, which one line says: it decides only whether the
  report compares with the start, and the run may have trained for weeks.
  """
  path = folder / START
  if not path.exists():
    return {}
  try:
    kept = read_checked(path)
    return {split: _start(fields, path) for split, fields in kept.items()}
  except InputError as error:
    print(f"The report does not compare with the first update: {error}")
    return {}


def _start(fields: Any, path: Path) -> Scored:
  """Scores of a split in start.json; InputError if they are damaged."""
  needs = {
    "accuracy": list,
    "languages": list,
    "poolings": list,
    "counts": dict,
    "pivot": str,
  }
  fields = read_files.check_object(fields, path, needs)
  try:
    accuracy = np.array(fields["accuracy"], np.float64)
  except (ValueError, TypeError):  # rows of unequal lengths, or texts
    accuracy = np.zeros(0)
  languages, poolings = fields["languages"], fields["poolings"]
  expected = (len(poolings), len(languages), 2)
  if accuracy.ndim != 4 or accuracy.shape[1:] != expected:
    raise InputError(f"{path} is damaged: its accuracy is no table of numbers.")
  if set(map(str, languages)) != set(fields["counts"]):
    raise InputError(f"{path} is damaged: it counts other languages.")
  return Scored(
    vectors={},
    rows={},
    retrieval=Retrieval(
      accuracy=accuracy,
      languages=tuple(languages),
      poolings=tuple(poolings),
      counts=fields["counts"],
      pivot=fields["pivot"],
    ),
  )


def comparable(start: Scores, end: Scores) -> Scores:
  """The scores at the start, if they are of the same sets as those at the end.

  They are of others where start.json is damaged.
  """

  def described(split: str, scores: Scores) -> Any:
    if split not in scores:
      return None
    x = scores[split].retrieval
    return x.pivot, x.languages, x.poolings, x.accuracy.shape, dict(x.counts)

  if not start or all(
    described(split, start) == described(split, end) for split in end
  ):
    return start
  print(
    "The report does not compare with the first update, which was measured on"
    " other retrieval sets."
  )
  return {}
