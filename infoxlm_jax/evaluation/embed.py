"""Computes sentence vectors in packed rows, of every layer or of one.

Evaluation during training takes all layers; inference.py takes one.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from infoxlm_jax.model import encoder, partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.pooling import framing, members, pool

Embed = Callable[..., np.ndarray]
Group = list[tuple[int, np.ndarray, int, int]]  # number, ids, row, offset

_ROW_LENGTHS = tuple(128 << n for n in range(16))  # 128, 256, 512, ...


def _ignore(count: int) -> None:
  del count


def make_embed(
  model: EncoderConfig,
  mesh: Mesh,
  *,
  poolings: Sequence[str] = ("mean", "first"),
  row_length: int = 128,
  rows: int = 8,
  items: int = 32,
  groups: int | None = None,
  layer: int | None = None,
) -> Embed:
  """Builds embed(params, sentences) -> [layers + 1, poolings, N, D] float32.

  Sentences are int32 ids with <s> and </s>; they are packed into rows, so one
  compiled shape serves all lengths. Longer ones than a row are cut (their
  number is the caller's to count). Layer 0 is the embedding output. A third
  argument of embed is called with the number of sentences of each batch.

  Args:
    model: the encoder's shapes.
    mesh: every device takes its groups of rows.
    poolings: as in Contrast.pooling.
    row_length: tokens of a row.
    rows, items: a group's rows, and the most sentences it holds.
    groups: of a batch, a multiple of the devices; None: a few.
    layer: the vectors of this layer only, [1, poolings, N, D]; those above
      it are not computed.
  """
  groups = groups or mesh.size * max(1, 4 // mesh.size)
  replicated = NamedSharding(mesh, P())

  @functools.partial(
    jax.jit,
    in_shardings=(None, partitioning.batch_sharding(mesh)),
    out_shardings=replicated,
  )
  def vectors(params: Any, rows: Any) -> jax.Array:
    rows = dict(rows, framing=framing(rows["tokens"], model.ids))

    # All poolings in one product, its matrix made once for all layers.
    each = [members(rows, items, pooling) for pooling in poolings]
    together_GnRT = jnp.concatenate(each, axis=1)

    def pooled(hidden: jax.Array) -> jax.Array:
      vectors = pool(hidden, together_GnRT)
      vectors = vectors.reshape(groups, len(poolings), items, -1)
      return jnp.moveaxis(vectors, 1, 0)

    # [layers, poolings, groups, items, D]
    if layer is None:
      return encoder.encode(params, rows, model, collect=pooled)
    if layer == 0:  # of an encoder, which has at least one layer
      both = encoder.encode(params, rows, model, num_layers=1, collect=pooled)
      return both[:1]
    return pooled(encoder.encode(params, rows, model, num_layers=layer))[None]

  def embed(
    params: Any,
    sentences: Sequence[np.ndarray],
    done: Callable[[int], None] = _ignore,
  ) -> np.ndarray:
    order = np.argsort([len(s) for s in sentences], kind="stable")
    placed = place(
      [sentences[i][:row_length] for i in order], rows, row_length, items
    )
    layers = model.num_layers + 1 if layer is None else 1
    shape = (layers, len(poolings), len(sentences))
    out = np.zeros((*shape, model.hidden_size), np.float32)
    params = {name: params[name] for name in ("embed", "layers")}
    mine = partitioning.local_groups(mesh, groups)
    for start in range(0, len(placed), groups):
      chunk = placed[start : start + groups]
      batch = rows_of(chunk, groups, rows, row_length, model.pad_id)
      local = {k: v[mine.start : mine.stop] for k, v in batch.items()}
      pooled_rows = np.asarray(
        vectors(params, partitioning.global_batch(local, mesh))
      )
      for g, group in enumerate(chunk):
        ids = order[[number for number, *_ in group]]
        out[:, :, ids] = pooled_rows[:, :, g, : len(group)]
      done(sum(map(len, chunk)))
    return out

  return embed


def embed_languages(
  embed: Embed,
  params: Any,
  sentences: Mapping[str, Sequence[np.ndarray]],
) -> dict[str, np.ndarray]:
  """embed for several languages at once: {language: [layers + 1, P, N, D]}."""
  together = [s for group in sentences.values() for s in group]
  vectors = embed(params, together)
  ends = np.cumsum([len(group) for group in sentences.values()])[:-1]
  return dict(zip(sentences, np.split(vectors, ends, axis=2), strict=True))


def place(
  sentences: Sequence[np.ndarray], rows: int, row_length: int, items: int
) -> list[Group]:
  """Packs by next-fit into groups of (sentence number, ids, row, offset)."""
  groups: list[Group] = []
  row, used = rows, 0
  for number, ids in enumerate(sentences):
    if groups and used + len(ids) > row_length:
      row, used = row + 1, 0
    if not groups or row == rows or len(groups[-1]) == items:
      groups.append([])
      row, used = 0, 0
    groups[-1].append((number, ids, row, used))
    used += len(ids)
  return groups


def rows_of(
  chunk: Sequence[Group], groups: int, rows: int, row_length: int, pad_id: int
) -> dict[str, np.ndarray]:
  """The encoder's input for placed sentences.

  Returns:
    {"tokens", "segments", "positions"}: int32 [groups, rows, row_length].
  """
  shape = (groups, rows, row_length)
  tokens = np.full(shape, pad_id, np.int32)
  segments, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
  for g, group in enumerate(chunk):
    for n, (_, ids, row, start) in enumerate(group):
      where = (g, row, slice(start, start + len(ids)))
      tokens[where] = ids
      segments[where] = n + 1
      positions[where] = np.arange(len(ids))
  return {"tokens": tokens, "segments": segments, "positions": positions}


def by_row_length(
  lengths: np.ndarray,
  max_positions: int,
  row_lengths: Sequence[int] = _ROW_LENGTHS,
) -> Iterator[tuple[int, np.ndarray]]:
  """Sorts items by the length of the rows that they go into.

  Rows have few lengths, so that few shapes are compiled. An item goes into the
  shortest rows that hold it.

  Args:
    lengths: tokens of each item, int [items], at most max_positions.
    max_positions: tokens of the longest rows.
    row_lengths: tokens of shorter rows, in increasing order.

  Yields:
    (row length, indices of its items), the shortest first; only row lengths
    that have items.
  """
  shorter = 0
  for row_length in (
    *(n for n in row_lengths if n < max_positions),
    max_positions,
  ):
    fits = (lengths > shorter) & (lengths <= row_length)
    if fits.any():
      yield row_length, np.flatnonzero(fits)
    shorter = row_length


def batch_rows(
  needed: float, row_length: int, batch_tokens: int, devices: int
) -> int:
  """Rows of a batch on each device: few sizes, none far too large.

  The smallest power of 4 with which one batch on all devices has `needed`
  rows; fewer where those would be more than batch_tokens tokens on a device.
  """
  most, rows = max(1, batch_tokens // row_length), 1
  while rows < most and rows * devices < needed:
    rows *= 4
  return min(rows, most)
