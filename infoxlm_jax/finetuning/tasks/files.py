"""What tasks of a person's own files share: languages, and a part for dev."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from infoxlm_jax.data.corpora.file_names import language_of
from infoxlm_jax.data.corpora.open_files import find_files
from infoxlm_jax.data.sampler import permute
from infoxlm_jax.errors import InputError

# Where no dev files are given: this part of the training examples of a
# language, at most so many, is held out.
_HELD_OUT, _MOST_HELD_OUT = 0.1, 2000


class Named(Protocol):
  """What was read of a file, whose name `where` is."""

  @property
  def where(self) -> str:
    """The file, for messages."""


N = TypeVar("N", bound=Named)


def by_language(
  macro: str, pattern: str, read: Callable[[Path], N]
) -> dict[str, N]:
  """Reads files, a language each, which their names hold.

  Args:
    macro: that the pattern is the value of, for messages.
    pattern: path or glob, or several with commas between them.
    read: of one file.

  Raises:
    InputError: two files are of one language, or see language_of and `read`.
  """
  out: dict[str, N] = {}
  for path in find_files(pattern):
    language = language_of(path)
    if language in out:
      raise InputError(
        f"{macro}: {out[language].where} and {path} are both of {language!r};"
        " give one file for a language"
      )
    out[language] = read(path)
  return out


def held_out(count: int) -> tuple[np.ndarray, np.ndarray]:
  """Numbers of the examples to train on, and of those that choose the model.

  Args:
    count: of a language's examples, which are divided by a fixed order.
  """
  held = min(max(1, round(_HELD_OUT * count)), _MOST_HELD_OUT)
  order = permute(np.arange(count), count, 0)
  return np.sort(order[held:]), np.sort(order[:held])
