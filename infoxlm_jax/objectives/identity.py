"""The options of an objective by which a run is known when it goes on."""

import dataclasses
import re
from typing import Any

# The queue may become longer or shorter on the way, see key_queue.reslot. The
# other two change how much memory the same update needs.
_CHANGEABLE = re.compile(r"\b(?:queue_size|logits_chunk)=\d+")
_REMAT = "remat"  # of EncoderConfig


def added_option(default: Any) -> Any:
  """A field for an option that an objective did not have from the start.

  `identity` leaves it out where it has its default, so that a run begun
  before the option existed goes on.
  """
  return dataclasses.field(
    default=default, repr=False, metadata={"identity": True}
  )


def identity(objective: Any) -> str:
  """The options of an objective by which a run knows it, as text.

  Weight and first update may change on the way, and so may fields that are
  neither in the repr nor an `added_option`.
  """
  lasting = dataclasses.replace(objective, weight=1.0, start_step=0)
  added = [
    f", {field.name}={getattr(objective, field.name)!r}"
    for field in dataclasses.fields(objective)
    if field.metadata.get("identity")
    and getattr(objective, field.name) != field.default
  ]
  return f"{repr(lasting)[:-1]}{''.join(added)})"


def comparable(setting: Any) -> Any:
  """A setting of identity.json without what may change between two starts."""
  if isinstance(setting, dict):
    return {
      name: comparable(value)
      for name, value in setting.items()
      if name != _REMAT
    }
  return _CHANGEABLE.sub("", setting) if isinstance(setting, str) else setting
