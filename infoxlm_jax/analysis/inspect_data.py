"""The output of infoxlm-inspect-data, line by line."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infoxlm_jax.analysis import data_statistics, inspect_step, inspect_text
from infoxlm_jax.data import alternating_stream
from infoxlm_jax.data.manifest import MANIFEST
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import holds_tokenizer, load_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.training import validation
from infoxlm_jax.training.input_pipeline import prepared_folder
from infoxlm_jax.training.options import DataOptions

TRAIN = "train"


def data_folder(arguments: Mapping[str, Any], spare: Path) -> Path:
  """Where the records of a run are.

  They are in DATA, else in data/ of the run's folder; else they are prepared
  now into the folder `spare`.

  Raises:
    InputError: there are no records, and no job is given that prepares them.
  """
  data = arguments.get("data", DataOptions())
  own = run_folder(arguments)
  if data.folder is None and own is not None and (own / "data").is_dir():
    return own / "data"
  if data.folder is None and data.prepare is not None:
    print("preparing the data into a temporary folder", file=sys.stderr)
  return prepared_folder(spare, data.folder, data.prepare)


def run_folder(arguments: Mapping[str, Any]) -> Path | None:
  """MODEL_DIR, where it exists."""
  run = arguments.get("run")
  if run is None or not run.model_dir or not Path(run.model_dir).is_dir():
    return None
  return Path(run.model_dir)


def at_step(
  arguments: Mapping[str, Any],
  data: Path,
  update: int,
  rows: int,
  only: str | None = None,
) -> Iterator[str]:
  """The first rows of every stream, as an update sees them."""
  store = Store(data / TRAIN)
  run = inspect_step.run_of(arguments, store)
  tokenizer = load_tokenizer(data)
  validation.check_tokenizer(run.model, tokenizer)
  folder = run_folder(arguments)
  samples = inspect_step.positions(run, update, folder)
  yield (
    f"step {update} (the update after {update - 1}), seed {run.seed},"
    f" {run.groups} group{'s' if run.groups > 1 else ''}; data {data}"
  )
  yield inspect_text.LEGEND
  for name in [only] if only else run.streams:
    left = rows
    for group in range(run.groups):
      if left < 1:
        break
      (seen,) = inspect_step.see(run, store, update, samples, name, [group])
      yield ""
      yield from inspect_text.rows(seen, tokenizer, left)
      left -= len(next(iter(seen.before.values()))["segments"])


def at_statistics(
  arguments: Mapping[str, Any], data: Path, output: Path | None
) -> Iterator[str]:
  """The table of every stream that the run reads."""
  store = Store(data / TRAIN)
  run = inspect_step.run_of(arguments, store)
  yield from _statistics(run.streams, store, output)


def at_data(
  folder: Path, rows: int, only_statistics: bool, output: Path | None
) -> Iterator[str]:
  """Statistics of a prepared folder, and a few of its records.

  Args:
    folder: prepared data, or one store of it.
    rows: records of texts, and of pairs.
    only_statistics: leave the records out.
    output: see at_statistics.
  """
  place = folder if (folder / MANIFEST).exists() else folder / TRAIN
  store = Store(place)
  yield from _statistics(data_statistics.streams_for(store), store, output)
  if only_statistics:
    return
  folders = [p for p in (place, place.parent) if holds_tokenizer(p)]
  if not folders:
    raise InputError(f"no tokenizer in or beside {place}: cannot decode")
  yield from inspect_text.records(store, load_tokenizer(folders[0]), rows)


def _statistics(
  streams: Mapping[str, Any], store: Store, output: Path | None
) -> Iterator[str]:
  streams = {
    part: one
    for name, stream in streams.items()
    for part, (one, _) in alternating_stream.parts(name, stream, 0).items()
  }
  parts = {
    name: data_statistics.corpora(s, store) for name, s in streams.items()
  }
  text = [f"{store.folder}: manifest {store.manifest_sha256[:12]}", ""]
  for name, corpora in parts.items():
    text += [*data_statistics.lines(name, streams[name], corpora), ""]
  yield from text
  if output is not None:
    written = data_statistics.write(output, "\n".join(text), parts)
    yield f"written: {', '.join(map(str, written))}"
