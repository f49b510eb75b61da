"""The jobs that measure sentence retrieval: on TSV pairs, and on Tatoeba."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infoxlm_jax.data.corpora.open_files import Patterns
from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation import tatoeba as tatoeba_files
from infoxlm_jax.evaluation.job_files import ModelOptions, check_folder, facts
from infoxlm_jax.evaluation.layer_retrieval import (
  LayerOptions,
  Measured,
  check_memory,
  choose,
  measure,
)
from infoxlm_jax.evaluation.pair_sets import PairSet, data_hash, read_tsv_sets
from infoxlm_jax.evaluation.report import retrieval_report
from infoxlm_jax.evaluation.scoring import Scoring
from infoxlm_jax.runtime.progress import Progress

_LAYERS = LayerOptions()
_SCORING = Scoring()


@dataclasses.dataclass(frozen=True)
class PairFiles:
  """How files of tab-separated pairs are read.

  Attributes:
    pivot: the language that every file has.
    columns: names of two columns, or their numbers from 1; None: the files
      have two.
    languages: of the two columns; None: the header or the file's name says it.
    max_pairs: use only the first pairs of each file; None: all.
  """

  pivot: str = "en"
  columns: Sequence[str] | Sequence[int] | None = None
  languages: Sequence[str] | None = None
  max_pairs: int | None = None

  def read(self, patterns: Patterns) -> list[PairSet]:
    return read_tsv_sets(patterns, **dataclasses.asdict(self))


def retrieval(
  *,
  model_dir: str,
  model: ModelOptions,
  pairs: Patterns,
  dev: Patterns | None = None,
  files: PairFiles | None = None,
  layers: LayerOptions = _LAYERS,
  scoring: Scoring = _SCORING,
  on_start: Callable[[], None] = lambda: None,
  dry_run: bool = False,
) -> None:
  """Measures retrieval on files of tab-separated pairs.

  Args:
    model_dir: folder for results.json, report.md, tables and figures.
    model: the encoder.
    pairs: test files, one for each language, such as "en-*.tsv".
    dev: files on which layer and pooling are chosen where `layers` leaves
      them open.
    files: how they are read.
    layers: which layer and pooling the result is read at.
    scoring: how sentences are compared.
    on_start: called when everything has been read.
    dry_run: read the pairs, print what would be measured, and write nothing.

  Raises:
    InputError: something cannot be read or does not fit together.
    StorageError: a result could not be written.
  """
  check_folder(model_dir, "retrieval")
  files = files or PairFiles()
  _measure_and_write(
    model_dir,
    "retrieval",
    model,
    test=files.read(pairs),
    dev=[] if dev is None else files.read(dev),
    pivot=files.pivot,
    layers=layers,
    scoring=scoring,
    title="Sentence retrieval",
    on_start=on_start,
    dry_run=dry_run,
  )


def tatoeba(
  *,
  model_dir: str,
  model: ModelOptions,
  data: str,
  languages: Sequence[str] | str | None = None,
  layers: LayerOptions = _LAYERS,
  scoring: Scoring = _SCORING,
  on_start: Callable[[], None] = lambda: None,
  dry_run: bool = False,
) -> None:
  """Measures retrieval on Tatoeba, with the paper's figures beside it.

  Args:
    model_dir: as in `retrieval`.
    model: as in `retrieval`.
    data: folder in LASER's, XTREME's or TFDS's layout.
    languages: see `tatoeba.read_tatoeba`.
    layers: as in `retrieval`.
    scoring: as in `retrieval`.
    on_start: as in `retrieval`.
    dry_run: as in `retrieval`.

  Raises:
    InputError: something cannot be read or does not fit together.
    StorageError: a result could not be written.
  """
  check_folder(model_dir, "tatoeba")
  if data is None:  # REQUIRED, but a dry run of training needs none
    raise InputError("DATA has no value: set --gin.DATA to Tatoeba's folder")
  layout, sets = tatoeba_files.read_tatoeba(Path(data), languages)
  _measure_and_write(
    model_dir,
    "tatoeba",
    model,
    test=sets,
    dev=[],
    pivot="en",
    layers=layers,
    scoring=scoring,
    title="Tatoeba",
    layout=layout,
    groups=tatoeba_files.GROUPS,
    published=tatoeba_files.PAPER,
    on_start=on_start,
    dry_run=dry_run,
  )


def _measure_and_write(
  model_dir: str,
  job: str,
  model: ModelOptions,
  *,
  test: Sequence[PairSet],
  dev: Sequence[PairSet],
  pivot: str,
  layers: LayerOptions,
  scoring: Scoring,
  title: str,
  layout: str | None = None,
  groups: Mapping[str, Sequence[str]] | None = None,
  published: retrieval_report.Published | None = None,
  on_start: Callable[[], None],
  dry_run: bool,
) -> None:
  """The part that both jobs share: model, sweep, choice and results."""
  start = time.monotonic()
  digest = data_hash(test)
  if dry_run:
    for name, sets in (("test", test), ("dev", dev)):
      for one in sets:
        print(f"{name} {one.language}: {len(one.texts):,} pairs, {one.source}")
    print(_choice(layers, dev))
    print(f"scoring {scoring}; data {digest}; model {model.path}: not loaded")
    return
  chosen_on = _check_choice(layers, dev)
  encoder = model.load()
  reading = layers.reading(model.reading())
  last, _ = reading.checked_for(encoder.config)
  check_memory(encoder, [*dev, *test], layers)
  on_start()
  total = 2 * sum(len(one.texts) for one in (*dev, *test))
  with Progress(total, name="sentences") as progress:

    def measured(sets: Sequence[PairSet]) -> Measured:
      return measure(
        encoder,
        sets,
        reading,
        layers,
        scoring,
        pivot=pivot,
        done=progress.advance,
      )

    on_dev = measured(dev) if dev else None
    on_test = measured(test)
  layer, pooling = last, reading.pooling
  if on_dev is not None:
    layer, pooling = choose(on_dev.retrieval, layers)
  at_test = retrieval_report.at(on_test, layer, pooling)
  results: dict[str, Any] = {
    "retrieval": {
      "test": at_test,
      "chosen_on": chosen_on,
      "scoring": dataclasses.asdict(scoring) | {"neighbours": scoring.k},
    },
    **facts(job, model, encoder, start),
    "data_hash": digest,
  }
  if on_dev is not None:
    results["retrieval"]["dev"] = retrieval_report.at(on_dev, layer, pooling)
    results["dev_data_hash"] = data_hash(dev)
  if layers.all_layers:
    results["retrieval"]["by_layer"] = on_test.retrieval.by_layer()
  if layout:
    results["layout"] = layout
  if groups:
    results["retrieval"]["groups"] = retrieval_report.group_means(
      at_test, groups
    )
  where = (
    f"layer {layer} of {encoder.config.num_layers}, as Hugging Face's"
    f" hidden_states count (0 is the embedding output); pooling {pooling};"
    f" {chosen_on}"
  )
  header = [
    f"model {model.path}: {where}",
    f"scoring {scoring}; both directions, {pivot} -> xx and xx -> {pivot};"
    f" candidates: all {_sizes(test)} sentences of the other language",
    f"data {digest}" + (f" ({layout}'s layout)" if layout else ""),
  ]
  for line in header:
    print(line)
  retrieval_report.write(
    Path(model_dir),
    results,
    on_test,
    title=title,
    header=header,
    published=published,
  )


def _sizes(sets: Sequence[PairSet]) -> str:
  """Sentences of a set, as "300" or "390 to 1,000"."""
  sizes = sorted({len(one.texts) for one in sets})
  return " to ".join(f"{n:,}" for n in dict.fromkeys((sizes[0], sizes[-1])))


def _choice(layers: LayerOptions, dev: Sequence[PairSet]) -> str:
  """How layer and pooling are decided, in words."""
  if layers.layer is not None and layers.pooling is not None:
    return f"layer {layers.layer} and pooling {layers.pooling} as given"
  if dev:
    return "layer and pooling chosen on dev"
  layer = "the last layer" if layers.layer is None else f"layer {layers.layer}"
  return f"{layer} and {layers.pooling or 'mean_all'}, not chosen on dev pairs"


def _check_choice(layers: LayerOptions, dev: Sequence[PairSet]) -> str:
  """`_choice`, where it can be made.

  Raises:
    InputError: layer and pooling are to be chosen, but not all are measured.
  """
  is_open = layers.layer is None or layers.pooling is None
  if dev and is_open and not layers.all_layers:
    raise InputError(
      "ALL_LAYERS=False measures one layer, so none can be chosen on DEV: set"
      " LAYER and POOLING, or leave ALL_LAYERS at True."
    )
  return _choice(layers, dev)
