"""Parts of the step benchmarks: presets, a batch, a compiled update."""

import argparse
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from infoxlm_jax.runtime import host_memory

Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Rows:
  """Of each of MLM, TLM, queries and keys in a synthetic batch.

  Attributes:
    rows: number of them.
    length: tokens of a row, which one item fills.
    groups: microbatches, among which the rows are divided.
  """

  rows: int = 8
  length: int = 128
  groups: int = 1

  @property
  def targets(self) -> int:
    """Masked places of a row."""
    return max(1, round(0.15 * (self.length - 2)))


@dataclasses.dataclass(frozen=True)
class Preset:
  """Shapes of a model and its contrast."""

  layers: int
  hidden: int
  heads: int
  ffn: int
  vocab: int
  queue: int
  contrast_layer: int


PRESETS = {
  "toy": Preset(2, 64, 2, 128, 500, 64, 1),
  "quickstart": Preset(3, 256, 4, 512, 8002, 2048, 1),
  "tiny": Preset(4, 256, 4, 1024, 8000, 1024, 3),
  "small": Preset(6, 384, 6, 1536, 32000, 4096, 4),
  "base": Preset(12, 768, 12, 3072, 250002, 16384, 8),
  "large": Preset(24, 1024, 16, 4096, 250002, 16384, 12),
}


def synthetic(seed: int, step: int, vocab: int, shape: Rows) -> Batch:
  """Token ids of one step: a function of (seed, step), full rows.

  Of a row's targets 80 % are <mask>, 10 % random, 10 % kept.
  """
  random = np.random.default_rng([seed, step])

  def sentences() -> np.ndarray:
    ids = random.integers(4, vocab - 1, size=(shape.rows, shape.length))
    ids[:, 0], ids[:, -1] = 0, 2
    return ids

  def masked() -> Batch:
    ids = sentences()
    tokens, targets = ids.copy(), np.full_like(ids, -1)
    for row in range(shape.rows):
      places = random.choice(
        np.arange(1, shape.length - 1), shape.targets, replace=False
      )
      targets[row, places] = ids[row, places]
      how = random.random(shape.targets)
      tokens[row, places[how < 0.8]] = vocab - 1
      other = places[(how >= 0.8) & (how < 0.9)]
      tokens[row, other] = random.integers(4, vocab - 1, size=len(other))
    return rows(tokens) | {"targets": grouped(targets)}

  def grouped(ids: np.ndarray) -> np.ndarray:
    return ids.reshape(shape.groups, -1, shape.length).astype(np.int32)

  def rows(tokens: np.ndarray) -> Batch:
    own = shape.rows // shape.groups
    numbers = np.tile(1 + np.arange(own), shape.groups)[:, None]
    places = np.broadcast_to(np.arange(shape.length), tokens.shape)
    ids = {
      "tokens": tokens,
      "segments": np.broadcast_to(numbers, tokens.shape),
      "positions": places,
    }
    return {name: grouped(x) for name, x in ids.items()}

  mlm, tlm = masked(), masked()
  query, key = rows(sentences()), rows(sentences())
  items = np.zeros((shape.groups, shape.rows // shape.groups), np.int32)
  return {
    "mlm": mlm,
    "tlm": tlm,
    "xlco": {"query": query, "key": key, "items": items},
  }


def parts(
  preset: Preset, example: Batch, options: argparse.Namespace
) -> tuple[Any, dict[str, Any], Any, Any]:
  """Model, objectives, optimiser and its rate."""
  from infoxlm_jax.model.config import EncoderConfig
  from infoxlm_jax.objectives.contrast import Contrast
  from infoxlm_jax.objectives.masked_lm import MaskedLM
  from infoxlm_jax.training import optimizer, schedules

  model = EncoderConfig(
    preset.vocab,
    preset.layers,
    preset.hidden,
    preset.heads,
    preset.ffn,
    dtype=options.dtype,
    attention=options.attention,
    remat=options.remat,
    unroll=options.unroll or preset.layers,
  )
  # Ready-made targets have so many places a row; drawn ones as many as a run.
  slots = None
  if "mlm" in example:
    slots = int((example["mlm"]["targets"][0, 0] >= 0).sum())
  objectives: dict[str, Any] = {
    name: MaskedLM(name, mask_slots=slots)
    for name in ("mlm", "tlm")
    if name in example
  }
  objectives["xlco"] = Contrast(
    layer=preset.contrast_layer,
    queue_size=preset.queue,
    mask_prob=0.0,
    momentum=0.999,
  )
  rate = schedules.linear_warmup_decay(2e-4, 10, 200)
  return model, objectives, optimizer.adamw(rate), rate


class Bench:
  """A compiled update of a preset, and its state."""

  def __init__(
    self,
    preset: Preset,
    example: Batch,
    items: int,
    options: argparse.Namespace,
  ):
    import jax

    from infoxlm_jax.model import partitioning
    from infoxlm_jax.training import state as train_state
    from infoxlm_jax.training import step

    self.model, self.objectives, adam, rate = parts(preset, example, options)
    mesh = partitioning.make_mesh(partitioning.MeshShape(devices=1))
    recipe = train_state.Recipe(
      self.model,
      self.objectives,
      adam,
      {"mlm": 0, "tlm": 0, "xlco": items},
      options.microbatches,
    )
    self.state = train_state.init_sharded(recipe, 1, mesh)
    update: Any = step.make_train_step(
      recipe, self.state, mesh, learning_rate=rate
    )
    self._place = partitioning.batch_sharding(mesh)
    start = time.perf_counter()
    placed = jax.device_put(example, self._place)
    self._update = update.lower(self.state, placed).compile()
    self.compile_seconds = time.perf_counter() - start
    self.planned_bytes = _planned(self._update)
    host_memory.give_back_freed()
    self.losses: list[float] = []

  def seconds(self, batches: Iterator[Batch], warm: int, steps: int) -> Any:
    """Seconds of each of `steps` updates, after `warm` that do not count."""
    import jax

    taken = []
    for number in range(warm + steps):
      batch = jax.device_put(next(batches), self._place)
      jax.block_until_ready(batch)
      start = time.perf_counter()
      self.state, metrics = self._update(self.state, batch)
      jax.block_until_ready((self.state, metrics))
      if number >= warm:
        taken.append(time.perf_counter() - start)
      self.losses.append(round(float(metrics["loss"]), 5))
    return taken

  def gflop(self, rows: dict[str, tuple[int, int]], items: int) -> float:
    """Of an update, from shapes; rows: (rows, length) of every stream."""
    from infoxlm_jax.analysis import cost_model

    shapes = {name: _Shape(items, *rows[name]) for name in self.objectives}
    flops = cost_model.step_flops(self.model, self.objectives, shapes)
    return sum(flops.values()) / 1e9

  def trace(self, batch: Batch, folder: str) -> None:
    """A profile of one update, for TensorBoard or xprof."""
    import jax

    placed = jax.device_put(batch, self._place)
    with jax.profiler.trace(folder):
      self.state, metrics = self._update(self.state, placed)
      jax.block_until_ready((self.state, metrics))


def _planned(compiled: Any) -> int:
  """Bytes that the compiler planned for: arguments and temporary arrays."""
  memory = compiled.memory_analysis()
  return int(
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )


@dataclasses.dataclass(frozen=True)
class _Shape:
  """The part of a stream that cost_model.step_flops asks for."""

  batch: int
  rows: int
  row_length: int
