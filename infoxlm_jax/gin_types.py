"""Checks bound values against the types of the parameters that they go to.

Gin passes on whatever it read: `=false` is text and counts as true, and text
where a number belongs fails wherever the number is used first. One check of all
values, before anything runs, finds both.
"""

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import gin.config as gin

from infoxlm_jax.errors import InputError

_WORDS = {
  "true": True,
  "yes": True,
  "on": True,
  "false": False,
  "no": False,
  "off": False,
  "none": None,
  "null": None,
}
_SIMPLE = (bool, int, float, str, type(None))
_NAMES = {
  bool: "True or False",
  int: "a whole number",
  float: "a number",
  str: "text",
  type(None): "None",
  dict: "names with values, {...}",
}


class _Place(NamedTuple):
  """Where a value is bound: the key in gin's configuration, and its name."""

  key: tuple[str, str]
  parameter: str
  name: str


def check_types(left_out: Collection[str] = ()) -> None:
  """Checks all values, and turns words such as false into what they mean.

  A word counts as True, False or None only where the parameter takes that and
  no text. Parameters without a type, or with another one than the simple ones
  and sequences of these, take anything.

  Args:
    left_out: macros that have no value, which nothing will read.

  Raises:
    InputError: names the setting, its value, and what it takes.
  """
  hints: dict[str, dict[str, Any]] = {}
  for key in list(gin._CONFIG):
    scope, selector = key
    function = gin._REGISTRY[selector].wrapped
    if selector == "gin.macro":
      continue
    if selector not in hints:
      hints[selector] = _hints(function)
    for parameter in list(gin._CONFIG[key]):
      if (hint := hints[selector].get(parameter)) is not None:
        short = ".".join(selector.split(".")[-2:])
        name = f"{scope}/{short}" if scope else short
        place = _Place(key, parameter, f"{name}.{parameter}")
        source, value = _source(place)
        if source.name not in left_out:
          _check(source, value, hint, place.name)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
  """Types of the parameters, as far as they can be read."""
  try:
    inside = function.__init__ if inspect.isclass(function) else function
    return typing.get_type_hints(inspect.unwrap(inside))
  except (NameError, TypeError, AttributeError):
    return {}


def _source(place: _Place) -> tuple[_Place, Any]:
  """The binding that a value comes from: the last of a chain of macros."""
  value = gin._CONFIG[place.key][place.parameter]
  while isinstance(value, gin.ConfigurableReference):
    key = value.config_key
    if key[1] != "gin.macro" or key not in gin._CONFIG:
      break
    place = _Place(key, "value", key[0])
    value = gin._CONFIG[key]["value"]
  return place, value


def _check(place: _Place, value: Any, hint: Any, parameter: str) -> None:
  allowed = _simple_types(hint)
  if allowed is None or isinstance(value, gin.ConfigurableReference):
    return
  if _fits(value, allowed):
    return
  if isinstance(value, str) and value.lower() in _WORDS:
    meant = _WORDS[value.lower()]
    if _fits(meant, allowed):
      gin._CONFIG[place.key][place.parameter] = meant
      return
  takes = " or ".join(_described(one) for one in allowed)
  via = "" if place.name == parameter else f" (it is {parameter})"
  hint_text = ""
  if isinstance(value, float) and value.is_integer() and int in allowed:
    hint_text = f"; write {int(value)}"
  elif isinstance(value, str) and value.isupper():
    hint_text = f"; the setting of that name is %{value}"
  raise InputError(
    f"{place.name} = {value!r}{via}: takes {takes}{hint_text}. Set it with"
    f" --gin.{place.name}=VALUE"
  )


def _simple_types(hint: Any) -> list[Any] | None:
  """The types that a hint allows; None where anything may be meant."""
  origin = typing.get_origin(hint)
  if origin in (typing.Union, types.UnionType):
    parts = [_simple_types(part) for part in typing.get_args(hint)]
    if any(part is None for part in parts):
      return None
    return [one for part in parts for one in part or ()]
  if hint is None:
    return [type(None)]
  if hint in _SIMPLE:
    return [hint]
  if origin in (Mapping, dict):
    return [dict]
  if origin in (Sequence, tuple, list):
    inner = [part for part in typing.get_args(hint) if part is not ...]
    parts = [_simple_types(part) for part in inner]
    if not inner or any(part is None for part in parts):
      return None
    return [("sequence", tuple(one for part in parts for one in part or ()))]
  return None


def _fits(value: Any, allowed: Sequence[Any]) -> bool:
  return any(_is(value, one) for one in allowed)


def _is(value: Any, one: Any) -> bool:
  if isinstance(one, tuple):
    # Some readers take one text with commas for several.
    if isinstance(value, str):
      return False
    return isinstance(value, list | tuple) and all(
      isinstance(part, gin.ConfigurableReference) or _fits(part, one[1])
      for part in value
    )
  if one is float:
    return isinstance(value, int | float) and not isinstance(value, bool)
  if one is int:
    return isinstance(value, int) and not isinstance(value, bool)
  return isinstance(value, one)


def _described(one: Any) -> str:
  if isinstance(one, tuple):
    inner = " or ".join(_described(part) for part in one[1])
    return f"a list of {inner}"
  return _NAMES[one]
