"""Errors that a person can act on, and the exit codes they end a job with."""


class InputError(Exception):
  """Bad input or configuration: exit code 2, nothing written.

  The message is one paragraph: which file, line or parameter, what was found
  there, and what to do about it.
  """


class StorageError(Exception):
  """Storage failed during a run (disk full, folder gone): exit code 3."""
