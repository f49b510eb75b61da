"""Tokenises corpora and writes the records that training reads, once.

    output/tokenizer.model ...      the tokenizer's files
    output/{train,dev,test}/        records and manifest.json (data/records.py)
    output/retrieval/{dev,test}.jsonl   {"id": ..., "en": ..., "fr": ...} a line
    output/report.md                counts of sentences read, dropped and kept
    output/checksums.json           hashes of the other files that are read

Memory is bounded whatever the input's size, all cores work, and after a stop
no finished piece of work is done again. phases.py runs the four phases:
tokenize.py, deduplicate.py, make_records.py and shuffle.py; between the second
and the third hold_out.py chooses what is not trained on. plan.py names the
files that each phase leaves, in the folder that work_dir.py locks.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infoxlm_jax.data import prepared_files
from infoxlm_jax.data.corpora.base import Corpus, say_unused
from infoxlm_jax.data.corpora.held_out_pairs import held_out_pairs
from infoxlm_jax.data.corpora.open_files import Patterns
from infoxlm_jax.data.corpora.sources import SeqioTask
from infoxlm_jax.data.manifest import Manifest
from infoxlm_jax.data.prepare import retrieval_sets, summary, work_dir
from infoxlm_jax.data.prepare.filters import Cleaning
from infoxlm_jax.data.prepare.phases import write_stores
from infoxlm_jax.data.prepare.plan import SIZES, Plan, Sizes
from infoxlm_jax.data.prepare.process_pool import Pool
from infoxlm_jax.data.prepare.request import (
  HELD_OUT_PARTS,
  describe,
  is_done,
  options_of,
  outside_parts,
  read_request,
  without_test,
)
from infoxlm_jax.data.prepare.subprocess_run import run_in_subprocess
from infoxlm_jax.data.tokenizers.base import load_tokenizer, save_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import resources
from infoxlm_jax.runtime.signals import EXIT_TERMINATED, Stopped, stop_at_once

_CLEANING = Cleaning()
# Number of the format of the work folder's files.
_WORK = 2


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
  held_out_test: int = 0,
  dev_pairs: Patterns | None = None,
  test_pairs: Patterns | None = None,
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
    held_out_test: pairs of each pair with English that go to test, likewise.
    dev_pairs, test_pairs: files of pairs, as sources.Tsv reads them, that are
      dev or test; then no pair of the corpora is held out for it. No sentence
      of dev, test or the retrieval files is trained on, see hold_out.py.
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
  corpora = [*corpora, *held_out_pairs(dev_pairs, test_pairs)]
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
    held_out_test=held_out_test,
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
    for line in say_unused(corpus):
      print(f"{corpus.name}: {line}", flush=True)
  partial = output.with_name(f"{output.name}.partial")
  with (
    stop_at_once(_stopped),
    work_dir.locked(partial),
    work_dir.storage_errors(partial),
  ):
    if is_done(output, request):  # another process has just finished
      work_dir.remove(partial)
      return output
    work_dir.claim(partial, request | {"work": _WORK})
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
        manifests = _build(plan, pool, progress)
    except InputError:
      # Correcting the input changes the request, so the work is of no use.
      work_dir.remove(partial)
      raise
    os.rename(plan.output, output)
    work_dir.remove(partial)
  print(
    f"Prepared {output}", *summary.in_lines(manifests), sep="\n", flush=True
  )
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
  held_out_test: int = 0,
  dev_pairs: Patterns | None = None,
  test_pairs: Patterns | None = None,
  pairs_together: int = 1,
  workers: int | None = None,
  progress: bool = True,
  sizes: Sizes = SIZES,
) -> Path:
  """Runs `prepare` in a fresh process: this one does not load TensorFlow.

  The process sees no accelerator. It is not started if `output` is prepared
  already, nor if it was prepared so before held_out_test existed. The
  arguments are those of `prepare` and must pickle. Exceptions are raised here
  as they were there; a process that dies without one is an InputError with its
  exit status.
  """
  decisive: dict[str, Any] = {
    "row_length": row_length,
    "seed": seed,
    "max_side": max_side,
    "cleaning": cleaning,
    "stores": stores,
    "retrieval": retrieval,
    "held_out": held_out,
    "held_out_test": held_out_test,
    "pairs_together": pairs_together,
    "sizes": sizes,
    "corpora": [*corpora, *held_out_pairs(dev_pairs, test_pairs)],
  }
  if held_out_test and without_test(Path(output)):
    decisive["held_out_test"] = 0
  model = load_tokenizer(resources.find(tokenizer))
  options = options_of(model=model, **decisive)
  if earlier := read_request(Path(output), options):
    # Only TensorFlow could describe what a task reads: it counts as unchanged.
    kept = {c["corpus"]: c for c in earlier["corpora"]}
    described = [
      kept.get(repr(corpus))
      if isinstance(corpus, SeqioTask)
      else describe(corpus, options)
      for corpus in decisive["corpora"]
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


def _build(plan: Plan, pool: Pool, progress: bool) -> dict[str, Manifest]:
  """Does all work to the complete output folder; its stores' manifests."""
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
  outside = outside_parts(plan.corpora, plan.request)
  for part, option in HELD_OUT_PARTS.items():
    if part not in written and (part in outside or plan.request.get(option)):
      retrieval_sets.write_pairs(plan.output, part, plan.tokenizer)
  unused = [
    f"{corpus.name}: {line}"
    for corpus in plan.corpora
    for line in say_unused(corpus)
  ]
  report = summary.markdown(manifests, unused)
  (plan.output / summary.REPORT).write_text(report, "utf-8")
  text = json.dumps(plan.request, indent=1, ensure_ascii=False) + "\n"
  (plan.output / work_dir.REQUEST).write_text(text, "utf-8")
  prepared_files.write_checksums(plan.output, plan.tokenizer, work_dir.REQUEST)
  return manifests


def _stopped() -> Stopped:
  return Stopped(EXIT_TERMINATED)
