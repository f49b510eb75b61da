"""Reads small files that anybody may have written, and lines of large ones.

Only regular files are opened: a device such as /dev/zero has no end, and a
FIFO may never begin. What is read is bounded by a limit of limits.py. Whatever
the bytes are, the only exception is InputError.
"""

import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import IO, Any

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import limits
from infoxlm_jax.runtime.limits import Limit

Name = str | os.PathLike[str]

# Bytes of a file's name in Linux's and macOS's file systems.
_NAME_BYTES = 255


def descriptor(path: Name, flags: int = os.O_RDONLY) -> int:
  """Opens a regular file; it can be the `opener` of Python's `open`.

  Raises:
    InputError: it is a folder, a device, a FIFO or a socket.
    OSError: it cannot be opened.
  """
  # Without O_NONBLOCK the opening of a FIFO would wait for its writer.
  opened = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
  mode = os.fstat(opened).st_mode
  if not stat.S_ISREG(mode):
    os.close(opened)
    kind = "a folder" if stat.S_ISDIR(mode) else "a device, FIFO or socket"
    raise InputError(
      f"{path} is {kind}, but only regular files are read: they have a size."
      " Give a file; what a program prints has to be written to one first."
    )
  return opened


def open_regular(path: Name) -> io.BufferedReader:
  """Opens a regular file for reading bytes, with a buffer.

  Raises:
    InputError, OSError: see `descriptor`; or a null byte in the path.
  """
  try:
    return io.BufferedReader(io.FileIO(os.fspath(path), opener=descriptor))
  except ValueError as error:
    raise InputError(f"{os.fspath(path)!r} is no path: {error}.") from None


def read_regular(path: Name, limit: Limit = limits.FILE) -> bytes:
  """A whole file, for callers with words of their own for a missing one.

  Raises:
    InputError: it is no regular file, or is too large.
    OSError: it cannot be read.
  """
  most = limit.value
  with open_regular(path) as file:
    if os.fstat(file.fileno()).st_size > most:
      raise limit.exceeded(path)
    content = file.read(most + 1)  # it may grow meanwhile
  if len(content) > most:
    raise limit.exceeded(path)
  return content


def sha256_of(path: Name) -> str:
  """Hex digest of a file's bytes, for callers with words of their own.

  Raises:
    InputError, OSError: see open_regular.
  """
  with open_regular(path) as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def read_bytes(path: Name, limit: Limit = limits.FILE) -> bytes:
  """A whole file.

  Raises:
    InputError: it cannot be read, is no regular file, or is too large.
  """
  try:
    return read_regular(path, limit)
  except OSError as error:
    raise InputError(f"cannot read {path}: {error.strerror}.") from error


def as_text(content: bytes, where: object) -> str:
  """The text of UTF-8 bytes, without a byte order mark.

  Raises:
    InputError: they are not UTF-8.
  """
  try:
    return content.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise InputError(
      f"{where}: byte {content[error.start]:#04x} at place {error.start + 1}"
      " is not UTF-8: the file is damaged or of another kind. Copy it again,"
      " or convert it to UTF-8."
    ) from None


def read_text(path: Name, limit: Limit = limits.FILE) -> str:
  """A whole file of UTF-8.

  Raises:
    InputError: see `read_bytes`, or it is not UTF-8.
  """
  return as_text(read_bytes(path, limit), path)


def parse_json(content: bytes | str, where: object) -> Any:
  """The value in a piece of JSON.

  Args:
    content: the JSON, in UTF-8 where it is bytes.
    where: file and place, for messages.

  Raises:
    InputError: it is not UTF-8, not JSON, or nested too deeply.
  """
  text = as_text(content, where) if isinstance(content, bytes) else content
  try:
    value = json.loads(text)
  except RecursionError:
    raise limits.NESTING.exceeded(where) from None
  except ValueError as error:
    raise InputError(
      f"{where} is not JSON ({error}): it is damaged, truncated, or another"
      " kind of file."
    ) from None
  check_nesting(value, text, where)
  return value


def check_nesting(value: Any, text: str, where: object) -> None:
  """Raises InputError where a value of JSON is nested too deeply.

  Args:
    value: the value.
    text: its JSON; where that has few brackets there is nothing to look at.
    where: file and place, for the message.
  """
  most = limits.NESTING.value
  if text.count("[") + text.count("{") <= most:
    return
  level = [value]
  for _ in range(most):
    level = [
      inner
      for outer in level
      if isinstance(outer, list | dict)
      for inner in (outer.values() if isinstance(outer, dict) else outer)
      if isinstance(inner, list | dict)
    ]
    if not level:
      return
  raise limits.NESTING.exceeded(where)


def read_json(path: Name, limit: Limit = limits.JSON) -> Any:
  """The value in a JSON file.

  Raises:
    InputError: see `read_bytes` and `parse_json`.
  """
  return parse_json(read_bytes(path, limit), path)


def read_object(
  path: Name,
  needs: Mapping[str, type | tuple[type, ...]] | None = None,
  limit: Limit = limits.JSON,
) -> dict[str, Any]:
  """The object in a JSON file.

  Args:
    path: the file.
    needs: types of the fields that it must have, by name.
    limit: of its size.

  Raises:
    InputError: see `read_json`; it holds something else than an object, or a
      field is missing or of another type.
  """
  return check_object(read_json(path, limit), path, needs or {})


def check_object(
  value: Any, where: object, needs: Mapping[str, type | tuple[type, ...]]
) -> dict[str, Any]:
  """The value, if it is an object with these fields.

  Raises:
    InputError: see `read_object`.
  """
  if not isinstance(value, dict):
    raise InputError(
      f"{where} holds {_kind(value)}, no JSON object: it is damaged or another"
      " kind of file."
    )
  for name, kinds in needs.items():
    if name not in value:
      raise InputError(
        f"{where} has no field {name!r}: it is damaged or another kind of file."
      )
    field = value[name]
    # True is an int for Python, and no number for JSON.
    if not isinstance(field, kinds) or (
      isinstance(field, bool) and kinds is not bool
    ):
      raise InputError(
        f"{where}: the field {name!r} is {_kind(field)}: the file is damaged or"
        " of another kind."
      )
  return value


def _kind(value: Any) -> str:
  kinds = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}
  return kinds.get(type(value), "null" if value is None else "a number")


def lines(file: IO[bytes], where: object) -> Iterator[bytes]:
  r"""The lines of a file, each with its \n; the last may have none.

  Raises:
    InputError: a line is too long.
  """
  most = limits.LINE.value
  number = 0
  # A line may have exactly `most` bytes before its \n.
  while line := file.readline(most + 1):
    number += 1
    if len(line) > most and not line.endswith(b"\n"):
      raise limits.LINE.exceeded(f"{where}, line {number}")
    yield line


def check_inside(name: object, where: object) -> str:
  """The name of a file, if it is a relative path that stays in its folder.

  Args:
    name: as a manifest, index or archive has it, with slashes.
    where: the file that has it, for messages.

  Raises:
    InputError: it is no text, is empty, absolute or too long, or has a part
      that is empty, "." or "..".
  """
  if not isinstance(name, str):
    raise InputError(
      f"{where}: {str(name)[:80]!r} is no name of a file: it is damaged."
    )
  parts = name.split("/")
  path = PurePosixPath(name)
  try:
    long = any(len(part.encode()) > _NAME_BYTES for part in parts)
  except UnicodeEncodeError:  # half a surrogate pair
    long = True
  if (
    path.is_absolute()
    or long
    or any(part in ("", ".", "..") for part in parts)
    or not name.isprintable()
    or "\\" in name
  ):
    raise InputError(
      f"{where}: names the file {name[:80]!r}, which is not the name of a file"
      " in its folder. Nothing outside that folder is read: the list of files"
      " is damaged, or was changed on purpose."
    )
  return name
