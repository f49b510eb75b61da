"""Sentence vectors of every layer, many sentences at a time."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from infoxlm_jax import encoder, partitioning
from infoxlm_jax.encoder_config import EncoderConfig
from infoxlm_jax.objectives.contrast import framing, members, pool

Embed = Callable[[Any, Sequence[np.ndarray]], np.ndarray]
_Group = list[tuple[int, np.ndarray, int, int]]  # number, ids, row, offset


def make_embed(
  model: EncoderConfig,
  mesh: Mesh,
  *,
  poolings: Sequence[str] = ("mean", "first"),
  row_length: int = 128,
  rows: int = 8,
  items: int = 32,
) -> Embed:
  """Builds embed(params, sentences) -> [layers + 1, poolings, N, D] float32.

  Sentences are int32 ids with <s> and </s>; they are packed into rows, so one
  compiled shape serves all lengths. Longer ones than a row are cut (their
  number is the caller's to count). Layer 0 is the embedding output.

  Args:
    model: the encoder's shapes.
    mesh: every device takes its groups of rows.
    poolings: as in Contrast.pooling.
    row_length: tokens of a row.
    rows, items: a group's rows, and the most sentences it holds.
  """
  groups = mesh.size * max(1, 4 // mesh.size)
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

    # [layers + 1, poolings, groups, items, D]
    return encoder.encode(params, rows, model, collect=pooled)

  def embed(params: Any, sentences: Sequence[np.ndarray]) -> np.ndarray:
    order = np.argsort([len(s) for s in sentences], kind="stable")
    placed = _place(
      [sentences[i][:row_length] for i in order], rows, row_length, items
    )
    shape = (model.num_layers + 1, len(poolings), len(sentences))
    out = np.zeros((*shape, model.hidden_size), np.float32)
    params = {name: params[name] for name in ("embed", "layers")}
    mine = partitioning.local_groups(mesh, groups)
    for start in range(0, len(placed), groups):
      chunk = placed[start : start + groups]
      batch = _rows_of(chunk, groups, rows, row_length, model.pad_id)
      local = {k: v[mine.start : mine.stop] for k, v in batch.items()}
      found = np.asarray(
        vectors(params, partitioning.global_batch(local, mesh))
      )
      for g, group in enumerate(chunk):
        ids = order[[number for number, *_ in group]]
        out[:, :, ids] = found[:, :, g, : len(group)]
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


def _place(
  sentences: Sequence[np.ndarray], rows: int, row_length: int, items: int
) -> list[_Group]:
  """Next-fit: groups of (sentence number, ids, row, offset)."""
  groups: list[_Group] = []
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


def _rows_of(
  chunk: Sequence[_Group], groups: int, rows: int, row_length: int, pad_id: int
) -> dict[str, np.ndarray]:
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
