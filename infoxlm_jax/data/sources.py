"""Reading corpora: seqio Tasks, and the tab-separated files behind some.

The only module of the package that touches seqio and TensorFlow, and only
inside `import_tasks` and `read_task`. A Task gives plain strings; tokens are
made by `prepare`, with the tokenizer of the run.
"""

import contextlib
import difflib
import gzip
import importlib
import lzma
import os
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from infoxlm_jax import resources
from infoxlm_jax.errors import InputError

LANGUAGE = re.compile(r"[a-z]{2,3}([-_][A-Za-z0-9]{2,8})*")

# Examples a step through TensorFlow: one by one costs ten times as much.
_READ_BATCH = 1024


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


def read_task(name: str, split: str) -> Iterator[dict[str, str]]:
  """The examples of a registered seqio Task, in the order of its source.

  Raises:
    InputError: unknown task or split; whatever the task's source finds wrong
      in its files.
  """
  seqio = _import_seqio()
  names = sorted(seqio.TaskRegistry.names())
  if name not in names:
    near = difflib.get_close_matches(name, names, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(
      f"no seqio task {name!r} is registered (there are: "
      f"{', '.join(names) or 'none'}).{hint} Name the module that registers "
      "it among the task modules."
    )
  task = seqio.TaskRegistry.get(name)
  if split not in task.splits:
    raise InputError(
      f"task {name!r} has no split {split!r}: it has "
      f"{', '.join(map(repr, task.splits))}."
    )
  dataset = task.get_dataset(split=split, shuffle=False, use_cached=False)
  names = list(task.output_features)
  for batch in dataset.batch(_READ_BATCH).as_numpy_iterator():
    columns = [batch[name].tolist() for name in names]
    for values in zip(*columns, strict=True):
      yield {
        name: value.decode() for name, value in zip(names, values, strict=True)
      }


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
  r"""Line number (from 1) and text of each line of a .gz, .xz or plain file.

  Lines end at \n only: U+2028, form feeds and lone \r stay in the text. The
  \r of a \r\n is removed, and a byte order mark at the start of the file.

  Raises:
    InputError: missing, empty or truncated file, or bytes that are not UTF-8.
  """
  number = 0
  try:
    with _open(Path(path)) as file:
      for number, raw in enumerate(file, 1):
        text = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
        yield number, text.removeprefix("\ufeff") if number == 1 else text
  except UnicodeDecodeError as error:
    raise InputError(
      f"{path}, line {number}: byte {error.object[error.start]:#04x} at place "
      f"{error.start + 1} of the line is not UTF-8. Convert the file to UTF-8."
    ) from error
  except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
    raise InputError(
      f"{path}, after line {number}: the compressed file is truncated or "
      f"damaged ({error}). Copy or download it again."
    ) from error
  except OSError as error:
    raise InputError(f"cannot read {path}: {error.strerror}.") from error
  if not number:
    raise InputError(f"{path} is empty: expected lines of text.")


def read_table(
  path: str | os.PathLike[str], leading: Sequence[str] = ()
) -> Iterator[tuple[list[str], list[str]]]:
  """(header, cells) of each row of a TSV with a header, no quoting.

  Args:
    path: the file, plain, .gz or .xz.
    leading: the names of the first columns; all others are language codes.

  Raises:
    InputError: what `read_lines` raises, a header that is none, a row whose
      number of cells is not the header's, or no row at all.
  """
  header: list[str] | None = None
  rows = 0
  for number, line in read_lines(path):
    cells = line.split("\t")
    if header is None:
      header = _checked_header(path, cells, leading)
      continue
    if len(cells) != len(header):
      raise InputError(
        f"{path}, line {number}: {len(cells)} tab-separated cells, the header "
        f"has {len(header)} ({' '.join(header)}). Each row needs a cell for "
        "each column, an empty one where a translation is missing."
      )
    rows += 1
    yield header, cells
  if not rows:
    raise InputError(f"{path} has a header and no rows.")


def _checked_header(
  path: str | os.PathLike[str], cells: list[str], leading: Sequence[str]
) -> list[str]:
  expected = " ".join([*leading, "en", "de", "..."])
  languages = cells[len(leading) :]
  bad = [name for name in languages if not LANGUAGE.fullmatch(name)]
  if cells[: len(leading)] != list(leading) or bad or not languages:
    found = " ".join(cells)
    raise InputError(
      f"{path}, line 1: not a header of column names such as '{expected}': "
      f"found {found[:60]!r}."
    )
  if len(set(cells)) < len(cells):
    raise InputError(f"{path}, line 1: a column name stands twice: {cells}.")
  return cells


def _open(path: Path) -> IO[bytes]:
  if path.suffix == ".gz":
    return gzip.open(path, "rb")  # type: ignore[return-value]
  if path.suffix == ".xz":
    return lzma.open(path, "rb")
  return path.open("rb")


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
