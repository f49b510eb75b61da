"""The vectors of all tokens at every layer, from packed rows."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from infoxlm_jax.evaluation.embed import (
  batch_rows,
  by_row_length,
  place,
  rows_of,
)
from infoxlm_jax.model import encoder, partitioning
from infoxlm_jax.model.config import EncoderConfig

TokenVectors = Callable[[Any, Sequence[np.ndarray], int], list[np.ndarray]]


def make_token_vectors(config: EncoderConfig, mesh: Mesh) -> TokenVectors:
  """Builds a function (params, ids, batch_tokens) -> vectors of each sequence.

  These are float32 [layers + 1, tokens, D]; entry 0 of the first axis is the
  embedding output. Sequences are int32 [tokens] with `<s>` and `</s>`, none
  longer than the model's positions; batch_tokens are computed at a time on
  each device.

  Args:
    config: the encoder's shapes.
    mesh: the devices.
  """
  encode = jax.jit(
    lambda params, batch: encoder.encode(
      params, batch, config, collect=lambda x: x.astype(np.float32)
    ),
    in_shardings=(None, partitioning.batch_sharding(mesh)),
  )

  def token_vectors(
    params: Any, ids: Sequence[np.ndarray], batch_tokens: int
  ) -> list[np.ndarray]:
    lengths = np.array([len(one) for one in ids], np.int64)
    states: dict[int, np.ndarray] = {}  # by the sequence's number
    params = {name: params[name] for name in ("embed", "layers")}
    for row_length, numbers in by_row_length(lengths, config.max_positions):
      # Packed rows hold some padding at their ends.
      needed = 1.05 * lengths[numbers].sum() / row_length
      rows = batch_rows(needed, row_length, batch_tokens, mesh.size)
      ordered = numbers[np.argsort(lengths[numbers], kind="stable")]
      placed = place(
        [ids[n] for n in ordered], rows, row_length, rows * row_length
      )
      for start in range(0, len(placed), mesh.size):
        chunk = placed[start : start + mesh.size]
        batch = rows_of(chunk, mesh.size, rows, row_length, config.pad_id)
        hidden = np.asarray(
          encode(params, partitioning.global_batch(batch, mesh))
        )
        for g, group in enumerate(chunk):
          for n, one, row, offset in group:
            own = hidden[:, g, row, offset : offset + len(one)]
            states[int(ordered[n])] = own.copy()
    return [states[n] for n in range(len(ids))]

  return token_vectors
