"""Reads the text of a compiled program: its collectives and its loops.

For tests and for the report of an ahead-of-time compile. The text is one
device's program, so every size is of one device. What XLA writes differs by
backend: a collective may be whole, a pair of `-start` and `-done` (GPU), one
fusion that starts it and others that carry it on (TPU), or a send to the host
that exchanges with other slices (several TPU slices); each counts once.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

from infoxlm_jax.analysis.hlo_groups import Groups, count_members, read_groups

KINDS = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)

_BITS = {
  "pred": 8,
  "bf16": 16,
  **{f"{kind}{n}": n for kind in "su" for n in (2, 4, 8, 16, 32, 64)},
  **{f"f{n}": n for n in (16, 32, 64)},
  **{f"c{n}": n for n in (64, 128)},
}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(
  r"\b(body|condition|calls|to_apply|called_computations|branch_computations"
  r"|true_computation|false_computation)=\{?([^,}\s]+(?:, ?%[\w.\-]+)*)"
)
_COLLECTIVE = re.compile(
  rf"^\s*(?:ROOT )?%?\S+ = (.*?) ({'|'.join(KINDS)})(-start)?\("
)
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d\w*)?)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
# A send to the runtime that connects TPU slices: what it does, and for which
# slices and devices of a slice, "{1,2}x{0:15}".
_BETWEEN_SLICES = re.compile(
  r"^\s*(?:ROOT )?%?\S+ = \((.*?), u32\[\].*? send\(.*"
  r'_xla_host_transfer_rendezvous="([^"]*)".*'
  r'_xla_megascale_target="\{([\d,:]+)\}x\{([\d,:]+)\}".*'
  r'_xla_megascale_transfer_type="([A-Z_]+)"'
)
# Fusions that carry on and end what another has started (TPU).
_CARRIES_ON = "async_collective_fusion"
_ENDS = "AsyncCollectiveDone"
# A fusion of an all-reduce and of taking a part of it (TPU).
_SCATTERS = "all-reduce-scatter"


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective where it stands in the program.

  Attributes:
    kind: one of KINDS.
    bytes: of the whole arrays on one device: the output of an all-gather, the
      input of a reduce-scatter, either of the others. The sum over all arrays
      if XLA has combined several collectives.
    largest: bytes of the largest of these arrays.
    groups: the devices that take part with each other, as positions in the
      mesh; of a collective-permute (from, to) pairs. Empty: all.
    loops: trip counts of the loops around it, outermost first; None where the
      text does not state one.
    name: the operation of the traced program that it comes from.
  """

  kind: str
  bytes: int
  largest: int
  groups: Groups
  loops: tuple[int | None, ...]
  name: str

  @property
  def in_loop(self) -> bool:
    return bool(self.loops)

  @property
  def times(self) -> int:
    """How often it runs in a step; an unknown trip count is taken as 1."""
    return math.prod(trips or 1 for trips in self.loops)


def collectives(text: str) -> list[Collective]:
  """Every collective of a compiled program, in the order of the program.

  Args:
    text: `compiled.as_text()`.
  """
  program = _Program(text)
  return list(program.walk(program.entry, ()))


def axes_of(groups: Groups, mesh: Mapping[str, int]) -> tuple[str, ...]:
  """The mesh axes along which groups of devices communicate.

  Args:
    groups: as in Collective.
    mesh: sizes of the axes, outermost first, as Mesh.shape.
  """
  if not groups:
    return tuple(name for name, size in mesh.items() if size > 1)
  places = np.array(
    np.unravel_index(
      np.concatenate([np.asarray(g) for g in groups]), tuple(mesh.values())
    )
  )
  differs = np.zeros(len(mesh), bool)
  start = 0
  for group in groups:
    own = places[:, start : start + len(group)]
    differs |= (own != own[:, :1]).any(axis=1)
    start += len(group)
  return tuple(np.array(list(mesh))[differs].tolist())


class _Program:
  """The computations of a program by name, as lines of text."""

  def __init__(self, text: str) -> None:
    self.lines: dict[str, list[str]] = {}
    self.entry = ""
    name = None
    for line in text.splitlines():
      if match := _COMPUTATION.match(line):
        name = match.group(2)
        self.lines[name] = []
        if match.group(1):
          self.entry = name
      elif line == "}":
        name = None
      elif name is not None:
        self.lines[name].append(line)
    self._holds: dict[str, bool] = {}

  def walk(
    self, name: str, loops: tuple[int | None, ...]
  ) -> "list[Collective]":
    """The collectives of a computation and of all that it calls."""
    inside = []
    lines = self.lines.get(name, ())
    again = name.startswith(_CARRIES_ON) or any(_ENDS in one for one in lines)
    for line in lines:
      if match := _COLLECTIVE.match(line):
        if not again:
          inside.append(_read(line, match, name, loops))
        continue  # to_apply says how it adds, nothing more
      if match := _BETWEEN_SLICES.match(line):
        inside.append(_between_slices(match, loops))
        continue
      inner = loops
      if " while(" in line:
        inner = (*loops, self._trips(line))
      for callee in _called(line):
        if self._holds_any(callee):
          inside += self.walk(callee, inner)
    return inside

  def _holds_any(self, name: str) -> bool:
    """Whether there is a collective in a computation or below it."""
    if name not in self._holds:
      self._holds[name] = False  # while it is being looked at
      self._holds[name] = any(
        _COLLECTIVE.match(line)
        or _BETWEEN_SLICES.match(line)
        or any(map(self._holds_any, _called(line)))
        for line in self.lines.get(name, ())
      )
    return self._holds[name]

  def _trips(self, line: str) -> int | None:
    """A loop's trip count, as XLA states it, else from `i < constant`.

    XLA counts from 0 by 1, as jax.lax.scan writes it.
    """
    if match := _TRIPS.search(line):
      return int(match.group(1))
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    if condition is None:
      return None
    lines = list(self.lines.get(condition.group(1), ()))
    for callee in [c for one in lines for c in _called(one)]:
      lines += self.lines.get(callee, ())
    compares = [one for one in lines if " compare(" in one]
    limits = [
      int(match.group(1))
      for one in lines
      if (match := re.search(r"= [su]32\[\]\S* constant\((\d+)\)", one))
    ]
    if len(compares) == len(limits) == 1 and "direction=LT" in compares[0]:
      return limits[0]
    return None


def _called(line: str) -> list[str]:
  return [
    name.strip().lstrip("%")
    for _, names in _CALLED.findall(line)
    for name in names.split(",")
  ]


def _read(
  line: str,
  match: re.Match[str],
  computation: str,
  loops: tuple[int | None, ...],
) -> Collective:
  types, kind, start = match.groups()
  sizes = [_size(*array) for array in _ARRAY.findall(types)]
  if start and kind != "all-reduce":
    # (operands, results), and for a permute two words of context.
    sizes = sizes[: 2 * (len(sizes) // 2)]
    if kind == "collective-permute":
      sizes = sizes[:2]
    sizes = sizes[len(sizes) // 2 :]
  groups = read_groups(line)
  if kind == "reduce-scatter":
    sizes = [size * max(map(len, groups), default=1) for size in sizes]
  if kind == "all-reduce" and computation.startswith(_SCATTERS):
    kind = "reduce-scatter"
  name = _OP_NAME.search(line)
  return Collective(
    kind,
    sum(sizes),
    max(sizes, default=0),
    groups,
    loops,
    name.group(1) if name else "",
  )


def _between_slices(
  match: re.Match[str], loops: tuple[int | None, ...]
) -> Collective:
  """A collective between each device and its counterparts in other slices."""
  types, name, slices, places, what = match.groups()
  count, size = count_members(slices), count_members(places)
  kind = what.lower().replace("_", "-")
  if kind not in KINDS:
    kind = "collective-permute"
  sizes = [_size(*array) for array in _ARRAY.findall(types)]
  if kind == "all-gather":  # it sends a part of what it gives
    sizes = [count * one for one in sizes]
  groups = tuple(
    tuple(place + size * number for number in range(count))
    for place in range(size)
  )
  return Collective(kind, sum(sizes), max(sizes), groups, loops, name)


def _size(kind: str, dims: str) -> int:
  bits = _BITS.get(kind, 8)  # what is left are the kinds of 8-bit floats
  return -(-bits * math.prod(int(n) for n in dims.split(",") if n) // 8)
