"""Reads gin files and command-line overrides, with t5x's conventions.

Run files bind UPPER_CASE macros; `--gin.NAME=value` overrides them. A value
that is not a Python literal and does not start with @ or % is text, so paths
need no quotes.
"""

import ast
import functools
import inspect
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin.config as gin

from infoxlm_jax.errors import InputError
from infoxlm_jax.gin_errors import (
  missing_values,
  nearest,
  run_parser,
  with_parameter,
)
from infoxlm_jax.gin_files import Checker
from infoxlm_jax.gin_types import check_types
from infoxlm_jax.runtime import resources

_MACRO = re.compile(r"^([A-Z][A-Z0-9_]*) = ", re.MULTILINE)
_REQUIRED = re.compile(r"^([\w./]+) = %gin\.REQUIRED", re.MULTILINE)
_OVERRIDE = re.compile(r"--gin\.([^=]+)=(.*)", re.DOTALL)
_FLAGS = (
  "--gin_file",
  "--gin_search_paths",
  "--gin_allow_imports",
  "--dry_run",
  "--print_config",
  "--compile_for",
  "--json",
  "--help",
)
_PATHS = ("MODEL_DIR", "MODEL", "DATA", "INIT_FROM", "INPUT", "TOKENIZER")


# A setting and its value, which may go on in lines that begin with a space or
# a closing bracket.
_BOUND = re.compile(r"^([\w./]+) = (.*(?:\n[ )\]}].*)*)", re.MULTILINE)


class Configuration:
  """A parsed configuration: its text, its macros and its job."""

  def __init__(self) -> None:
    self.text = gin.config_str()

  def macro(self, name: str, default: Any = gin.REQUIRED) -> Any:
    """Returns the value of a macro, or `default` if the macro is not bound.

    Raises:
      InputError: the macro is not bound, and no default is given.
    """
    if name not in _MACRO.findall(self.text):
      if default is gin.REQUIRED:
        raise InputError(f"the configuration sets no {name}")
      return default
    return gin.query_parameter(f"{name}/macro.value")

  def job(self, **arguments: Any) -> Any:
    """Calls JOB with these arguments in addition to the bound ones."""
    function = self._reference().configurable.wrapper
    with missing_values():
      return function(**arguments)

  def arguments(self) -> dict[str, Any]:
    """Returns JOB's arguments by name: its defaults and gin's bindings."""
    reference = self._reference()
    function = inspect.unwrap(reference.configurable.wrapped)
    defaults = {
      name: parameter.default
      for name, parameter in inspect.signature(function).parameters.items()
      if parameter.default is not inspect.Parameter.empty
    }
    with missing_values():
      bound = gin.get_bindings(reference.configurable.wrapper)
    return defaults | bound

  def _reference(self) -> Any:
    reference = self.macro("JOB")
    if not hasattr(getattr(reference, "configurable", None), "wrapper"):
      raise InputError(
        f"JOB = {reference!r} is not a reference to a function, such as"
        " @pretrain.pretrain"
      )
    return reference

  def write(self, folder: Path) -> None:
    """Writes config.gin, and operative_config.gin with all values used so far.

    Where an earlier start wrote another config.gin, each setting that has
    changed is printed, and added to changes.txt.

    Raises:
      StorageError: a file could not be written.
    """
    from infoxlm_jax.runtime.files import write_atomically

    before = folder / "config.gin"
    if before.exists():
      old = before.read_text(errors="replace")
      if lines := changes(old, self.text):
        print("changed since the last start:", *lines, sep="\n  ")
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        text = "".join(f"{when}  {line}\n" for line in lines)
        told = folder / "changes.txt"
        earlier = told.read_text(errors="replace") if told.exists() else ""
        write_atomically(told, earlier + text)
    write_atomically(folder / "config.gin", self.text)
    write_atomically(
      folder / "operative_config.gin", gin.operative_config_str()
    )


def load(
  files: Sequence[str],
  overrides: Sequence[str],
  search: Sequence[str] = (),
  optional: Sequence[str] = (),
  allow_imports: Sequence[str] = (),
) -> Configuration:
  """Parses gin files and command-line overrides.

  Clears the configuration of an earlier call in this process.

  Args:
    files: names of gin files, searched for in the current folder, in `search`
      and in this project's own folder.
    overrides: arguments such as "--gin.STEPS=100".
    search: more folders for files and includes.
    optional: macros that become None if they are REQUIRED and have no value.
    allow_imports: prefixes of modules that the files may import besides this
      project's (gin_files.ALLOWED).

  Raises:
    InputError: a file is missing, imports what it may not, includes itself or
      is above a limit, a name is unknown (the message has the
      nearest known one), a line is broken (with file and line), a value is not
      of its parameter's type, or REQUIRED settings have no value (the message
      lists all of them).
  """
  if not files:
    for argument in overrides:
      _check_argument(argument, "")
    raise InputError(
      "no --gin_file given; for example --gin_file=gin/quickstart.gin"
    )
  gin.clear_config()
  for folder in [*search, str(resources.share_root())]:
    if folder not in _searched:
      gin.add_config_file_search_path(folder)
      _searched[folder] = None
  checker = Checker(["", *_searched], allow_imports)
  for name in files:
    path = str(_find(name, search))
    run_parser(functools.partial(checker.check_file, path), path)
    run_parser(functools.partial(gin.parse_config_file, path), path)
  known = gin.config_str()
  for argument in overrides:
    _check_argument(argument, known)
    name, binding = _binding(argument, known)
    flag = f"--gin.{name}"
    run_parser(functools.partial(checker.check_text, binding, flag), flag)
    run_parser(functools.partial(gin.parse_config, binding), flag, name)
  left_out = set(optional) & set(_REQUIRED.findall(gin.config_str()))
  for name in left_out:
    gin.parse_config(f"{name} = None")
  _check_values(gin.config_str())
  checker.check_functions()
  check_types(left_out)
  run_parser(gin.finalize, "configuration")
  return Configuration()


# Folders that gin searches, in its order.
_searched: dict[str, None] = {}


def changes(old: str, new: str) -> list[str]:
  """Settings that differ between two texts of a configuration, in words."""
  before, after = (
    {name: " ".join(value.split()) for name, value in _BOUND.findall(text)}
    for text in (old, new)
  )
  return [
    f"{name} was {before.get(name, 'not set')} and is now"
    f" {after.get(name, 'not set')}"
    for name in before | after
    if before.get(name) != after.get(name)
  ]


def plain(error: BaseException) -> str:
  """Returns an error's message without the call stack that gin appends."""
  return str(error).partition("\n  In call to configurable")[0]


def _find(name: str, search: Sequence[str]) -> Path:
  for folder in [".", *search]:
    if (Path(folder) / name).is_file():
      return Path(folder) / name
  path = resources.find(name)
  if not path.is_file():
    raise InputError(f"--gin_file={name}: {path} is no file")
  return path


def _check_argument(argument: str, known: str) -> None:
  """Raises InputError for an argument that is no flag.

  Args:
    argument: of the command line.
    known: the configuration of the gin files.
  """
  if _OVERRIDE.fullmatch(argument):
    return
  flag, _, value = argument.partition("=")
  if not flag.startswith("-"):
    hint = f"; did you mean --gin_file={argument}?"
    hint = hint if argument.endswith(".gin") else ""
  elif flag.startswith("--gin."):
    hint = f"; write {flag}=VALUE, without spaces around ="
  else:
    name = flag.lstrip("-").replace("-", "_")
    hint = _setting(name, known, value, nearest(flag, _FLAGS))
  raise InputError(f"unknown argument {argument!r}{hint} (see --help)")


def _setting(name: str, known: str, value: str, near: str) -> str:
  """A question with the setting that is meant by a name; "" if none is.

  Args:
    name: as it was given.
    known: the configuration of the gin files.
    value: that was given.
    near: a question with the nearest name, which is asked unless a macro has
      the given name in other letters.
  """
  setting = name.upper()
  if setting not in _MACRO.findall(known):
    setting = "" if near else with_parameter(name, known)
  return f"; did you mean --gin.{setting}={value}?" if setting else near


def _binding(argument: str, known: str) -> tuple[str, str]:
  match = _OVERRIDE.fullmatch(argument)
  assert match, argument
  name, value = match.groups()
  macros = _MACRO.findall(known)
  if re.fullmatch(r"\w+", name) and name not in macros:
    hint = _setting(name, known, value, nearest(name, macros))
    raise InputError(f"--gin.{name}: no such setting{hint}")
  return name, f"{name} = {_literal(value)}"


def _literal(value: str) -> str:
  if value.startswith(("@", "%", "{", "[", "(")):
    return value
  try:
    ast.literal_eval(value)
  except (ValueError, SyntaxError):
    return repr(value)
  return value


def _check_values(text: str) -> None:
  """Raises InputError for missing values, unset macros, numbers as paths."""
  missing = _REQUIRED.findall(text)
  if missing:
    flags = " ".join(f"--gin.{name}=..." for name in missing)
    raise InputError(f"these settings have no value yet: add {flags}")
  macros = set(_MACRO.findall(text))
  code = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"|#.*", "", text)
  used = set(re.findall(r"%([A-Z][A-Z0-9_]*)", code))
  if unset := sorted(used - macros):
    flags = " ".join(
      f"--gin.{name}=...{nearest(name, macros)}" for name in unset
    )
    raise InputError(
      f"{', '.join('%' + name for name in unset)} used but set nowhere: set"
      f" {flags}"
    )
  for name in sorted(macros & set(_PATHS)):
    value = gin.query_parameter(f"{name}/macro.value")
    if isinstance(value, int | float):
      raise InputError(
        f"{name} = {value} is a number, not a path; a path that looks like a"
        f" number needs quotes: --gin.{name}='\"{value}\"'"
      )
