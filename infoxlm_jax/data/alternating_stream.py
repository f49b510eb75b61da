"""A stream of whole batches of several streams in turn."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from infoxlm_jax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlternatingStream:
  """Update n reads a batch of stream n mod k, of k streams.

  XLM trains so on MLM and TLM: one objective reads whatever the turn brings,
  and nothing is computed for the others. The streams have the same rows and
  row_length, which must be given, and the same arrays; each its own batch. A
  stream's samples are counted as if it were alone.

  Attributes:
    streams: by name, in the order of their turns.
  """

  streams: Mapping[str, Any]

  def __post_init__(self) -> None:
    if not self.streams:
      raise InputError("AlternatingStream.streams is empty: name at least one.")
    for name, stream in self.streams.items():
      if stream.rows is None:
        raise InputError(
          f"AlternatingStream.streams: {name!r} has rows = None; all of them"
          " need the same number of rows."
        )
    forms = {n: (s.rows, s.row_length) for n, s in self.streams.items()}
    if len(set(forms.values())) > 1:
      raise InputError(
        "AlternatingStream.streams must have the same rows and row_length, for"
        f" one compiled update serves them all; they have {forms}."
      )

  @property
  def batch(self) -> int:
    """By how much the run's count of samples grows in an update."""
    return int(self._first.batch)

  @property
  def rows(self) -> int:
    """Rows of an update, of all groups together."""
    return int(self._first.rows)

  @property
  def row_length(self) -> int:
    """Tokens of a row."""
    return int(self._first.row_length)

  def shapes(self, groups: int) -> dict[str, Any]:
    """See streams.Stream. Raises InputError where the arrays differ."""
    shapes = {name: s.shapes(groups) for name, s in self.streams.items()}
    first = next(iter(shapes.values()))
    for name, own in shapes.items():
      if own != first:
        raise InputError(
          f"AlternatingStream.streams: {name!r} has the arrays {sorted(own)},"
          f" the first stream {sorted(first)}; set the same language_ids and"
          " frequencies for all."
        )
    return dict(first)

  def turn(self, position: int) -> tuple[Any, int]:
    """The stream whose turn it is, and the samples that it drew before."""
    update = position // self.batch
    turns, number = divmod(update, len(self.streams))
    stream = list(self.streams.values())[number]
    return stream, turns * stream.batch

  def samples(self, position: int) -> dict[str, int]:
    """Samples that each stream drew before this position, by its name."""
    updates, count = position // self.batch, len(self.streams)
    return {
      name: (updates + count - 1 - number) // count * stream.batch
      for number, (name, stream) in enumerate(self.streams.items())
    }

  @property
  def _first(self) -> Any:
    return next(iter(self.streams.values()))


def turn(stream: Any, position: int) -> tuple[Any, int]:
  """The stream that a batch at this position is of, and its own position."""
  if isinstance(stream, AlternatingStream):
    return stream.turn(position)
  return stream, position


def parts(name: str, stream: Any, position: int) -> dict[str, tuple[Any, int]]:
  """The streams that alternate in one, or it alone, with their positions."""
  if not isinstance(stream, AlternatingStream):
    return {name: (stream, position)}
  samples = stream.samples(position)
  return {
    f"{name}/{part}": (own, samples[part])
    for part, own in stream.streams.items()
  }
