"""Errors that a person can act on, and the exit codes they end a job with."""

import difflib
import os
import sys
from collections.abc import Callable, Collection, Iterable


class InputError(Exception):
  """Bad input or configuration: exit code 2, nothing written.

  The message is one paragraph: which file, line or parameter, what was found
  there, and what to do about it.
  """


class StorageError(Exception):
  """Storage failed during a run (disk full, folder gone): exit code 3."""


def did_you_mean(word: object, known: Iterable[str]) -> str:
  """A question with the known word nearest to this one; "" if none is near."""
  near = difflib.get_close_matches(str(word), list(known), 1, 0.5)
  return f"; did you mean {near[0]!r}?" if near else ""


def check_choice(name: str, value: object, known: Collection[str]) -> None:
  """Raises InputError for a value that is none of the known ones.

  Args:
    name: of the option, for the message.
    value: what it is set to.
    known: the values it may have.
  """
  if value in known:
    return
  raise InputError(
    f"{name} = {value!r} is not one of {', '.join(known)}"
    f"{did_you_mean(value, known)}"
  )


def exit_code(
  command: Callable[[], object],
  in_words: Callable[[Exception], str] = str,
) -> int:
  """Runs a command; its errors become a line and a number.

  Args:
    command: what to run.
    in_words: the line of an error.

  Returns:
    0 done, 2 bad input, 3 storage failed, 130 Ctrl-C.
  """
  try:
    command()
  except (InputError, StorageError) as error:
    print(f"error: {in_words(error)}", file=sys.stderr)
    return 2 if isinstance(error, InputError) else 3
  except KeyboardInterrupt:
    return 130
  except BrokenPipeError:  # whoever read the output has left, as `head` does
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  return 0
