"""Turns gin's errors into one line that names the place and the remedy."""

import contextlib
import difflib
import inspect
import logging
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gin.config as gin

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import limits, read_files, resources

_PARAMETER = re.compile(r"^(\S+\.\w+) = ", re.MULTILINE)
_SHOWN = 1000  # characters of a line or of a message of gin
_IMPORT = re.compile(r"^from ([\w.]+) import (\w+)", re.MULTILINE)


@contextlib.contextmanager
def missing_values() -> Iterator[None]:
  """Turns gin's error about an argument without a value into an InputError.

  All other errors come from the code that gin calls and pass unchanged.
  """
  try:
    yield
  except (RuntimeError, TypeError, ValueError) as error:
    text = str(error)
    if "Required bindings" in text or "No values supplied by Gin" in text:
      raise InputError(one_line(text)) from None
    raise


def run_parser(parse: Callable[[], Any], where: str, name: str = "") -> None:
  """Calls a parser of gin and turns its errors into one line.

  Args:
    parse: a function without arguments.
    where: the file or the flag that is parsed, for the message.
    name: the setting that is parsed; "" when a whole file is parsed.

  Raises:
    InputError: gin's message, its place, and the nearest known name.
  """
  level = logging.root.manager.disable
  try:
    logging.disable(logging.ERROR)  # gin logs each folder that it searches
    parse()
  except tokenize.TokenError as error:
    if "nested" in error.args[0]:  # from Python 3.12 on
      raise _too_deep(where) from None
    raise InputError(
      f"{where}: {error.args[0]}: a bracket or a quote is not closed"
    ) from None
  except SyntaxError as error:
    place = where
    if error.filename:
      place = f"{error.filename}, line {error.lineno}"
    line = one_line(error.text or "")[:_SHOWN]
    raise InputError(
      f"{place}: {one_line(error.msg)} {line}{_quotes_hint(error.msg)}"
    ) from None
  except (RecursionError, MemoryError):
    raise _too_deep(where) from None
  except (
    ValueError,
    TypeError,
    NameError,
    ImportError,
    AttributeError,
    OSError,
  ) as error:
    text = one_line(str(error))[:_SHOWN]
    raise InputError(
      f"{where}: {text}{_quotes_hint(text)}{_suggestion(text, name)}"
    ) from None
  finally:
    logging.disable(level)


def _too_deep(where: str) -> InputError:
  return InputError(
    f"{where}: brackets are nested deeper than gin's parser can follow. Write"
    " the value with fewer levels."
  )


def _quotes_hint(text: str) -> str:
  return "; text needs quotes" if "malformed node" in text else ""


def _suggestion(text: str, name: str) -> str:
  """A hint with the known name nearest to the unknown one in gin's message."""
  if match := re.search(r"Unable to open file: (\S+)\. Searched", text):
    try:
      resources.find(match[1])
    except InputError as error:
      return f" {error}"
  known = _callables(gin.config_str() + _file_in(text))
  if match := re.search(
    r"'(\S+)' doesn't have a parameter named '(\w+)'", text
  ):
    for full, function in known.items():
      if full.rpartition(".")[2] == match[1].rpartition(".")[2]:
        own = inspect.signature(function).parameters
        return nearest(match[2], own) or _owner(match[2], known)
  if match := re.search(r"No module named '(\S+)'", text):
    return _nearest_module(match[1].rpartition(".")[2])
  match = re.search(r"(?:matching (?:reference )?'@?|selector )([\w./]+)", text)
  if match:
    wanted = match[1].rpartition("/")[2]
    return nearest(wanted, known)
  return nearest(name, _PARAMETER.findall(gin.config_str())) if name else ""


def with_parameter(parameter: str, config: str) -> str:
  """The full name of a parameter that gin can set; "" if there is none.

  Args:
    parameter: its own name, such as temperature.
    config: text of a configuration, with its imports.
  """
  return _owned(parameter, _callables(config))


def _owner(parameter: str, known: Mapping[str, Any]) -> str:
  """A question with another callable that has a parameter of this name."""
  name = _owned(parameter, known)
  return f"; did you mean {name}?" if name else ""


def _owned(parameter: str, known: Mapping[str, Any]) -> str:
  for full, function in known.items():
    try:
      if parameter in inspect.signature(function).parameters:
        return f"{full}.{parameter}"
    except ValueError:  # some builtins have no signature
      continue
  return ""


def _nearest_module(name: str) -> str:
  """A question with the module of this package whose name is nearest."""
  package = Path(__file__).parent
  modules: dict[str, str] = {}
  for path in sorted(package.rglob("*.py")):
    inside = path.relative_to(package.parent).with_suffix("")
    modules.setdefault(path.stem, ".".join(inside.parts))
  close = difflib.get_close_matches(name, modules, 1, 0.6)
  return f"; did you mean {modules[close[0]]}?" if close else ""


def _file_in(text: str) -> str:
  """The text of the gin file that gin's message names."""
  match = re.search(r'In file "([^"]+)"', text)
  return read_files.read_text(match[1], limits.GIN) if match else ""


def _callables(text: str) -> dict[str, Any]:
  """The functions and classes that gin files with these imports can name.

  These are the public names that a module defines, such as pretrain.pretrain,
  and the names in its __all__.
  """
  callables = {}
  for package, name in _IMPORT.findall(text):
    module = sys.modules.get(f"{package}.{name}")
    named = getattr(module, "__all__", ())
    for attribute, value in vars(module).items() if module else ():
      own = getattr(value, "__module__", "") == f"{package}.{name}"
      public = own and not attribute.startswith("_")
      if callable(value) and (public or attribute in named):
        callables[f"{name}.{attribute}"] = value
  return callables


def nearest(name: str, known: Iterable[str]) -> str:
  """Returns "; did you mean NAME?" for the nearest name, or "" if none is."""
  close = difflib.get_close_matches(name, list(known), 1, 0.6)
  return f"; did you mean {close[0]}?" if close else ""


def one_line(text: str) -> str:
  """Joins the lines of a text; gin writes the place below its message."""
  lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
  return " ".join(lines)
