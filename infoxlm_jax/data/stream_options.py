"""Checks the options of streams; errors name the parameter."""

from collections.abc import Iterable, Sequence
from typing import Any

from infoxlm_jax.data.packing import MIN_LENGTH
from infoxlm_jax.errors import InputError, did_you_mean

MIXUPS = ("none", "adjacent", "disjoint", "random")


def check_options(stream: Any, groups: int) -> None:
  """Raises InputError, naming the parameter, where options do not fit.

  Args:
    stream: one of the project's; of an AlternatingStream all its parts.
    groups: of the batch. Options that depend on rows are checked when the
      rows are chosen.
  """
  for part in getattr(stream, "streams", {}).values():
    check_options(part, groups)
  if hasattr(stream, "streams"):
    return
  name = type(stream).__name__
  for field in ("batch", "rows"):
    value = getattr(stream, field)
    if field == "rows" and value is None:
      continue
    if value < 1 or value % groups:
      raise InputError(
        f"{name}.{field} = {value} must be a positive multiple of the "
        f"{groups} groups: each group has its own share of items and rows."
      )
  if stream.row_length < MIN_LENGTH:
    raise InputError(
      f"{name}.row_length = {stream.row_length} must be at least {MIN_LENGTH}."
    )
  if stream.rows is not None:
    _check_rows(stream)
  if not 0 <= stream.alpha <= 1:
    raise InputError(f"{name}.alpha = {stream.alpha} is not between 0 and 1.")
  if stream.max_repeats is not None and not stream.max_repeats >= 1:
    raise InputError(
      f"{name}.max_repeats = {stream.max_repeats} must be at least 1, which "
      "draws each corpus in proportion to its size, or None for no limit."
    )
  if getattr(stream, "max_side", 1) < 1:
    raise InputError(f"{name}.max_side = {stream.max_side} must be at least 1.")
  if getattr(stream, "mixup", MIXUPS[0]) not in MIXUPS:
    raise InputError(
      f"{name}.mixup = {stream.mixup!r} is none of "
      f"{', '.join(map(repr, MIXUPS))}{did_you_mean(stream.mixup, MIXUPS)}."
    )


def rows_of(stream: Any) -> int:
  """The stream's rows, which must have been chosen.

  Raises:
    InputError: they are still to be chosen from the prepared data.
  """
  if stream.rows is None:
    raise InputError(
      f"{type(stream).__name__}.rows is None, to be chosen from the prepared "
      "data, which are not known here: give a number of rows, or the data."
    )
  return int(stream.rows)


def _check_rows(stream: Any) -> None:
  name = type(stream).__name__
  if stream.padded and stream.rows != stream.batch:
    raise InputError(
      f"{name}.padded puts one item in a row: set rows = batch = "
      f"{stream.batch} (rows is {stream.rows})."
    )
  if stream.batch * MIN_LENGTH > stream.rows * stream.row_length:
    raise InputError(
      f"{name}: batch = {stream.batch} items cannot fit into rows = "
      f"{stream.rows} of row_length = {stream.row_length}."
    )


def wanted_languages(
  stream: Any, languages: Sequence[str] | None, known: Iterable[str]
) -> set[str]:
  """The languages that take part.

  Args:
    stream: for its class's name in messages.
    languages: those named; None is all.
    known: the prepared ones.

  Raises:
    InputError: no language is prepared, or a named one is not.
  """
  names = sorted(known)
  if not names:
    raise InputError(
      f"{type(stream).__name__}: the prepared data hold no records for it "
      "(texts for TextStream, pairs for the others). Prepare them, or leave "
      "the stream out."
    )
  if languages is None:
    return set(names)
  for language in languages:
    if language not in names:
      raise InputError(
        f"{type(stream).__name__}.languages names {language!r}, which is not "
        f"among the prepared {', '.join(names)}{did_you_mean(language, names)}."
      )
  return set(languages)


def pair_names(pairs: Iterable[tuple[str, str]]) -> str:
  """Names of pair corpora for a message: en-de, en-fr."""
  return ", ".join("-".join(pair) for pair in pairs)
