"""JSON lines: an object on each line, with a field for each text."""

import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from infoxlm_jax.data.corpora.file_names import (
  check_language,
  pair_of,
  plain_name,
  stem,
)
from infoxlm_jax.data.corpora.open_files import read_lines
from infoxlm_jax.data.languages import WORDS, is_language
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import limits, read_files

Pair = tuple[str, str]


def is_jsonl(path: Path, format: str | None) -> bool:
  """Whether a file holds JSON lines: by `format`, or by its name if None."""
  if format is not None:
    return format == "jsonl"
  return plain_name(path).endswith((".jsonl", ".ndjson", ".json"))


def read_json_lines(
  path: Path,
  language: str | None,
  text_field: str,
  language_field: str | None,
) -> Iterator[dict[str, str]]:
  """Yields {"text", "language"} of each line that is not only white space.

  Args:
    path: the file, plain or compressed.
    language: of all lines; None takes `language_field` of each.
    text_field, language_field: names of the fields.

  Raises:
    InputError: see `read_lines`; a line that is no JSON object or has no such
      field, or a field that is no text.
  """
  for number, line in read_lines(path):
    if not line.strip():
      continue
    where = f"{path}, line {number}"
    fields = _parsed(line, where)
    text = _field(fields, text_field, "text_field", where)
    if language is not None:
      yield {"text": text, "language": language}
      continue
    assert language_field
    code = _field(fields, language_field, "language_field", where)
    yield {"text": text, "language": check_language(code, where)}


def read_pairs(
  path: Path,
  columns: Sequence[str] | Sequence[int] | None,
  languages: Sequence[str] | None,
) -> Iterator[tuple[Pair, str, str]]:
  """Yields (languages, text, text) of each line that is not only white space.

  The texts are fields of the line's object, {"en": "...", "fr": "..."}, or of
  its field "translation", as data sets of translations have them. A field that
  is null or not there is an empty text.

  Args:
    path: the file, plain or compressed.
    columns: names of the two fields; None: the languages.
    languages: of the two; None takes `columns`, where they are languages, or
      those in the file's name, or else the only two fields of the first line
      that are languages.

  Raises:
    InputError: see `read_lines`; a line that is no JSON object, a first line
      that tells no two fields, or a field that is no text.
  """
  names: Sequence[str] | None = None
  pair: Pair | None = None
  for number, line in read_lines(path):
    if not line.strip():
      continue
    where = f"{path}, line {number}"
    fields = _parsed(line, where)
    inner = fields.get("translation")
    fields = inner if isinstance(inner, dict) else fields
    if names is None or pair is None:
      names, pair = _names(fields, path, columns, languages, where)
    texts = [
      "" if fields.get(name) is None else _field(fields, name, "columns", where)
      for name in names
    ]
    yield pair, texts[0], texts[1]
  if pair is None:
    raise InputError(f"{path} has only lines of white space.")


def _names(
  fields: dict[str, Any],
  path: Path,
  columns: Sequence[str] | Sequence[int] | None,
  languages: Sequence[str] | None,
  where: str,
) -> tuple[Sequence[str], Pair]:
  """The two fields of texts, and their languages, by a file's first line."""
  names = columns or languages or pair_of(stem(path))
  if names is None or (not columns and not any(n in fields for n in names)):
    texts = [name for name, value in fields.items() if isinstance(value, str)]
    named = [n for n in texts if is_language(n) and n not in WORDS]
    if len(named) == 3 and "id" in named:  # a number, not Indonesian
      named.remove("id")
    names = names if names and len(named) != 2 else named
  names = [str(name) for name in names]
  missing = [name for name in names if name not in fields]
  if len(names) != 2 or missing:
    what = f"no field {missing[0]!r}" if missing else "which two fields?"
    raise InputError(
      f"{where}: {what} The line has {', '.join(fields) or 'none'}. Set columns"
      " (--gin.COLUMNS=\"('en', 'fr')\") to the two with text."
    )
  if languages:
    return names, (languages[0], languages[1])
  are = all(is_language(name) and name not in WORDS for name in names)
  pair = (names[0], names[1]) if are else pair_of(stem(path))
  if pair is None:
    raise InputError(
      f"{where}: the fields {' and '.join(names)} are no languages. Set"
      " languages (--gin.LANGUAGES=\"('en', 'fr')\")."
    )
  return names, pair


def _parsed(line: str, where: str) -> dict[str, Any]:
  try:
    fields = json.loads(line)
  except RecursionError:
    raise limits.NESTING.exceeded(where) from None
  except ValueError as error:
    place = f" at place {error.pos + 1}" if hasattr(error, "pos") else ""
    what = getattr(error, "msg", error)
    raise InputError(
      f"{where}: broken JSON{place} of the line: {what}. Each line must be one"
      " whole JSON object."
    ) from None
  read_files.check_nesting(fields, line, where)
  if not isinstance(fields, dict):
    raise InputError(
      f"{where}: {line.strip()[:40]!r} is no JSON object; each line must be"
      ' one, such as {"text": "..."}.'
    )
  return fields


def _field(fields: dict[str, Any], name: str, option: str, where: str) -> str:
  if name not in fields:
    if name == "text" and isinstance(fields.get("translation"), dict):
      raise InputError(
        f"{where}: a pair of translations, not a text. Read the file as PAIRS,"
        " or with gin/prepare/tsv_pairs.gin."
      )
    near = difflib.get_close_matches(name, fields, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(
      f"{where}: no field {name!r} among {', '.join(fields) or 'none'}.{hint}"
      f" Set {option} to the right one."
    )
  value = fields[name]
  if not isinstance(value, str):
    raise InputError(
      f"{where}: field {name!r} is {json.dumps(value)[:40]}, no text. Set"
      f" {option} to a field of text, or correct the line."
    )
  if not value.isascii():
    try:
      value.encode()
    except UnicodeEncodeError as error:
      raise InputError(
        f"{where}: field {name!r} has half a surrogate pair"
        f" ({value[error.start]!a}), which is no character. Correct the line."
      ) from None
  return value
