"""A lower bound on the time of a step, from published peaks of a chip.

It is not a forecast: each part is timed as if it ran alone at the published
rate, and the bound is the largest, as if all parts overlapped. Real steps take
longer.
"""

import dataclasses
from collections.abc import Sequence

from infoxlm_jax.analysis.chips import Chip
from infoxlm_jax.analysis.hlo import Collective


@dataclasses.dataclass(frozen=True)
class Bound:
  """Lower bounds on the seconds of a step, one for each resource.

  Attributes:
    compute: matrix products at the chip's peak.
    memory: reading and writing the state once.
    links: the collectives inside a slice or node.
    network: those between slices; None where a chip's rate is not published.
  """

  compute: float
  memory: float
  links: float
  network: float | None

  @property
  def seconds(self) -> float:
    return max(self.compute, self.memory, self.links, self.network or 0.0)

  @property
  def by(self) -> str:
    """The part that is the bound."""
    parts = dataclasses.asdict(self)
    return max(parts, key=lambda name: parts[name] or 0.0)


def lower_bound(
  chip: Chip,
  dtype: str,
  flops: float,
  memory_bytes: float,
  link_bytes: float,
  network_bytes: float,
) -> Bound:
  """The bound of one device.

  Args:
    chip: the device.
    dtype: of the encoder's computation.
    flops: operations of the device in a step.
    memory_bytes: bytes that it must read from or write to its memory.
    link_bytes, network_bytes: bytes that it must send, see `traffic`.
  """
  network: float | None = 0.0
  if network_bytes:
    rate = chip.network_rate
    network = network_bytes / rate if rate else None
  return Bound(
    compute=flops / chip.peak[dtype],
    memory=memory_bytes / chip.memory_rate,
    links=link_bytes / chip.link_rate,
    network=network,
  )


def traffic(
  collectives: Sequence[Collective], devices: int, slices: int = 1
) -> tuple[float, float]:
  """Bytes that a device sends in a step at least: (inside a slice, between).

  A collective over s slices with m devices in each goes, at best, inside the
  slices first: there it is one over m devices, and then every device has an
  m-th of the bytes to exchange with the same device of the other slices.

  Args:
    collectives: of the compiled program.
    devices: of the program, slice after slice.
    slices: how many.
  """
  inside = between = 0.0
  for one in collectives:
    group = max(one.groups, key=len, default=tuple(range(devices)))
    crossed = len({place * slices // devices for place in group})
    if one.kind == "collective-permute":
      if crossed == 1:
        inside += one.times * one.bytes
      else:
        between += one.times * one.bytes
      continue
    local = len(group) // crossed
    inside += one.times * exchanged(one.kind, one.bytes, local)
    between += one.times * exchanged(one.kind, one.bytes / local, crossed)
  return inside, between


def exchanged(kind: str, size: float, devices: int) -> float:
  """Bytes that each of some devices must send, whatever the algorithm.

  Of n devices that hold equal parts of b bytes, each needs the others' (n - 1)
  parts; to sum and to spread the sum are two such exchanges. A ring reaches
  that (Patarasuk and Yuan, 2009).

  Args:
    kind: one of hlo.KINDS but collective-permute.
    size: b, as Collective.bytes.
    devices: n.
  """
  return (2 if kind == "all-reduce" else 1) * size * (devices - 1) / devices
