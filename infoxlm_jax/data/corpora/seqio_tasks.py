"""seqio: reading registered Tasks, and registering corpora as Tasks.

The only module of the package that touches seqio and TensorFlow, and only
inside functions. A Task gives plain strings, or ready-made ids; tokens are
made by `prepare`, with the tokenizer of the run.
"""

import contextlib
import difflib
import importlib
import itertools
import math
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from infoxlm_jax.data.corpora.open_files import note_consumed
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import resources

# Examples a step through TensorFlow: one by one costs ten times as much.
_BATCH = 1024

# What a corpus of each kind gives; "ids" in the place of "text" where it has
# tokens already.
FEATURES = {
  "text": ("text", "language"),
  "pairs": ("text_a", "language_a", "text_b", "language_b"),
}

# The errors that sources raised below TensorFlow, which keeps their text only.
_raised: list[InputError] = []


def import_tasks(modules: Sequence[str]) -> None:
  """Imports modules that register seqio Tasks, such as "tasks.verses".

  A module is looked for where Python looks (the current folder included),
  then among the project's own.

  Raises:
    InputError: no such module.
  """
  _import_seqio()
  if os.getcwd() not in sys.path:
    sys.path.append(os.getcwd())
  resources.add_tasks_path()
  for module in modules:
    try:
      importlib.import_module(module)
    except ModuleNotFoundError as error:
      # A module that exists but lacks a package of its own: say it as it is.
      if not error.name or not f"{module}.".startswith(f"{error.name}."):
        raise
      raise InputError(
        f"no module {module!r} to register tasks{_did_you_mean(module)}: give "
        "a module's name as Python imports it, for example 'tasks.verses'."
      ) from error


def read_task(name: str, split: str) -> Iterator[dict[str, Any]]:
  """The examples of a registered Task, in the order of its source.

  Those of a Mixture are its tasks' that have the split, one task after the
  other: how often each is drawn is decided when training reads records.

  Raises:
    InputError: unknown task or split; whatever the task's source finds wrong
      in its files.
  """
  for task in _tasks(name, split):
    yield from _read(task, split)


def splits_of(name: str) -> tuple[str, ...]:
  """The splits of a registered Task, or of any task of a Mixture."""
  every = itertools.chain(*(task.splits for task in _tasks(name)))
  return tuple(dict.fromkeys(every))


def describe(name: str, split: str) -> list[dict[str, Any]]:
  """What a Task's examples come from: a TFDS version, or files."""
  found = []
  for task in _tasks(name, split):
    about: dict[str, Any] = {"task": task.name}
    source = task.source
    if corpus := getattr(source, "corpus", None):
      about |= corpus.fingerprint(split)
    elif hasattr(source, "tfds_dataset"):
      info = source.tfds_dataset.info
      about |= {"tfds": info.full_name, "bytes": info.dataset_size}
    found.append(about)
  return found


def size_of(name: str, split: str) -> int | None:
  """Bytes that reading a Task consumes; None if not known."""
  total = 0.0
  for task in _tasks(name, split):
    if corpus := getattr(task.source, "corpus", None):
      size = corpus.size(split)
    else:
      # Examples without end, or none, where TFDS does not know them.
      count = task.source.num_input_examples(split) or math.inf
      size = count * _example_size(task)
    if size is None or not 0 < size < math.inf:
      return None
    total += size
  return int(total)


def corpora_of(name: str) -> list[Any]:
  """The corpora that `add` registered behind a Task's or Mixture's name."""
  sources = [task.source for task in _tasks(name)]
  return [s.corpus for s in sources if hasattr(s, "corpus")]


def _tasks(name: str, split: str | None = None) -> list[Any]:
  """The Task of a name, or a Mixture's; those with `split`, where given.

  Several names between commas are these tasks one after the other.
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
  seqio = _import_seqio()
  if name in seqio.MixtureRegistry.names():
    return sorted(seqio.MixtureRegistry.get(name).tasks, key=lambda t: t.name)
  if name in seqio.TaskRegistry.names():
    return [seqio.TaskRegistry.get(name)]
  names = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
  near = difflib.get_close_matches(name, names, 1)
  hint = f" Did you mean {near[0]!r}?" if near else ""
  raise InputError(
    f"no seqio task {name!r} is registered (there are: "
    f"{', '.join(sorted(names)) or 'none'}).{hint} Name the module that"
    " registers it among the task modules."
  )


def _build(task: Any) -> None:
  """Lets TFDS build a set that it has not yet, which may download it."""
  loader = getattr(task.source, "tfds_dataset", None)
  if loader is None:
    return
  try:
    if not loader.builder.info.splits:
      loader.builder.download_and_prepare()
  except Exception as error:  # a set's own code may raise anything
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    raise InputError(
      f"task {task.name!r}: TensorFlow Datasets has no {loader.name} built"
      f" {f'in {loader.data_dir}' if loader.data_dir else 'in its folder'}, and"
      f" cannot build it now: {reason[:200]}. Build it where that is possible"
      " (tfds build) and set TFDS_DATA_DIR to the folder that it lies in."
    ) from error


def _example_size(task: Any) -> float:
  """Bytes of a mean example of TFDS; 0 of another source."""
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
  _raised.clear()
  try:
    for batch in dataset.ragged_batch(_BATCH).as_numpy_iterator():
      columns = [_column(batch[name], task.name) for name in names]
      note_consumed(size * len(columns[0]))
      for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))
  except tf.errors.OpError:
    if _raised:
      raise _raised.pop() from None
    raise


def _column(values: Any, task: str) -> list[Any]:
  """Strings as str, ids as arrays."""
  found = list(values)
  if not isinstance(found[0], bytes):
    return found
  try:
    return [value.decode() for value in found]
  except UnicodeDecodeError as error:
    raise InputError(
      f"task {task!r}: an example with {error.object[:40]!r} is not UTF-8."
      " Convert the set, or register it with a step that does."
    ) from None


def add(name: str, corpus: Any) -> None:
  """Registers a corpus (data/corpora.py) as the seqio Task `name`.

  The Task gives what the corpus gives, in its order. Nothing is read yet.
  """
  seqio = _import_seqio()
  import tensorflow as tf

  names = list(FEATURES[corpus.kind])
  if corpus.ready_made:
    names = [feature.replace("text", "ids") for feature in names]
  features = string_features(names)
  signature = {n: tf.TensorSpec([None], tf.string) for n in names}
  for feature in names:
    if feature.startswith("ids"):
      features[feature] = seqio.Feature(
        seqio.PassThroughVocabulary(size=1), add_eos=False, dtype=tf.int32
      )
      signature[feature] = tf.RaggedTensorSpec([None, None], tf.int32)

  def batches(split: str) -> Iterator[dict[str, Any]]:
    examples = corpus.examples(split)
    try:
      while batch := list(itertools.islice(examples, _BATCH)):
        yield {n: _values([e[n] for e in batch]) for n in names}
    except InputError as error:
      _raised.append(error)
      raise

  def dataset(
    split: str, shuffle_files: bool = False, seed: int | None = None
  ) -> Any:
    del shuffle_files, seed  # the order is the files'
    return tf.data.Dataset.from_generator(
      lambda: batches(split), output_signature=signature
    ).unbatch()

  source = seqio.FunctionDataSource(dataset, splits=tuple(corpus.splits()))
  source.corpus = corpus  # for `describe`
  seqio.TaskRegistry.add(name, source=source, output_features=features)


def string_features(names: Sequence[str]) -> dict[str, Any]:
  """seqio features of plain strings: prepare makes the tokens."""
  seqio = _import_seqio()
  import tensorflow as tf

  string = seqio.Feature(
    seqio.PassThroughVocabulary(size=1),
    add_eos=False,
    dtype=tf.string,
    rank=0,
  )
  return dict.fromkeys(names, string)


def _values(values: list[Any]) -> Any:
  """Values of a feature of many examples, as TensorFlow takes them."""
  if isinstance(values[0], str):
    return values
  import tensorflow as tf

  return tf.RaggedTensor.from_row_lengths(
    np.concatenate(values), [len(v) for v in values]
  )


def _did_you_mean(module: str) -> str:
  folder = resources.share_root() / "tasks"
  known = [f"tasks.{file.stem}" for file in sorted(folder.glob("*.py"))]
  near = difflib.get_close_matches(module, known, 1)
  return f" (did you mean {near[0]!r}?)" if near else ""


def _import_seqio() -> Any:
  """seqio, with TensorFlow kept off the accelerators, which JAX needs."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  with _no_native_stderr():
    import seqio
    import tensorflow as tf

  for kind in ("GPU", "TPU"):
    try:
      tf.config.set_visible_devices([], kind)
    except (RuntimeError, ValueError):
      # Already initialised, by the caller's own use: nothing left to hide.
      pass
  return seqio


@contextlib.contextmanager
def _no_native_stderr() -> Iterator[None]:
  """Drops what TensorFlow's C++ says while it loads; no option does."""
  sys.stderr.flush()
  kept = os.dup(2)
  null = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(null, 2)
    yield
  finally:
    sys.stderr.flush()
    os.dup2(kept, 2)
    os.close(kept)
    os.close(null)
