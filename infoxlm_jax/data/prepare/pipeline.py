"""Tokenises corpora once and writes the records that training reads.

    output/tokenizer.model ...      the tokenizer's files
    output/train/, output/dev/      records and manifest.json (data/records.py)
    output/retrieval/{dev,test}.jsonl   {"id": ..., "en": ..., "fr": ...} a line
    output/report.md                what was read, dropped and kept

Memory is bounded whatever the input's size, all cores work, and what was done
before a stop is not done again: chunks.py, duplicates.py and shuffle.py are
the three phases, stages.py runs them, work_folder.py keeps what they leave.
"""

import contextlib
import errno
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from infoxlm_jax.data.corpora.base import Corpus
from infoxlm_jax.data.corpora.sources import SeqioTask
from infoxlm_jax.data.prepare import retrieval_sets as held_out_rows
from infoxlm_jax.data.prepare import summary, work_dir
from infoxlm_jax.data.prepare.filters import Cleaning
from infoxlm_jax.data.prepare.phases import write_stores
from infoxlm_jax.data.prepare.plan import SIZES, Plan, Sizes
from infoxlm_jax.data.prepare.process_pool import Pool
from infoxlm_jax.data.prepare.request import (
  describe,
  found_request,
  is_done,
  options_of,
)
from infoxlm_jax.data.prepare.subprocess_run import run_apart
from infoxlm_jax.data.tokenizers.base import load_tokenizer, save_tokenizer
from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime import resources
from infoxlm_jax.runtime.signals import EXIT_TERMINATED, Stopped

REPORT = "report.md"
_CLEANING = Cleaning()


def prepare(
  output: str | os.PathLike[str],
  *,
  tokenizer: str | os.PathLike[str],
  row_length: int,
  corpora: Sequence[Corpus],
  seed: int = 0,
  max_side: int = 254,
  cleaning: Cleaning = _CLEANING,
  stores: Mapping[str, str] | None = None,
  retrieval: Mapping[str, str] | None = None,
  held_out: int = 0,
  workers: int | None = None,
  progress: bool = True,
  sizes: Sizes = SIZES,
) -> Path:
  """Prepares corpora into `output`, or finds that it is done.

  All work happens in `<output>.partial`, which becomes `output` at the end: a
  folder of that name is complete, and one that holds the same request is used
  as it is. Started again after a stop, it goes on. The records are a function
  of everything but `workers` and `progress`.

  Args:
    output: folder to write; may exist when empty.
    tokenizer: file or folder; a relative one is found as gin files are.
    row_length: tokens of a text record at most.
    corpora: what to read (data/corpora.py).
    seed: decides the order of the records.
    max_side: tokens of one side of a pair at most.
    cleaning: which examples are left out.
    stores: {folder: split of the corpora}, by default train and dev. A corpus
      takes part in those whose split it has.
    retrieval: {file: split of the multiway corpora}, by default dev and test.
    held_out: so many records of each language and pair go to dev and not to
      train, 5 % of them at most; of corpora that have no split of their own
      for dev. Their pairs with English become retrieval/dev.jsonl, where no
      multiway corpus gives it.
    workers: processes; None for one a core.
    progress: show a progress bar where standard error is a terminal.
    sizes: of chunks and shards; decide the records, too.

  Returns:
    `output`.

  Raises:
    InputError: bad options or corpora, `output` or the work folder hold
      something else, or another process works there.
    StorageError: writing failed, or a worker was killed: what was done is
      kept.
    Stopped: SIGTERM; what was done is kept, as after Ctrl-C.
  """
  output = Path(output)
  model = load_tokenizer(resources.find(tokenizer))
  options = options_of(
    model=model,
    row_length=row_length,
    seed=seed,
    max_side=max_side,
    cleaning=cleaning,
    stores=stores,
    retrieval=retrieval,
    held_out=held_out,
    sizes=sizes,
    corpora=corpora,
  )
  request = options | {
    "corpora": [describe(corpus, options) for corpus in corpora]
  }
  if is_done(output, request):
    return output
  for corpus in corpora:
    if check := getattr(corpus, "check_tokenizer", None):
      check(model)
  partial = output.with_name(f"{output.name}.partial")
  with (
    _stopped_by_sigterm(),
    work_dir.locked(partial),
    _storage_errors(partial),
  ):
    if is_done(output, request):  # by another process, just now
      work_dir.remove(partial)
      return output
    work_dir.claim(partial, request)
    plan = Plan(
      folder=partial / "work",
      output=partial / "output",
      corpora=corpora,
      request=request,
      cleaning=cleaning,
      sizes=sizes,
      tokenizer=model,
    )
    try:
      with Pool(workers) as pool:
        _build(plan, pool, progress)
    except InputError:
      # To mend it changes the request, which makes what was done useless.
      work_dir.remove(partial)
      raise
    os.rename(plan.output, output)
    work_dir.remove(partial)
  return output


def prepare_in_subprocess(
  output: str | os.PathLike[str],
  *,
  tokenizer: str | os.PathLike[str],
  row_length: int,
  corpora: Sequence[Corpus],
  seed: int = 0,
  max_side: int = 254,
  cleaning: Cleaning = _CLEANING,
  stores: Mapping[str, str] | None = None,
  retrieval: Mapping[str, str] | None = None,
  held_out: int = 0,
  workers: int | None = None,
  progress: bool = True,
  sizes: Sizes = SIZES,
) -> Path:
  """`prepare` in a fresh process, so that TensorFlow stays out of this one.

  The process sees no accelerator, and is not started at all where `output`
  is already prepared. Arguments are `prepare`'s and must pickle. Exceptions
  arrive as they were raised; a process that dies without one is an
  InputError with its status.
  """
  decisive: dict[str, Any] = {
    "row_length": row_length,
    "seed": seed,
    "max_side": max_side,
    "cleaning": cleaning,
    "stores": stores,
    "retrieval": retrieval,
    "held_out": held_out,
    "sizes": sizes,
    "corpora": corpora,
  }
  model = load_tokenizer(resources.find(tokenizer))
  options = options_of(model=model, **decisive)
  if found := found_request(Path(output), options):
    # What a task reads cannot be asked for without TensorFlow.
    kept = {c["corpus"]: c for c in found.get("corpora", ())}
    described = [
      kept.get(repr(corpus))
      if isinstance(corpus, SeqioTask)
      else describe(corpus, options)
      for corpus in corpora
    ]
    if is_done(Path(output), options | {"corpora": described}):
      return Path(output)
  arguments = decisive | {
    "output": str(output),
    "tokenizer": str(tokenizer),
    "workers": workers,
    "progress": progress,
  }
  with _stopped_by_sigterm():
    return Path(run_apart(prepare, arguments, f"prepared {output}"))


def _build(plan: Plan, pool: Pool, progress: bool) -> None:
  """Everything from the corpora to the complete output folder."""
  plan.folder.mkdir(exist_ok=True)
  shutil.rmtree(plan.output, ignore_errors=True)
  plan.output.mkdir()
  save_tokenizer(plan.tokenizer, plan.output)
  (plan.folder / "tokenizer").mkdir(exist_ok=True)
  save_tokenizer(plan.tokenizer, plan.folder / "tokenizer")
  manifests = write_stores(plan, pool, progress)
  written = held_out_rows.write_multiway(
    plan.corpora, plan.request["retrieval"], plan.output / "retrieval"
  )
  if plan.request["held_out"] and "dev" not in written:
    held_out_rows.write_pairs(
      plan.output / "dev", plan.tokenizer, plan.output / "retrieval"
    )
  report = summary.markdown(manifests)
  (plan.output / REPORT).write_text(report, "utf-8")
  text = json.dumps(plan.request, indent=1, ensure_ascii=False) + "\n"
  (plan.output / work_dir.REQUEST).write_text(text, "utf-8")


@contextlib.contextmanager
def _storage_errors(partial: Path) -> Iterator[None]:
  """What goes wrong with the disk, as an error that says what to do."""
  try:
    yield
  except (OSError, StorageError) as error:
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
      raise
    try:
      free = f"{shutil.disk_usage(partial).free / 1e9:.1f} GB are free there. "
    except OSError:
      free = ""
    raise StorageError(
      f"preparing in {partial} failed: {error}. {free}What is done is kept: "
      "start again to go on."
    ) from error


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
  """Within it SIGTERM raises Stopped, as Ctrl-C does KeyboardInterrupt."""

  def stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise Stopped(EXIT_TERMINATED)

  if threading.current_thread() is not threading.main_thread():
    yield
    return
  before = signal.signal(signal.SIGTERM, stop)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
