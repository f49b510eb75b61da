"""Tokenises corpora once and writes the records that training reads.

    output/tokenizer.model          copy of the tokenizer's file or files
    output/train/, output/dev/      records and manifest.json (data/records.py)
    output/retrieval/{dev,test}.jsonl   {"id": ..., "en": ..., "fr": ...} a line

Examples are read as a stream; the token ids of one split stay in memory (four
bytes each) until they are shuffled and written.
"""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import tqdm

from infoxlm_jax import resources
from infoxlm_jax.data import records, sources
from infoxlm_jax.data.gather import (
  Example,
  Gathered,
  gather_pairs,
  gather_text,
)
from infoxlm_jax.data.order import mix, permute
from infoxlm_jax.data.tokenizer import (
  Tokenizer,
  holds_tokenizer,
  load_tokenizer,
  save_tokenizer,
)
from infoxlm_jax.errors import InputError, StorageError

# Split names of the tasks: for the records, and for the retrieval files.
STORES = {"train": "train", "dev": "validation"}
RETRIEVAL = {"dev": "validation", "test": "test"}

# Exit status of the other process after Ctrl-C, a shell's own.
_INTERRUPTED = 130

Reader = Callable[[str, str], Iterator[dict[str, str]]]


def prepare(
  output: str | os.PathLike[str],
  *,
  tokenizer: str | os.PathLike[str],
  row_length: int,
  task_modules: Sequence[str],
  text_task: str | None,
  pairs_task: str | None,
  multiway_task: str | None,
  seed: int = 0,
  max_side: int = 254,
  stores: Mapping[str, str] | None = None,
  retrieval: Mapping[str, str] | None = None,
  read: Reader | None = None,
  progress: bool = True,
) -> Path:
  """Prepares the tasks' examples into `output`, or finds that it is done.

  Everything is written beside `output` and renamed at the end: a folder of
  that name is complete. One that holds the same request is used as it is.

  Args:
    output: folder to write; may exist when empty.
    tokenizer: its file or folder; a relative one is found as gin files are.
    row_length: tokens of a text record at most.
    task_modules: modules to import that register the tasks.
    text_task: features text, language. None for no texts.
    pairs_task: text_a, language_a, text_b, language_b. None for no pairs.
    multiway_task: id and a feature a language. None for no retrieval files.
    seed: decides the order of the records.
    max_side: tokens of one side of a pair at most.
    stores: {folder: split of the tasks}, by default train and dev.
    retrieval: {file: split of multiway_task}, by default dev and test.
    read: (task, split) -> examples; by default the registered seqio tasks'.
    progress: show a progress bar where standard error is a terminal.

  Returns:
    `output`.

  Raises:
    InputError: bad options or corpora, or `output` holds something else.
    StorageError: writing failed.
  """
  output = Path(output)
  model, request = _request(
    tokenizer=tokenizer,
    row_length=row_length,
    max_side=max_side,
    seed=seed,
    text_task=text_task,
    pairs_task=pairs_task,
    multiway_task=multiway_task,
    stores=stores,
    retrieval=retrieval,
  )
  if _is_done(output, request):
    return output
  if read is None:
    sources.import_tasks(task_modules)
    read = sources.read_task
  beside = _folder_beside(output)
  bar = tqdm.tqdm(
    unit=" sentences",
    unit_scale=True,
    desc="prepare",
    disable=None if progress else True,
  )
  try:
    save_tokenizer(model, beside)
    for name, split in request["stores"].items():
      gathered: dict[tuple[str, ...], Gathered] = {}
      if text_task:
        examples = _counted(read(text_task, split), bar, 1)
        gather_text(examples, model, row_length, gathered, text_task)
      if pairs_task:
        examples = _counted(read(pairs_task, split), bar, 2)
        gather_pairs(examples, model, max_side, gathered, pairs_task)
      manifest = _write_store(beside / name, gathered, model, request)
      if not any(corpus.records for corpus in manifest.corpora):
        raise InputError(
          f"split {split!r} of {text_task or pairs_task} gives no sentence."
        )
    for name, split in request["retrieval"].items():
      path = beside / "retrieval" / f"{name}.jsonl"
      _write_retrieval(path, read(str(multiway_task), split))
    _publish(beside, output, request)
  except OSError as error:
    raise StorageError(f"preparing {output} failed: {error}") from error
  finally:
    bar.close()
    shutil.rmtree(beside, ignore_errors=True)
  return output


def prepare_in_subprocess(
  output: str | os.PathLike[str],
  *,
  tokenizer: str | os.PathLike[str],
  row_length: int,
  task_modules: Sequence[str],
  text_task: str | None,
  pairs_task: str | None,
  multiway_task: str | None,
  seed: int = 0,
  max_side: int = 254,
  stores: Mapping[str, str] | None = None,
  retrieval: Mapping[str, str] | None = None,
  read: Reader | None = None,
  progress: bool = True,
) -> Path:
  """`prepare` in a fresh process, so that TensorFlow stays out of this one.

  The process sees no accelerator, and is not started at all where `output`
  is already prepared. Arguments are `prepare`'s and must pickle. Exceptions
  arrive as they were raised; a process that dies without one is an
  InputError with its status.
  """
  options: dict[str, Any] = {
    "tokenizer": tokenizer,
    "row_length": row_length,
    "text_task": text_task,
    "pairs_task": pairs_task,
    "multiway_task": multiway_task,
    "seed": seed,
    "max_side": max_side,
    "stores": stores,
    "retrieval": retrieval,
  }
  if _is_done(Path(output), _request(**options)[1]):
    return Path(output)
  options |= {"task_modules": task_modules, "read": read, "progress": progress}
  environment = {
    **os.environ,
    "CUDA_VISIBLE_DEVICES": "",
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "3",
  }
  # This process's path comes first: the rest may need it to unpickle.
  code = (
    "import pickle, sys; file = open(sys.argv[1], 'rb');"
    "sys.path[:] = pickle.load(file);"
    "from infoxlm_jax.data.prepare import _child; _child(file)"
  )
  with tempfile.TemporaryDirectory() as folder:
    exchange = Path(folder) / "exchange"
    exchange.write_bytes(
      pickle.dumps(sys.path) + pickle.dumps((str(output), options))
    )
    command = [sys.executable, "-c", code, str(exchange)]
    status = subprocess.run(command, env=environment, check=False).returncode
    if status in (_INTERRUPTED, -signal.SIGINT):
      raise KeyboardInterrupt
    if status:
      raise InputError(
        f"the process that prepared {output} ended with status {status} and "
        "left no error of its own (killed, or out of memory?)."
      )
    result = pickle.loads(exchange.read_bytes())
  if isinstance(result, BaseException):
    raise result
  return Path(result)


def _child(file: IO[bytes]) -> None:
  """Runs in the fresh process: the rest of `file` says what to do."""
  output, options = pickle.load(file)
  result: str | Exception
  try:
    result = str(prepare(output, **options))
  except KeyboardInterrupt:
    # The terminal interrupts both processes; the other one speaks.
    sys.exit(_INTERRUPTED)
  except Exception as error:
    if not isinstance(error, InputError):
      error.add_note(traceback.format_exc())
    result = error
  Path(file.name).write_bytes(pickle.dumps(result))


def _request(
  *,
  tokenizer: str | os.PathLike[str],
  row_length: int,
  text_task: str | None,
  pairs_task: str | None,
  multiway_task: str | None,
  seed: int = 0,
  max_side: int = 254,
  stores: Mapping[str, str] | None = None,
  retrieval: Mapping[str, str] | None = None,
) -> tuple[Tokenizer, dict[str, Any]]:
  """The tokenizer, and what makes two prepared folders the same."""
  if row_length < 3 or max_side < 1:
    raise InputError(
      f"prepare: row_length = {row_length} and max_side = {max_side} leave no "
      "room for a sentence (3 and 1 at least)."
    )
  if not (text_task or pairs_task):
    raise InputError("prepare: give text_task, pairs_task or both.")
  stores = STORES if stores is None else stores
  retrieval = RETRIEVAL if retrieval is None else retrieval
  model = load_tokenizer(resources.find(tokenizer))
  request = {
    "tokenizer_sha256": model.sha256,
    "row_length": row_length,
    "max_side": max_side,
    "seed": seed,
    "text_task": text_task,
    "pairs_task": pairs_task,
    "multiway_task": multiway_task,
    "stores": dict(stores),
    "retrieval": dict(retrieval) if multiway_task else {},
  }
  return model, request


def _is_done(output: Path, request: dict[str, Any]) -> bool:
  """Whether `output` holds this request; InputError where it holds another."""
  if not output.exists() or (output.is_dir() and not any(output.iterdir())):
    return False
  advice = "Choose another folder, or move this one away."
  names = list(request["stores"])
  names += [f"retrieval/{name}.jsonl" for name in request["retrieval"]]
  missing = [name for name in names if not (output / name).exists()]
  if output.is_dir() and not holds_tokenizer(output):
    missing.append("tokenizer")
  if missing:
    raise InputError(
      f"{output} exists and is not prepared data (no {missing[0]}): nothing "
      f"was overwritten. {advice}"
    )
  for name in request["stores"]:
    found = records.Store(output / name).manifest.request
    for key in request:
      if found.get(key) != request[key]:
        raise InputError(
          f"{output} was prepared with {key} = {found.get(key)!r}, now it is "
          f"{request[key]!r}: nothing was overwritten. {advice}"
        )
  return True


def _folder_beside(output: Path) -> Path:
  try:
    output.parent.mkdir(parents=True, exist_ok=True)
    return Path(
      tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent)
    )
  except OSError as error:
    raise InputError(
      f"cannot write beside {output}: {error.strerror}. Choose a folder that "
      "can be written."
    ) from error


def _publish(beside: Path, output: Path, request: dict[str, Any]) -> None:
  beside.chmod(0o755)
  try:
    os.rename(beside, output)
  except OSError:
    # Another process was faster; its folder serves if it is the same.
    if not _is_done(output, request):
      raise


def _counted(
  examples: Iterable[dict[str, str]], bar: Any, sentences: int
) -> Iterator[dict[str, str]]:
  for example in examples:
    yield example
    bar.update(sentences)


def _write_store(
  folder: Path,
  gathered: dict[tuple[str, ...], Gathered],
  model: Tokenizer,
  request: dict[str, Any],
) -> records.Manifest:
  corpora = []
  for languages, found in sorted(gathered.items()):
    kind = "text" if len(languages) == 1 else "pairs"
    name = f"{kind}/{'-'.join(languages)}"
    count = len(found.records)
    key = mix(request["seed"], zlib.crc32(f"{folder.name}/{name}".encode()))
    order = permute(np.arange(count), max(count, 1), key).tolist()
    shard = records.write_shard(
      folder,
      f"{name}-00000-of-00001.arrayrecord",
      (found.records[i] for i in order),
    )
    corpora.append(
      records.Corpus(
        languages=languages,
        records=count,
        sentences=found.sentences,
        tokens=found.tokens,
        dropped=dict(+found.dropped),
        truncated=dict(+found.truncated),
        shards=(shard,),
      )
    )
  manifest = records.Manifest(
    tokenizer_sha256=model.sha256,
    vocab_size=model.vocab_size,
    row_length=request["row_length"],
    max_side=request["max_side"],
    corpora=tuple(corpora),
    request=request,
    versions=records.versions(),
  )
  folder.mkdir(parents=True, exist_ok=True)
  (folder / records.MANIFEST).write_text(manifest.to_json(), "utf-8")
  return manifest


def _write_retrieval(path: Path, examples: Iterable[Example]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w", encoding="utf-8", newline="\n") as file:
    for example in examples:
      kept = {name: text for name, text in example.items() if text}
      file.write(json.dumps(kept, ensure_ascii=False) + "\n")
