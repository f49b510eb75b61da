"""Tokenises corpora and writes the records that training reads, once.

    output/tokenizer.model ...      the tokenizer's files
    output/train/, output/dev/      records and manifest.json (data/records.py)
    output/retrieval/{dev,test}.jsonl   {"id": ..., "en": ..., "fr": ...} a line
    output/report.md                counts of sentences read, dropped and kept
    output/checksums.json           hashes of the other files that are read

Memory is bounded whatever the input's size, all cores work, and after a stop
no finished piece of work is done again. phases.py runs the four phases:
tokenize.py, deduplicate.py, make_records.py and shuffle.py. plan.py names the
files that each phase leaves, in the folder that work_dir.py locks.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from infoxlm_jax.data import prepared_files
from infoxlm_jax.data.corpora.base import Corpus
from infoxlm_jax.data.corpora.sources import SeqioTask
from infoxlm_jax.data.prepare import retrieval_sets, summary, work_dir
from infoxlm_jax.data.prepare.filters import Cleaning
from infoxlm_jax.data.prepare.phases import write_stores
from infoxlm_jax.data.prepare.plan import SIZES, Plan, Sizes
from infoxlm_jax.data.prepare.process_pool import Pool
from infoxlm_jax.data.prepare.request import (
  describe,
  is_done,
  options_of,
  read_request,
)
from infoxlm_jax.data.prepare.subprocess_run import run_in_subprocess
from infoxlm_jax.data.tokenizers.base import load_tokenizer, save_tokenizer
from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime import resources
from infoxlm_jax.runtime.signals import EXIT_TERMINATED, Stopped, stop_at_once

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
  pairs_together: int = 1,
  workers: int | None = None,
  progress: bool = True,
  sizes: Sizes = SIZES,
) -> Path:
  """Prepares corpora into `output`, unless it is prepared already.

  All work happens in `<output>.partial`, which becomes `output` at the end, so
  a folder of that name is complete; if it was prepared with the same request,
  it is used as it is. Started again after a stop, prepare continues. The
  records are a function of all arguments but `workers` and `progress`.

  Args:
    output: folder to write; may exist if it is empty.
    tokenizer: file or folder; a relative path is searched as a gin file's.
    row_length: the most tokens of a text record.
    corpora: to read (see corpora/sources.py).
    seed: decides the order of the records.
    max_side: the most tokens of a side of a pair.
    cleaning: which examples are left out.
    stores: {folder: split of the corpora}, by default train and dev. A corpus
      takes part in those whose split it has.
    retrieval: {file: split of the multiway corpora}, by default dev and test.
    held_out: records of each language and pair that go to dev instead of
      train, at most 5 % of them, from corpora that have no split for dev.
      Their pairs with English become retrieval/dev.jsonl, unless a multiway
      corpus has that split.
    pairs_together: so many pairs that follow each other in a corpus stay
      neighbours when records are shuffled, in order; runs are shorter at the
      end of a chunk. Pairs that are dropped do not count.
    workers: processes; None: as many as cores.
    progress: show progress on standard error.
    sizes: of chunks and shards; they also decide the records.

  Returns:
    `output`.

  Raises:
    InputError: bad options or corpora; `output` or the work folder hold
      something else, or another process works there.
    StorageError: writing failed, or a worker was killed; finished work is
      kept.
    Stopped: SIGTERM or SIGHUP; finished work is kept, as after Ctrl-C.
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
    pairs_together=pairs_together,
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
    stop_at_once(_stopped),
    work_dir.locked(partial),
    _storage_errors(partial),
  ):
    if is_done(output, request):  # another process has just finished
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
      # Correcting the input changes the request, so the work is of no use.
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
  pairs_together: int = 1,
  workers: int | None = None,
  progress: bool = True,
  sizes: Sizes = SIZES,
) -> Path:
  """Runs `prepare` in a fresh process: this one does not load TensorFlow.

  The process sees no accelerator. It is not started if `output` is prepared
  already. The arguments are those of `prepare` and must pickle. Exceptions
  are raised here as they were there; a process that dies without one is an
  InputError with its exit status.
  """
  decisive: dict[str, Any] = {
    "row_length": row_length,
    "seed": seed,
    "max_side": max_side,
    "cleaning": cleaning,
    "stores": stores,
    "retrieval": retrieval,
    "held_out": held_out,
    "pairs_together": pairs_together,
    "sizes": sizes,
    "corpora": corpora,
  }
  model = load_tokenizer(resources.find(tokenizer))
  options = options_of(model=model, **decisive)
  if earlier := read_request(Path(output), options):
    # Only TensorFlow could describe what a task reads: it counts as unchanged.
    kept = {c["corpus"]: c for c in earlier["corpora"]}
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
  with stop_at_once(_stopped):
    return Path(run_in_subprocess(prepare, arguments, f"prepared {output}"))


def _build(plan: Plan, pool: Pool, progress: bool) -> None:
  """Does all work from the corpora to the complete output folder."""
  plan.folder.mkdir(exist_ok=True)
  shutil.rmtree(plan.output, ignore_errors=True)
  plan.output.mkdir()
  save_tokenizer(plan.tokenizer, plan.output)
  (plan.folder / "tokenizer").mkdir(exist_ok=True)
  save_tokenizer(plan.tokenizer, plan.folder / "tokenizer")
  manifests = write_stores(plan, pool, progress)
  written = retrieval_sets.write_multiway(
    plan.corpora, plan.request["retrieval"], plan.output / "retrieval"
  )
  if plan.request["held_out"] and "dev" not in written:
    retrieval_sets.write_pairs(
      plan.output / "dev", plan.tokenizer, plan.output / "retrieval"
    )
  report = summary.markdown(manifests)
  (plan.output / REPORT).write_text(report, "utf-8")
  text = json.dumps(plan.request, indent=1, ensure_ascii=False) + "\n"
  (plan.output / work_dir.REQUEST).write_text(text, "utf-8")
  prepared_files.write_checksums(plan.output, plan.tokenizer, work_dir.REQUEST)


@contextlib.contextmanager
def _storage_errors(partial: Path) -> Iterator[None]:
  """Turns errors of the disk into StorageErrors that say what to do."""
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
      f"preparing in {partial} failed: {error}. {free}Finished work is kept: "
      "start again to continue."
    ) from error


def _stopped() -> Stopped:
  return Stopped(EXIT_TERMINATED)
