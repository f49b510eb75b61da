"""The job that mines translations, and scores them against a gold list."""

import csv
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.bucc import (
  Mined,
  MiningSet,
  at_threshold,
  choose_threshold,
  f1_scores,
  mine,
  read_bucc,
)
from infoxlm_jax.evaluation.inference import Encoder
from infoxlm_jax.evaluation.job_files import ModelOptions, check_folder, facts
from infoxlm_jax.evaluation.layer_retrieval import LayerOptions
from infoxlm_jax.evaluation.pair_sets import PairSet, data_hash
from infoxlm_jax.evaluation.report import report_files, results_file, tables
from infoxlm_jax.evaluation.scoring import Scoring
from infoxlm_jax.model.pooling import Reading
from infoxlm_jax.runtime.files import write_atomically
from infoxlm_jax.runtime.progress import Progress

_LAYERS = LayerOptions()
_SCORING = Scoring("ratio")


def bucc(
  *,
  model_dir: str,
  model: ModelOptions,
  data: str,
  dev: str | None = "training",
  test: str = "test",
  threshold: float | None = None,
  layers: LayerOptions = _LAYERS,
  scoring: Scoring = _SCORING,
  on_start: Callable[[], None] = lambda: None,
  dry_run: bool = False,
) -> None:
  """Mines translations and scores them against a gold list.

  Args:
    model_dir: folder for results.json, report.md, bucc.csv and the mined
      pairs, mined.fr-en.tsv: score, id, id.
    model: the encoder.
    data: folder of BUCC 2018, see `bucc.read_bucc`.
    dev: the split on which each pair's threshold is chosen.
    test: the split to which it is applied.
    threshold: of the score; None: chosen on dev.
    layers: one layer and pooling; None: the last, and mean_all.
    scoring: how sentences are compared.
    on_start: called when everything has been read.
    dry_run: read the files, print what would be mined, and write nothing.

  Raises:
    InputError: something cannot be read, or no threshold can be chosen.
    StorageError: a result could not be written.
  """
  start = time.monotonic()
  check_folder(model_dir, "bucc")
  if data is None:  # REQUIRED, but a dry run of training needs none
    raise InputError("DATA has no value: set --gin.DATA to BUCC's folder")
  tests = read_bucc(Path(data), test)
  devs = _dev_sets(Path(data), dev, tests, threshold)
  if dry_run:
    for one in [*devs.values(), *tests]:
      a, b = (len(side.texts) for side in one.sides)
      pairs = "no gold" if one.gold is None else f"{len(one.gold):,} gold pairs"
      print(f"{one.name}: {a:,} and {b:,} sentences, {pairs}, {one.source}")
    print(f"scoring {scoring}; model {model.path}: not loaded")
    return
  encoder = model.load()
  reading = layers.reading(model.reading())
  layer, _ = reading.checked_for(encoder.config)
  on_start()
  by_pair: dict[str, Any] = {}
  sets = [*devs.values(), *tests]
  total = sum(len(side.texts) for one in sets for side in one.sides)
  with Progress(total, name="sentences") as progress:
    embed = _embedder(encoder, reading, progress)
    for one in tests:
      limit, on_dev = threshold, None
      if limit is None:
        of_dev = devs[one.name]
        mined = _mined(of_dev, embed, scoring)
        limit = choose_threshold(mined, of_dev.gold or frozenset())
        on_dev = _scored(mined, limit, of_dev)
      mined = _mined(one, embed, scoring)
      _write_pairs(Path(model_dir), one, mined, limit)
      by_pair[one.name] = {"test": _scored(mined, limit, one), "dev": on_dev}
  header = [
    f"model {model.path}: layer {layer} of {encoder.config.num_layers}, as"
    " Hugging Face's hidden_states count (0 is the embedding output); pooling"
    f" {reading.pooling}",
    f"scoring {scoring}; both directions propose pairs; candidates: all"
    " sentences of the other language; threshold"
    + (f" chosen on {dev}" if threshold is None else f" {threshold} as given"),
    f"data {data_hash(_as_pairs(tests))}",
  ]
  results = {
    "bucc": {"by_pair": by_pair, "mean_f1": _mean_f1(by_pair)},
    **facts("bucc", model, encoder, start),
    "layer": layer,
    "pooling": reading.pooling,
    "scoring": str(scoring),
    "data_hash": data_hash(_as_pairs(tests)),
  }
  _write(Path(model_dir), results, header)


def _dev_sets(
  data: Path,
  dev: str | None,
  tests: Sequence[MiningSet],
  threshold: float | None,
) -> dict[str, MiningSet]:
  """The sets on which thresholds are chosen, by pair; {} if one is given."""
  if threshold is not None:
    return {}
  if dev is None:
    raise InputError(
      "no threshold: set THRESHOLD, or DEV to a split with a gold list, such"
      " as training."
    )
  sets = {one.name: one for one in read_bucc(data, dev)}
  for one in tests:
    if one.name not in sets or not sets[one.name].gold:
      raise InputError(
        f"{data}: {one.name} has no pairs in {one.name}.{dev}.gold, on which"
        " its threshold is chosen. Add the file, or set THRESHOLD."
      )
  return {one.name: sets[one.name] for one in tests}


def _embedder(
  encoder: Encoder, reading: Reading, progress: Progress
) -> Callable[[Sequence[str]], np.ndarray]:
  def embed(texts: Sequence[str]) -> np.ndarray:
    return np.concatenate(
      list(encoder.encode_stream(texts, reading, done=progress.advance))
    )

  return embed


def _mined(
  one: MiningSet,
  embed: Callable[[Sequence[str]], np.ndarray],
  scoring: Scoring,
) -> Mined:
  a, b = (embed(side.texts) for side in one.sides)
  return mine(a, b, scoring)


def _scored(mined: Mined, threshold: float, one: MiningSet) -> dict[str, Any]:
  pairs = at_threshold(mined, threshold)
  result: dict[str, Any] = {"threshold": threshold, "mined": len(pairs)}
  if one.gold is not None:
    result["gold"] = len(one.gold)
    result |= f1_scores(pairs, one.gold)._asdict()
  return result


def _as_pairs(sets: Sequence[MiningSet]) -> list[PairSet]:
  """For `data_hash`."""
  return [
    PairSet(one.name, one.sides[1].texts, one.sides[0].texts, one.source)
    for one in sets
  ]


def _mean_f1(by_pair: dict[str, Any]) -> float | None:
  """Mean over the pairs; None where one has no gold list."""
  scores = [result["test"].get("f1") for result in by_pair.values()]
  return None if None in scores else float(np.mean(scores))


def _write_pairs(
  folder: Path, one: MiningSet, mined: Mined, threshold: float
) -> None:
  ids = [side.ids for side in one.sides]
  pairs = at_threshold(mined, threshold)
  lines = [
    f"{score:.6f}\t{ids[0][a]}\t{ids[1][b]}\n"
    for score, (a, b) in zip(mined.scores.tolist(), pairs, strict=False)
  ]
  write_atomically(folder / f"mined.{one.name}.tsv", "".join(lines))


_COLUMNS = ("precision", "recall", "f1", "threshold", "mined", "gold")


def _write(folder: Path, results: dict[str, Any], header: list[str]) -> None:
  by_pair = results["bucc"]["by_pair"]
  cells: list[list[Any]] = [["pair", "split", *_COLUMNS]]
  for pair, splits in by_pair.items():
    for split, result in splits.items():
      if result is not None:
        cells.append([pair, split, *(result.get(x) for x in _COLUMNS)])
  out = io.StringIO()
  csv.writer(out, lineterminator="\n").writerows(cells)
  write_atomically(folder / "bucc.csv", out.getvalue())
  rows = [cells[0], *(_shown(row) for row in cells[1:])]
  sections = ["## How it was measured", "", *(f"- {x}" for x in header), ""]
  sections += ["## Mining", "", *results_file.markdown(rows), ""]
  sections += ["Precision, recall and F1 in per cent."]
  sections += ["On dev, the threshold was chosen on the same pairs.", ""]
  results_file.write_results(folder, results)
  results_file.write_report(
    folder, results, title="Bitext mining", sections=sections
  )
  for line in header:
    print(line)
  print(f"\n{tables.grid(rows)}\n")
  print(f"Report: {folder / report_files.REPORT_FILE}")


def _shown(row: Sequence[Any]) -> list[str]:
  pair, split, *rates, threshold, mined, gold = row
  numbers = [tables.percent(rate) for rate in rates]
  return [
    pair,
    split,
    *numbers,
    f"{threshold:.4f}",
    str(mined),
    str(gold or "-"),
  ]
