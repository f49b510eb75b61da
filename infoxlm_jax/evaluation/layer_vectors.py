"""Computes the vectors of texts at every layer and pooling, in one pass."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from infoxlm_jax.evaluation.embed import Embed, by_row_length, make_embed
from infoxlm_jax.evaluation.inference import Encoder
from infoxlm_jax.model.pooling import POOLINGS, Reading

# [layers, poolings, N, D]; the second argument is called with the number of
# texts of every batch.
LayerVectors = Callable[[Sequence[str], Callable[[int], None]], np.ndarray]

# The matrix that pools a group's items grows with the square of its tokens:
# at this size it costs less than a tenth of the encoder.
_GROUP_TOKENS = 1024


def make_layer_vectors(
  encoder: Encoder,
  reading: Reading,
  *,
  every: bool = True,
) -> LayerVectors:
  """Builds a function from texts to vectors, float32 [layers, poolings, N, D].

  Args:
    encoder: the model.
    reading: its prefix, max_length and batch_tokens are used, and where
      `every` is False also its layer and pooling.
    every: all layers, the embedding output being the first, and all of
      POOLINGS; else the one layer and pooling of `reading`.

  Raises:
    InputError: reading is not one of the model's.
  """
  layer, _ = reading.checked_for(encoder.config)

  @functools.lru_cache(16)
  def embed(row_length: int) -> Embed:
    rows = max(1, _GROUP_TOKENS // row_length)
    tokens = rows * row_length
    return make_embed(
      encoder.config,
      encoder.mesh,
      poolings=POOLINGS if every else (reading.pooling,),
      row_length=row_length,
      rows=rows,
      items=max(1, tokens // 8),
      groups=encoder.mesh.size * max(1, reading.batch_tokens // tokens),
      layer=None if every else layer,
    )

  def vectors(texts: Sequence[str], done: Callable[[int], None]) -> np.ndarray:
    ids = encoder.tokenize(
      texts, prefix=reading.prefix, max_length=reading.max_length
    )
    lengths = np.array([len(one) for one in ids], np.int64)
    layers = encoder.config.num_layers + 1 if every else 1
    poolings = len(POOLINGS) if every else 1
    size = encoder.config.hidden_size
    out = np.zeros((layers, poolings, len(ids), size), np.float32)
    for row_length, numbers in by_row_length(
      lengths, encoder.config.max_positions
    ):
      out[:, :, numbers] = embed(row_length)(
        encoder.params, [ids[i] for i in numbers], done
      )
    return out

  return vectors
