"""Looks through gin files before gin parses them: parsing imports modules.

A gin file may import any module, and importing runs it. So the files, with
all that they include, are read here first, as text and within limits: imports
must be of an allow-list, and no file may include itself.
"""

import io
import os
from collections.abc import Iterable, Sequence
from typing import Any

import gin.config as gin
import gin.config_parser as config_parser

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import limits, read_files

# Packages whose modules every gin file may import.
ALLOWED = ("__gin__", "infoxlm_jax")


class Checker:
  """Checks gin files and lines of one command.

  Args:
    places: folders in which gin looks for a name that is no absolute path, in
      its order; "" is the current one.
    allowed: prefixes of modules that may be imported besides ALLOWED:
      "my_package" allows my_package and my_package.models, not my_package2.
  """

  def __init__(self, places: Iterable[str], allowed: Sequence[str]):
    self._places = list(places)
    self._allowed = (*ALLOWED, *allowed)
    self._files = 0

  def check_file(self, name: str, outer: Sequence[str] = ()) -> None:
    """Checks a file and those that it includes.

    Args:
      name: of the file; one that does not exist is left for gin to report.
      outer: the files that include it, the outermost first.

    Raises:
      InputError: an import that is not allowed; a file that includes itself,
        is too large, no regular file or not UTF-8; or too many files.
      SyntaxError, tokenize.TokenError, RecursionError, MemoryError: as gin's
        parser raises them.
    """
    path = self._find(name)
    if path is None:
      return
    real = os.path.realpath(path)
    chain = [*outer, path]
    if real in map(os.path.realpath, outer):
      raise InputError(
        f"{outer[-1]} includes {name}, which leads to it again"
        f" ({' -> '.join(chain)}): remove one of these includes."
      )
    limits.NESTING.check(len(chain), f"{path}: gin files that include another")
    self._files += 1
    limits.INCLUDES.check(self._files, path)
    self._check(read_files.read_text(path, limits.GIN), path, chain)

  def check_text(self, text: str, where: str) -> None:
    """Checks a line of gin, as `check_file` does the lines of a file."""
    self._check(text, where, ())

  def check_functions(self) -> None:
    """Checks the functions and classes that the parsed files use.

    A name is a path of attributes, so it can lead out of the module that was
    imported: resources.os.system.

    Raises:
      InputError: one that is defined in no allowed module.
    """
    used = [gin._REGISTRY[selector] for _, selector in gin._CONFIG]
    used += [ref.configurable for ref in gin.iterate_references(gin._CONFIG)]
    for configurable in used:
      home = getattr(configurable.wrapped, "__module__", None) or "builtins"
      if configurable.import_source is not None and not self._allows(home):
        name = configurable.selector
        raise self._refused(f"the gin files name {name}, of", home)

  def _check(self, text: str, where: str, chain: Sequence[str]) -> None:
    stream = io.StringIO(text)
    if chain:  # gin's errors name it
      stream.name = where
    for statement in config_parser.ConfigParser(stream, _Nothing()):
      if isinstance(statement, config_parser.ImportStatement):
        if not self._allows(statement.module):
          line = statement.location.line_num
          raise self._refused(
            f"{where}, line {line}: imports", statement.module
          )
      elif isinstance(statement, config_parser.IncludeStatement):
        self.check_file(statement.filename, chain)

  def _allows(self, module: str) -> bool:
    return any(
      module == prefix or module.startswith(f"{prefix}.")
      for prefix in self._allowed
    )

  def _refused(self, what: str, module: str) -> InputError:
    package = module.partition(".")[0]
    return InputError(
      f"{what} the module {module}, and gin files may use only modules of"
      f" {', '.join(self._allowed[1:])}: importing a module runs it. If you"
      f" trust this one, allow it: --gin_allow_imports={package}"
    )

  def _find(self, name: str) -> str | None:
    places = [""] if os.path.isabs(name) else self._places
    for place in places:
      path = os.path.join(place, name)
      if os.path.isfile(path):
        return path
    return None


class _Nothing(config_parser.ParserDelegate):
  """Makes nothing of references and macros: only statements count here."""

  def configurable_reference(self, scoped_name: str, evaluate: bool) -> Any:
    return None

  def macro(self, name: str) -> Any:
    return None
