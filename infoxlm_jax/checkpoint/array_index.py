"""Reads the index of a checkpoint's arrays, before the arrays are read.

orbax reads all arrays at one time. If the index is damaged, the first of them
raises an error, and tensorstore prints a traceback for each of the others. So
the index is read alone first.
"""

import os
from pathlib import Path

import tensorstore

from infoxlm_jax.checkpoint.checksum_file import Damaged

_MANIFEST = "manifest.ocdbt"


def check(state: Path) -> None:
  """Reads the whole index, whose parts have checksums of their own.

  Args:
    state: folder of the arrays of one checkpoint.

  Raises:
    Damaged: the index cannot be read; the message has tensorstore's reason.
  """
  if not (state / _MANIFEST).is_file():  # without it orbax says one line itself
    return
  place = {"driver": "file", "path": os.path.abspath(state) + "/"}
  try:
    index = tensorstore.KvStore.open({"driver": "ocdbt", "base": place})
    index.result().list().result()
  except ValueError as error:
    reason = str(error).partition("\n")[0]
    raise Damaged(
      f"{state.parent}: the index of its arrays cannot be read: {reason}"
    ) from None
