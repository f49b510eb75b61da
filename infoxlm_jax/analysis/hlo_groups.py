"""Reads which devices take part in a collective of a compiled program."""

import math
import re
from collections.abc import Sequence

import numpy as np

Groups = tuple[tuple[int, ...], ...]

_GROUPS = re.compile(
  r"(?:replica_groups|source_target_pairs)="
  r"(\{\{[\d,{}]*\}\}|\{\}|\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?"
  r"|mesh\[[^\]]*\] \{[^}]*\})"
)


def read_groups(line: str) -> Groups:
  """The groups of devices of a collective.

  They are written as `{{0,1},{2,3}}`; as `[2,2]<=[2,2]T(1,0)`, an iota, turned
  and cut; or, from jax 0.12 on, as `mesh['a'=2,'b'=2] {'b'}`, axes of a mesh.

  Args:
    line: of the program, the whole instruction.

  Returns:
    The groups, each the positions of its devices in the mesh; of
    source_target_pairs (from, to) pairs. Empty where the line names none,
    which means all devices.
  """
  match = _GROUPS.search(line)
  if match is None or match.group(1) == "{}":
    return ()
  text = match.group(1)
  if text.startswith("{"):
    return tuple(
      tuple(_numbers(group)) for group in re.findall(r"\{([\d,]+)\}", text)
    )
  if text.startswith("mesh"):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", text))
    axes = re.findall(r"'(\w+)'", text.partition("{")[2])
    first = [i for i, name in enumerate(sizes) if name not in axes]
    last = [list(sizes).index(name) for name in axes]
    lengths = [int(n) for n in sizes.values()]
    devices = np.arange(math.prod(lengths)).reshape(lengths)
    size = math.prod(lengths[i] for i in last)
    turned = devices.transpose([*first, *last]).reshape(-1, size)
    return tuple(tuple(group) for group in turned.tolist())
  shape, rest = text.split("<=")
  dims, _, turn = rest.partition("T")
  order = np.arange(math.prod(_numbers(dims))).reshape(_numbers(dims))
  if turn:
    order = order.transpose(_numbers(turn))
  cut = order.reshape(_numbers(shape))
  return tuple(tuple(group) for group in cut.tolist())


def count_members(text: str) -> int:
  """How many numbers are written as `0:15` or `1,2`."""
  ends = [_numbers(part) for part in text.split(",")]
  return sum(part[-1] - part[0] + 1 for part in ends)


def _numbers(text: str) -> Sequence[int]:
  return [int(n) for n in re.findall(r"\d+", text)]
