"""The report of an import: every tensor loaded, or ignored for a reason."""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Loaded:
  """An array of ours and the tensors that it was read from."""

  path: str
  tensors: tuple[str, ...]
  shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Report:
  """What was loaded, what must be initialised, and what was left.

  Attributes:
    source: the file or folder.
    kind: what it is, in words.
    loaded: arrays, in the order of the parameters.
    initialised: {array: why its values are random}.
    ignored: {tensor of the source: why}.
  """

  source: str
  kind: str
  loaded: tuple[Loaded, ...]
  initialised: Mapping[str, str] = dataclasses.field(default_factory=dict)
  ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def with_initialised(self, paths: Sequence[str], why: str) -> "Report":
    """The report with arrays that the source lacks and random values fill."""
    added = dict.fromkeys(paths, why)
    return dataclasses.replace(self, initialised=dict(self.initialised) | added)

  def __str__(self) -> str:
    """A table: a line an array, layers' tensors summed up; no line too many."""
    tensors = sum(len(entry.tensors) for entry in self.loaded)
    numbers = sum(_size(entry.shape) for entry in self.loaded)
    lines = [
      f"Weights from {self.source} ({self.kind})",
      f"loaded       {tensors} tensors into {len(self.loaded)} arrays,"
      f" {numbers:,} numbers",
    ]
    width = max((len(entry.path) for entry in self.loaded), default=0)
    for entry in self.loaded:
      shape = " x ".join(map(str, entry.shape)) or "scalar"
      lines.append(f"  {entry.path:<{width}}  {shape}")
    for title, entries in (
      ("initialised", self.initialised),
      ("ignored", self.ignored),
    ):
      lines.append(f"{title:<13}{len(entries) or 'nothing'}")
      by_reason = defaultdict(list)
      for name, why in entries.items():
        by_reason[why].append(name)
      for why, names in by_reason.items():
        lines += [f"  {name}" for name in names] + [f"    ({why})"]
    return "\n".join(lines)


def _size(shape: tuple[int, ...]) -> int:
  size = 1
  for n in shape:
    size *= n
  return size
