"""Reads a compiled program's text: collectives, their bytes, and loops."""

import dataclasses
import math
import re

_BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1, "u8": 1}
_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_COLLECTIVE = re.compile(rf"= (.*?) ({_KINDS})(?:-start)?\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(
  r"(?:body|condition|calls|to_apply|branch_computations)=\{?%?([\w.\-]+)"
)
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
  kind: str
  bytes: int  # of the largest array it gives
  in_loop: bool


def collectives(text):
  """Every collective of a compiled program."""
  bodies, name = {}, None
  for line in text.splitlines():
    if match := _COMPUTATION.match(line):
      name = match.group(1)
      bodies[name] = []
    elif name:
      bodies[name].append(line)
  looped = set()
  for lines in bodies.values():
    for line in lines:
      if " while(" in line:
        looped |= set(_CALLED.findall(line))
  grew = True
  while grew:  # what a loop's body calls is in the loop too
    called = {
      callee
      for name in looped
      for line in bodies.get(name, [])
      for callee in _CALLED.findall(line)
    }
    grew = not called <= looped
    looped |= called
  return [
    Collective(match.group(2), _largest(match.group(1)), name in looped)
    for name, lines in bodies.items()
    for line in lines
    if (match := _COLLECTIVE.search(line))
  ]


def _largest(types):
  return max(
    _BYTES.get(kind, 8) * math.prod(int(n) for n in dims.split(",") if n)
    for kind, dims in _SHAPE.findall(types)
  )
