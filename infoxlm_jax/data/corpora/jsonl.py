"""JSON lines: an object on each line, with a field that holds a text."""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infoxlm_jax.data.corpora.file_names import check_language, plain_name
from infoxlm_jax.data.corpora.open_files import read_lines
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import limits, read_files


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
