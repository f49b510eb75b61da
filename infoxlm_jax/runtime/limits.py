"""The most that a reader takes from one input, whoever wrote the input.

A reader needs time and memory for what its input holds, and never more than
the limits below allow. They are far above what honest files need. Each has an
environment variable that sets another number, as worker processes and console
scripts see it, too; the error of a limit names it.
"""

import dataclasses
import os

from infoxlm_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Limit:
  """The most of one thing.

  Attributes:
    variable: name of the environment variable that sets another number.
    default: without that variable.
    unit: of the number, for messages: "bytes in a line".
  """

  variable: str
  default: int
  unit: str

  @property
  def value(self) -> int:
    """The number that holds now.

    Raises:
      InputError: the variable is set to something else than a number above 0.
    """
    given = os.environ.get(self.variable, "")
    if not given:
      return self.default
    if not (given.isascii() and given.isdecimal() and 0 < int(given) < 1 << 60):
      raise InputError(
        f"{self.variable}={given!r} is not a whole number above 0. Set it to"
        f" the most {self.unit}, or unset it for {self.default:,}."
      )
    return int(given)

  def check(self, count: int, where: object) -> None:
    """Raises InputError if `count` is above the limit.

    Args:
      count: how much there is.
      where: file and place, for the message.
    """
    if count > self.value:
      raise self.exceeded(where)

  def exceeded(self, where: object) -> InputError:
    """The error of an input that is above the limit."""
    return InputError(
      f"{where}: more than {self.value:,} {self.unit}, which is the limit. The"
      " file is damaged or of another kind; if it is right, set"
      f" {self.variable} in the environment to a higher number."
    )


LINE = Limit("INFOXLM_MAX_LINE_BYTES", 16 << 20, "bytes in a line or text")
DOCUMENT = Limit("INFOXLM_MAX_DOCUMENT_BYTES", 64 << 20, "bytes in a document")
JSON = Limit("INFOXLM_MAX_JSON_BYTES", 64 << 20, "bytes of JSON")
FILE = Limit(
  "INFOXLM_MAX_FILE_BYTES", 256 << 20, "bytes in a file that is read whole"
)
HEADER = Limit(
  "INFOXLM_MAX_HEADER_BYTES", 16 << 20, "bytes in a safetensors header"
)
NESTING = Limit("INFOXLM_MAX_NESTING", 64, "levels of nesting")
IDS = Limit("INFOXLM_MAX_TOKEN_IDS", 10_000_000, "token ids")
TAG = Limit(
  "INFOXLM_MAX_TAG_BYTES", 1 << 20, "bytes in a tag, comment or declaration"
)
VARIANTS = Limit("INFOXLM_MAX_VARIANTS", 256, "texts in a translation unit")
WINDOW = Limit(
  "INFOXLM_MAX_WINDOW_BYTES", 1 << 27, "bytes of memory for decompression"
)
GIN = Limit("INFOXLM_MAX_GIN_BYTES", 1 << 20, "bytes in a gin file")
INCLUDES = Limit("INFOXLM_MAX_GIN_FILES", 1000, "gin files in one command")
VERIFIED = Limit(
  "INFOXLM_MAX_VERIFIED_BYTES", 16 << 30, "bytes of records to compare"
)
