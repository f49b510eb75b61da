"""Reads registered seqio Tasks, the examples in the order of their source.

seqio and TensorFlow are imported only inside functions.
"""

import dataclasses
import difflib
import importlib
import itertools
import math
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from infoxlm_jax.data.corpora.base import Example
from infoxlm_jax.data.corpora.seqio_tasks import (
  BATCH,
  import_seqio,
  raised_errors,
)
from infoxlm_jax.data.corpora.unpacking import note_consumed
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import resources

_KINDS = ("text", "pairs", "multiway")


@dataclasses.dataclass(frozen=True)
class SeqioTask:
  """A registered seqio Task, or all tasks of a Mixture one after the other.

  Attributes:
    name: of the Task or Mixture; or several, with commas between them.
    modules: to import first because they register it, such as
      ("tasks.verses",).
    kind: "text", "pairs" or "multiway".
  """

  name: str
  modules: Sequence[str]
  kind: str

  def __post_init__(self) -> None:
    if self.kind not in _KINDS:
      raise InputError(
        f"task {self.name!r}: kind = {self.kind!r} is not one of"
        f" {', '.join(_KINDS)}."
      )

  def splits(self) -> Sequence[str]:
    import_tasks(self.modules)
    return splits_of(self.name)

  def examples(self, split: str) -> Iterator[Example]:
    import_tasks(self.modules)
    return read_task(self.name, split)

  def fingerprint(self, split: str) -> dict[str, Any]:
    import_tasks(self.modules)
    sources = describe(self.name, split)
    return {"corpus": "SeqioTask", "task": self.name, "sources": sources}

  def size(self, split: str) -> int | None:
    import_tasks(self.modules)
    return size_of(self.name, split)

  def check_tokenizer(self, tokenizer: Tokenizer) -> None:
    import_tasks(self.modules)
    for corpus in corpora_of(self.name):
      corpus.check_tokenizer(tokenizer)


def import_tasks(modules: Sequence[str]) -> None:
  """Imports modules that register seqio Tasks, such as "tasks.verses".

  A module is looked for on Python's path and in the current folder, then among
  the project's own.

  Raises:
    InputError: no such module.
  """
  import_seqio()
  if os.getcwd() not in sys.path:
    sys.path.append(os.getcwd())
  resources.add_tasks_path()
  for module in modules:
    try:
      importlib.import_module(module)
    except ModuleNotFoundError as error:
      # The module exists, but a package that it imports does not.
      if not error.name or not f"{module}.".startswith(f"{error.name}."):
        raise
      raise InputError(
        f"no module {module!r} to register tasks{_did_you_mean(module)}: give "
        "a module's name as Python imports it, for example 'tasks.verses'."
      ) from error


def read_task(name: str, split: str) -> Iterator[dict[str, Any]]:
  """Yields the examples of a registered Task, in the order of its source.

  Of a Mixture, those of its tasks that have the split, one task after the
  other: training decides how often it draws from each.

  Raises:
    InputError: an unknown task or split, or a bad file of the task's source.
  """
  for task in _tasks(name, split):
    yield from _read(task, split)


def splits_of(name: str) -> tuple[str, ...]:
  """The splits of a registered Task, or of any task of a Mixture."""
  every = itertools.chain(*(task.splits for task in _tasks(name)))
  return tuple(dict.fromkeys(every))


def describe(name: str, split: str) -> list[dict[str, Any]]:
  """Describes the source of a Task's examples: a TFDS version, or files."""
  described = []
  for task in _tasks(name, split):
    about: dict[str, Any] = {"task": task.name}
    source = task.source
    if corpus := getattr(source, "corpus", None):
      about |= corpus.fingerprint(split)
    elif hasattr(source, "tfds_dataset"):
      info = source.tfds_dataset.info
      about |= {"tfds": info.full_name, "bytes": info.dataset_size}
    described.append(about)
  return described


def size_of(name: str, split: str) -> int | None:
  """Bytes that reading a Task consumes; None if not known."""
  total = 0.0
  for task in _tasks(name, split):
    if corpus := getattr(task.source, "corpus", None):
      size = corpus.size(split)
    else:
      # TFDS may not know the number: None, 0 or infinity.
      count = task.source.num_input_examples(split) or math.inf
      size = count * _example_size(task)
    if size is None or not 0 < size < math.inf:
      return None
    total += size
  return int(total)


def corpora_of(name: str) -> list[Any]:
  """The corpora that `add` registered as the tasks of a name."""
  sources = [task.source for task in _tasks(name)]
  return [s.corpus for s in sources if hasattr(s, "corpus")]


def _tasks(name: str, split: str | None = None) -> list[Any]:
  """The tasks of a Task's or Mixture's name, or of several between commas.

  With `split`, only the tasks that have it.
  """
  names = [part.strip() for part in name.split(",")]
  tasks = [task for part in names for task in _registered(part)]
  for task in tasks:
    _build(task)
  having = [task for task in tasks if split is None or split in task.splits]
  if not having:
    known = dict.fromkeys(itertools.chain(*(task.splits for task in tasks)))
    raise InputError(
      f"task {name!r} has no split {split!r}: it has "
      f"{', '.join(map(repr, known))}."
    )
  return having


def _registered(name: str) -> list[Any]:
  """The Task of one name, or the tasks of a Mixture by their names."""
  seqio = import_seqio()
  if name in seqio.MixtureRegistry.names():
    return sorted(seqio.MixtureRegistry.get(name).tasks, key=lambda t: t.name)
  if name in seqio.TaskRegistry.names():
    return [seqio.TaskRegistry.get(name)]
  names = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
  near = difflib.get_close_matches(name, names, 1)
  hint = f" Did you mean {near[0]!r}?" if near else ""
  raise InputError(
    f"no seqio task {name!r} is registered (the registered ones: "
    f"{', '.join(sorted(names)) or 'none'}).{hint} Name the module that"
    " registers it among the task modules."
  )


def _build(task: Any) -> None:
  """Lets TFDS build a missing data set, which may download it."""
  loader = getattr(task.source, "tfds_dataset", None)
  if loader is None:
    return
  try:
    if not loader.builder.info.splits:
      loader.builder.download_and_prepare()
  except Exception as error:  # the data set's own code may raise anything
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    raise InputError(
      f"task {task.name!r}: TensorFlow Datasets has not built {loader.name}"
      f" {f'in {loader.data_dir}' if loader.data_dir else 'in its folder'}, and"
      f" cannot build it now: {reason[:200]}. Build it where that is possible"
      " (tfds build) and set TFDS_DATA_DIR to its folder."
    ) from error


def _example_size(task: Any) -> float:
  """Mean bytes of an example of TFDS; 0 for other sources."""
  if not hasattr(task.source, "tfds_dataset"):
    return 0.0
  info = task.source.tfds_dataset.info
  count = sum(split.num_examples for split in info.splits.values())
  return info.dataset_size / count if count else 0.0


def _read(task: Any, split: str) -> Iterator[dict[str, Any]]:
  import tensorflow as tf

  dataset = task.get_dataset(split=split, shuffle=False, use_cached=False)
  names = list(task.output_features)
  size = _example_size(task)
  raised_errors.clear()
  try:
    for batch in dataset.ragged_batch(BATCH).as_numpy_iterator():
      columns = [_column(batch[name], task.name) for name in names]
      note_consumed(size * len(columns[0]))
      for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))
  except tf.errors.OpError:
    if raised_errors:
      raise raised_errors.pop() from None
    raise


def _column(values: Any, task: str) -> list[Any]:
  """The values of a feature: strings as str, ids as arrays."""
  column = list(values)
  if not isinstance(column[0], bytes):
    return column
  try:
    return [value.decode() for value in column]
  except UnicodeDecodeError as error:
    raise InputError(
      f"task {task!r}: an example with {error.object[:40]!r} is not UTF-8."
      " Convert the data set, or register it with a step that does."
    ) from None


def _did_you_mean(module: str) -> str:
  folder = resources.share_root() / "tasks"
  known = [f"tasks.{file.stem}" for file in sorted(folder.glob("*.py"))]
  near = difflib.get_close_matches(module, known, 1)
  return f" (did you mean {near[0]!r}?)" if near else ""
