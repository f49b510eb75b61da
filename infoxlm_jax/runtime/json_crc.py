"""A checksum inside a JSON object, so that one changed digit is noticed.

The last field, "crc", is the CRC-32 of the other fields as JSON, a whole
number. Objects that older versions wrote have none, and are read without.
"""

import json
import os
import zlib
from collections.abc import Mapping
from typing import Any

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import read_files

CRC = "crc"


def with_crc(fields: Mapping[str, Any]) -> dict[str, Any]:
  """The fields and, last, their checksum."""
  return {**fields, CRC: _crc(fields)}


def without_crc(fields: Mapping[str, Any], where: object) -> dict[str, Any]:
  """The fields without their checksum, once it was compared.

  Args:
    fields: parsed JSON.
    where: file and place, for the message.

  Raises:
    InputError: the fields are not those that were written.
  """
  own = dict(fields)
  if CRC in own and own.pop(CRC) != _crc(own):
    raise InputError(
      f"{where} is damaged: its values are not those that were written (its"
      " checksum differs)."
    )
  return own


def read_checked(path: str | os.PathLike[str]) -> dict[str, Any]:
  """The object in a JSON file, compared with its checksum and without it.

  Raises:
    InputError: the file cannot be read, holds no object, or is damaged.
  """
  return without_crc(read_files.read_object(path), path)


def _crc(fields: Mapping[str, Any]) -> int:
  return zlib.crc32(json.dumps(fields).encode())
