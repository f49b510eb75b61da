"""Gin, with errors that a person can act on (t5x's conventions).

Run files bind UPPER_CASE macros; `--gin.NAME=value` overrides them. A value
that is no Python literal and does not start with @ or % is text, so paths need
no quotes.
"""

import ast
import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import gin

from infoxlm_jax import resources
from infoxlm_jax.errors import InputError

_MACRO = re.compile(r"^([A-Z][A-Z0-9_]*) = ", re.MULTILINE)
_REQUIRED = re.compile(r"^([A-Z][A-Z0-9_]*) = %gin\.REQUIRED", re.MULTILINE)
_PARAMETER = re.compile(r"^(\S+\.\w+) = ", re.MULTILINE)
_OVERRIDE = re.compile(r"--gin\.([^=]+)=(.*)", re.DOTALL)


class Configuration:
  """A parsed configuration: its text, its macros and its job."""

  def __init__(self) -> None:
    self.text = gin.config_str()

  def macro(self, name: str) -> Any:
    """The value that a macro is bound to."""
    if name not in _MACRO.findall(self.text):
      raise InputError(f"the configuration sets no {name}")
    return gin.query_parameter(f"{name}/macro.value")

  def job(self, **arguments: Any) -> Any:
    """Runs JOB with these arguments besides the bound ones."""
    reference = self.macro("JOB")
    try:
      function = reference.configurable.wrapper
    except AttributeError:
      raise InputError(
        f"JOB = {reference!r} is not a reference to a function, such as"
        " @train.pretrain"
      ) from None
    try:
      return function(**arguments)
    except (RuntimeError, TypeError, ValueError) as error:
      # Only what gin says of the configuration itself; bugs stay as they are.
      text = str(error)
      if "Required bindings" in text or "UNDEFINED" in text:
        raise InputError(_first_line(text)) from None
      raise

  def write(self, folder: Path) -> None:
    """config.gin, and operative_config.gin: what was really used so far."""
    from infoxlm_jax.metrics import write_atomically

    write_atomically(folder / "config.gin", self.text)
    write_atomically(
      folder / "operative_config.gin", gin.operative_config_str()
    )


def load(
  files: Sequence[str], overrides: Sequence[str], search: Sequence[str] = ()
) -> Configuration:
  """Parses gin files and overrides of the command line.

  Args:
    files: names of gin files, found in the current folder, `search`, and this
      project's own.
    overrides: arguments such as "--gin.STEPS=100".
    search: more folders for files and includes.

  Raises:
    InputError: a missing file, an unknown name (with the nearest known one), a
      broken line (with file and line), or REQUIRED macros that nobody set
      (all of them at once).
  """
  if not files:
    raise InputError(
      "no --gin_file given; for example --gin_file=gin/quickstart.gin"
    )
  for folder in [*search, str(resources.share_root())]:
    gin.add_config_file_search_path(folder)
  paths = [_find(name, search) for name in files]
  _parse(lambda: gin.parse_config_files_and_bindings(
    [str(path) for path in paths], [], finalize_config=False
  ))
  known = gin.config_str()
  bindings = [_binding(argument, known) for argument in overrides]
  for name, binding in bindings:
    _parse(lambda binding=binding: gin.parse_config(binding), name, known)
  gin.finalize()
  config = Configuration()
  missing = _REQUIRED.findall(config.text)
  if missing:
    flags = " ".join(f"--gin.{name}=..." for name in missing)
    raise InputError(f"these settings have no value yet: add {flags}")
  _check_references(config.text)
  return config


def _find(name: str, search: Sequence[str]) -> Path:
  for folder in search:
    if (Path(folder) / name).is_file():
      return Path(folder) / name
  return resources.find(name)


def _binding(argument: str, known: str) -> tuple[str, str]:
  match = _OVERRIDE.fullmatch(argument)
  if not match:
    near = _near(argument.split("=")[0], ["--gin_file", "--dry_run", "--gin."])
    raise InputError(f"unknown argument {argument!r}{near} (see --help)")
  name, value = match.groups()
  macros = _MACRO.findall(known)
  if re.fullmatch(r"\w+", name) and name not in macros:
    raise InputError(f"--gin.{name}: no such setting{_near(name, macros)}")
  return name, f"{name} = {_literal(value)}"


def _literal(value: str) -> str:
  if value.startswith(("@", "%", "{", "[", "(")):
    return value
  try:
    ast.literal_eval(value)
  except (ValueError, SyntaxError):
    return repr(value)
  return value


def _parse(parse: Callable[[], Any], name: str = "", known: str = "") -> None:
  try:
    parse()
  except (
    ValueError,
    TypeError,
    NameError,
    SyntaxError,
    ImportError,
    AttributeError,
    OSError,
  ) as error:
    near = _near(name, _PARAMETER.findall(known)) if name else ""
    where = f"--gin.{name}: " if name else ""
    raise InputError(f"{where}{_first_line(str(error))}{near}") from None


def _check_references(text: str) -> None:
  """Every %MACRO that is used must be set somewhere."""
  macros = set(_MACRO.findall(text))
  code = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"|#.*", "", text)
  for name in sorted(set(re.findall(r"%([A-Z][A-Z0-9_]*)", code)) - macros):
    raise InputError(
      f"%{name} is used but set nowhere{_near(name, macros)}; set it with"
      f" --gin.{name}=..."
    )


def _near(name: str, known: Iterable[str]) -> str:
  found = difflib.get_close_matches(name, list(known), 1, 0.6)
  return f"; did you mean {found[0]}?" if found else ""


def _first_line(text: str) -> str:
  """gin puts the place on a line after the message: both, on one."""
  lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
  return " ".join(lines)
