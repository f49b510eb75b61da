"""Published figures of accelerators: peaks, memory, networks.

No other file holds such a number. Peaks are of dense
matrix products (without sparsity). A rate is bytes a second that one device
can send, so half of what is called bidirectional.

Sources. TPUs: Google Cloud's pages "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e"
(docs.cloud.google.com/tpu/docs/v4 and so on), where a capacity of "16 GB" is
16 GiB; v4's links: Jouppi et al. 2023 (arXiv 2304.01433), six of 50 GB/s.
GPUs: NVIDIA's data sheets of A100 80GB SXM, H100 SXM and H200 SXM, and of the
DGX machines for the network; bytes of memory as the driver reports them, from
the device descriptions of OpenXLA (xla/backends/gpu/target_config/specs).
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device as jax counts them: a TPU chip, a GPU.

  Attributes:
    name: as in the name of a target.
    platform: "tpu" or "cuda".
    memory: bytes of HBM.
    memory_rate: bytes a second from HBM.
    peak: floating-point operations a second of matrix products, by the dtype
      of an encoder's computation at jax's default precision: float32 operands
      are bfloat16 ones on a TPU and TF32 on a GPU.
    link_rate: bytes a second that the chip sends to its neighbours in a slice
      or node, over all links (ICI, NVLink).
    network_rate: the same between slices or nodes; None: not published.
    dimensions: numbers of a slice's shape, as 2 in v5e:4x4.
  """

  name: str
  platform: str
  memory: int
  memory_rate: float
  peak: Mapping[str, float]
  link_rate: float
  network_rate: float | None
  dimensions: int


def _tpu(
  name: str,
  gibibytes: int,
  memory_rate: float,
  peak: float,
  link_rate: float,
  network_rate: float | None,
  dimensions: int,
) -> Chip:
  peaks = {"bfloat16": peak, "float32": peak}
  return Chip(
    name,
    "tpu",
    gibibytes * 2**30,
    memory_rate,
    peaks,
    link_rate,
    network_rate,
    dimensions,
  )


def _gpu(
  name: str,
  memory: int,
  memory_rate: float,
  bfloat16: float,
  tf32: float,
  link_rate: float,
  network_rate: float,
) -> Chip:
  peaks = {"bfloat16": bfloat16, "float32": tf32}
  return Chip(
    name, "cuda", memory, memory_rate, peaks, link_rate, network_rate, 1
  )


CHIPS = {
  chip.name: chip
  for chip in (
    # 275 TFLOP/s, 32 GiB, 1200 GB/s, 6 links of 50 GB/s.
    _tpu("v4", 32, 1200e9, 275e12, 300e9, None, 3),
    # 197 TFLOP/s, 16 GB, 819 GB/s, ICI 1600 Gbit/s (400 GB/s bidirectional);
    # 6.4 Tbit/s between pods of 256.
    _tpu("v5e", 16, 819e9, 197e12, 200e9, 6.4e12 / 8 / 256, 2),
    # 459 TFLOP/s, 95 GB, 2765 GB/s, ICI 4800 Gbit/s.
    _tpu("v5p", 95, 2765e9, 459e12, 600e9, None, 3),
    # 918 TFLOP/s, 32 GB, 1638 GB/s, ICI 800 GB/s bidirectional.
    _tpu("v6e", 32, 1638e9, 918e12, 400e9, None, 2),
    # 312 and 156 TFLOP/s, 2039 GB/s, NVLink 600 GB/s bidirectional, a network
    # card of 200 Gbit/s a GPU.
    _gpu("a100", 85_100_068_864, 2039e9, 312e12, 156e12, 300e9, 25e9),
    # 989.4 and 494.7 TFLOP/s, 3.35 TB/s, NVLink 900 GB/s bidirectional, a
    # network card of 400 Gbit/s a GPU.
    _gpu("h100", 84_942_979_072, 3350e9, 989.4e12, 494.7e12, 450e9, 50e9),
    # As H100, with 141 GB and 4.8 TB/s.
    _gpu("h200", 151_397_597_184, 4800e9, 989.4e12, 494.7e12, 450e9, 50e9),
  )
}
