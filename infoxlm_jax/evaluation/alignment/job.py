"""The job that measures word alignment against gold links."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from infoxlm_jax.errors import InputError, check_choice
from infoxlm_jax.evaluation import inference
from infoxlm_jax.evaluation.alignment import methods, predict, report
from infoxlm_jax.evaluation.alignment.files import GoldSet, read_set
from infoxlm_jax.evaluation.alignment.score import measures
from infoxlm_jax.runtime import run_dir
from infoxlm_jax.runtime.progress import Progress
from infoxlm_jax.version import __version__

Tables = dict[str, dict[str, list[float]]]  # {method: {measure: by layer}}


@dataclasses.dataclass(frozen=True)
class AlignmentFiles:
  """Pairs of sentences with gold links; see files.py for their forms.

  Attributes:
    pairs, gold: to measure.
    dev_pairs, dev_gold: on which the layer is chosen; None: there are none.
    first_word: the number of the first word in the gold files, 0 or 1.
  """

  pairs: str
  gold: str
  dev_pairs: str | None = None
  dev_gold: str | None = None
  first_word: int = 0

  def read(self) -> tuple[GoldSet, GoldSet | None]:
    """Test and dev. Raises InputError, see read_set."""
    if (self.dev_pairs is None) != (self.dev_gold is None):
      raise InputError("DEV_PAIRS and DEV_GOLD go together: set both or none")
    dev = None
    if self.dev_pairs is not None and self.dev_gold is not None:
      dev = read_set(self.dev_pairs, self.dev_gold, self.first_word)
    return read_set(self.pairs, self.gold, self.first_word), dev


def alignment(
  *,
  model_dir: str,
  model: str,
  files: AlignmentFiles,
  layer: int | None = None,
  method: str = "itermax",
  tokenizer: str | None = None,
  dtype: str = "float32",
  allow_pickle: bool = False,
  devices: int | None = None,
  on_start: Callable[[], None] = lambda: None,
  dry_run: bool = False,
) -> None:
  """Measures the alignment error rate at every layer and by every method.

  Args:
    model_dir: folder for results.json, report.md and figures/.
    model: a run, a checkpoint, a Hugging Face folder, or a file of weights.
    files: pairs and gold links.
    layer: that the result is read at, 0 is the embedding output. None: the
      best one on dev; without dev the best one on the pairs that are measured,
      which the report says.
    method: that the result is read at, one of methods.METHODS.
    tokenizer, dtype, allow_pickle, devices: see inference.load.
    on_start: called when the input is accepted.
    dry_run: read the files, print what would be measured, write nothing.

  Raises:
    InputError: something cannot be read or does not fit together.
    StorageError: a result cannot be written.
  """
  started = time.monotonic()
  check_choice("METHOD", method, methods.METHODS)
  if jax.process_count() > 1:
    raise InputError("evaluation runs in one process: leave out --distributed")
  test, dev = files.read()
  for name, data in (("test", test), ("dev", dev)):
    if data is not None:
      print(f"{name}: {_in_words(data)}")
  if dry_run:
    return
  encoder = inference.load(
    model,
    tokenizer=tokenizer,
    dtype=dtype,
    allow_pickle=allow_pickle,
    devices=devices,
  )
  last = encoder.config.num_layers
  if layer is not None and not 0 <= layer <= last:
    raise InputError(
      f"LAYER = {layer}: the model has {last} layers; 0 is the embedding output"
    )
  run_dir.claim(
    model_dir,
    {
      "job": "alignment",
      "model": model,
      "layer": layer,
      "method": method,
      "test": test.digest,
      "dev": dev and dev.digest,
    },
  )
  on_start()
  on_test = _tables(encoder, test)
  on_dev = None if dev is None else _tables(encoder, dev)
  chosen_on = "given"
  if layer is None:
    chosen_on = "test" if on_dev is None else "dev"
    layer = predict.best_layer((on_dev or on_test)[method])
  results: dict[str, Any] = {
    "finished": True,
    "job": "alignment",
    "model": model,
    "alignment": {
      "layer": layer,
      "method": method,
      "layer_chosen_on": chosen_on,
      "test": _at(on_test, method, layer),
    },
    "pairs": len(test.pairs),
    "sure_links": sum(len(own.sure) for own in test.gold),
    "possible_links": sum(len(own.possible) for own in test.gold),
    "data_hash": test.digest[:16],
    "seconds": time.monotonic() - started,
    "version": __version__,
  }
  if on_dev is not None:
    results["alignment"]["dev"] = _at(on_dev, method, layer)
  report.write(Path(model_dir), results)


def _tables(encoder: inference.Encoder, data: GoldSet) -> Tables:
  with Progress(len(data.pairs), name="pairs") as progress:
    counts = predict.count(encoder, data, progress.advance)
  each = {name: [measures(own) for own in of] for name, of in counts.items()}
  return {
    name: {key: [own[key] for own in of] for key in of[0]}
    for name, of in each.items()
  }


def _at(tables: Tables, method: str, layer: int) -> Mapping[str, Any]:
  """The measures of the chosen layer, and all others."""
  chosen = {key: values[layer] for key, values in tables[method].items()}
  return {**chosen, "by_layer": tables}


def _in_words(data: GoldSet) -> str:
  sure = sum(len(own.sure) for own in data.gold)
  possible = sum(len(own.possible) for own in data.gold)
  return (
    f"{len(data.pairs):,} pairs of {data.where}, {sure:,} sure and"
    f" {possible - sure:,} possible links"
  )
