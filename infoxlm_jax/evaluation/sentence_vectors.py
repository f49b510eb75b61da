"""The vectors of texts at one layer, from packed rows of a few lengths.

Texts are sorted by length, so that few programs are compiled and little is
computed for padding.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from infoxlm_jax.evaluation.embed import (
  Embed,
  batch_rows,
  by_row_length,
  make_embed,
)
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.pooling import Reading

# (params, ids of texts, reading, layer, done) -> float32 [N, D]
SentenceVectors = Callable[
  [Any, Sequence[np.ndarray], Reading, int, Callable[[int], Any]], np.ndarray
]


def make_sentence_vectors(config: EncoderConfig, mesh: Mesh) -> SentenceVectors:
  """Builds a function that gives one vector a text, in their order.

  Its arguments: the parameters; ids, int32 [tokens] with `<s>` and `</s>`;
  pooling and sizes of batches, in a Reading; the layer; and a function that is
  called with the number of texts of every batch.

  Args:
    config: the encoder's shapes.
    mesh: the devices.
  """

  @functools.lru_cache(64)
  def embed_of(
    row_length: int, rows: int, items: int, layer: int, pooling: str
  ) -> Embed:
    return make_embed(
      config,
      mesh,
      poolings=(pooling,),
      row_length=row_length,
      rows=rows,
      items=items,
      groups=mesh.size,
      layer=layer,
    )

  def vectors(
    params: Any,
    ids: Sequence[np.ndarray],
    reading: Reading,
    layer: int,
    done: Callable[[int], Any],
  ) -> np.ndarray:
    lengths = np.array([len(one) for one in ids])
    out = np.zeros((len(ids), config.hidden_size), np.float32)
    for row_length, numbers in by_row_length(lengths, config.max_positions):
      rows, items = _batch(row_length, lengths[numbers], reading, mesh.size)
      embed = embed_of(row_length, rows, items, layer, reading.pooling)
      embedded = embed(params, [ids[i] for i in numbers], done)
      out[numbers] = embedded[0, 0]  # the one layer and pooling
    return out

  return vectors


def _batch(
  row_length: int, lengths: np.ndarray, reading: Reading, devices: int
) -> tuple[int, int]:
  """Rows of a batch on each device, and the most texts in them."""
  # Packed rows hold some padding at their ends.
  needed = 1.05 * lengths.sum() / row_length
  rows = batch_rows(needed, row_length, reading.batch_tokens, devices)
  items = max(1, rows * row_length // 8)
  if reading.batch_size is None:
    return rows, items
  # The rows of so many texts of mean length; a power of 2: few programs.
  mean = math.ceil(1.05 * lengths.mean() * reading.batch_size / row_length)
  return min(rows, 1 << (mean - 1).bit_length()), min(items, reading.batch_size)
