"""Texts in, vectors out: an encoder for notebooks and scripts.

    encoder = infoxlm_jax.load("runs/quickstart")
    vectors = encoder.encode(["A sentence.", "Ein Satz."], layer=1)

Texts are sorted by length and packed into rows of a few lengths, so that few
programs are compiled and little is computed for padding.
"""

import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from infoxlm_jax.checkpoint.importers.find_tokenizer import (
  find_tokenizer,
  with_ids_of,
)
from infoxlm_jax.checkpoint.importers.load import load_weights
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.embed import (
  Embed,
  batch_rows,
  by_row_length,
  make_embed,
)
from infoxlm_jax.evaluation.token_vectors import make_token_vectors
from infoxlm_jax.model import partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.pooling import Reading

_TEXTS = 16384  # sorted by length, and held, at a time


def load(
  path: str | Path,
  *,
  tokenizer: str | Path | None = None,
  dtype: str = "float32",
  allow_pickle: bool = False,
  devices: int | None = None,
) -> "Encoder":
  """An encoder from a run, a checkpoint, or a Hugging Face folder.

  Args:
    path: a run's folder (its newest checkpoint), a checkpoint's, a Hugging
      Face folder, or a file of weights.
    tokenizer: file or folder of it where `path` holds none.
    dtype: of the computation; "bfloat16" is faster on accelerators.
    allow_pickle: whether torch's pickled files may be read.
    devices: use the first so many; None: all. Each holds the whole model.

  Raises:
    InputError: nothing is there, something is broken, or the tokenizer is
      missing or of another model.
  """
  mesh = partitioning.make_mesh(partitioning.MeshShape(devices=devices))
  model = find_tokenizer(path, tokenizer)
  if model is None:
    raise InputError(
      f"{path}: holds no tokenizer; give its file or folder as `tokenizer`"
    )
  config, params, _ = load_weights(
    path, allow_pickle=allow_pickle, mesh=mesh, dtype=dtype
  )
  return Encoder(with_ids_of(config, model, path), params, model, mesh)


class Encoder:
  """A model that turns texts into vectors.

  Attributes:
    config: of the encoder.
    params: {"embed", "layers", "heads"}, on every device of the mesh.
    tokenizer: text to ids and back.
    mesh: the devices.
  """

  def __init__(
    self, config: EncoderConfig, params: Any, tokenizer: Tokenizer, mesh: Mesh
  ):
    self.config, self.tokenizer, self.mesh = config, tokenizer, mesh
    self.params = params
    # Kept with the encoder, not with the class.
    self._embed = functools.lru_cache(64)(self._make_embed)
    self._token_vectors = make_token_vectors(config, mesh)

  def encode(
    self,
    texts: Sequence[str],
    *,
    layer: int | None = None,
    pooling: str = "mean",
    prefix: str = "",
    normalize: bool = False,
    max_length: int | None = None,
    batch_tokens: int = Reading.batch_tokens,
    progress: bool = False,
  ) -> np.ndarray:
    """One vector a text, float32 [N, D], in the order of the texts.

    Args:
      texts: of any length. A text longer than max_length is truncated; a
        warning says how many were. An empty text is `<s> </s>`.
      layer: 1 is the first layer, 0 the embedding output, None the last. No
        layer above it is computed.
      pooling: "mean" of the tokens without `<s>` and `</s>` (zeros where
        there are no others), "mean_all" with them, or "first", the vector of
        `<s>`.
      prefix: put before every text, such as "query: " for e5.
      normalize: scale vectors to length 1.
      max_length: longest text in tokens, `<s>` and `</s>` included; None:
        what the model has positions for.
      batch_tokens: computed at a time on each device.
      progress: show a bar on the standard error output.

    Raises:
      InputError: layer, pooling or max_length is not one of the model's.
    """
    reading = Reading(
      layer, pooling, prefix, normalize, max_length, batch_tokens
    )
    texts = _listed(texts)
    with tqdm(total=len(texts), unit="text", disable=not progress) as bar:
      parts = self.encode_stream(texts, reading, done=bar.update)
      nothing = np.zeros((0, self.config.hidden_size), np.float32)
      return np.concatenate([nothing, *parts])

  def encode_stream(
    self,
    texts: Iterable[str],
    reading: Reading,
    *,
    done: Callable[[int], Any] = lambda count: None,
  ) -> Iterator[np.ndarray]:
    """`encode` for more texts than fit in memory: their vectors in pieces.

    Args:
      texts: read as far as the vectors are asked for.
      reading: the options of `encode`.
      done: called with the number of texts of every batch.

    Raises:
      InputError: layer, pooling or max_length is not one of the model's;
        raised before the first text is read.
    """
    layer, limit = reading.checked_for(self.config)
    return self._stream(iter(texts), reading, layer, limit, done)

  def _stream(
    self,
    texts: Iterator[str],
    reading: Reading,
    layer: int,
    limit: int,
    done: Callable[[int], Any],
  ) -> Iterator[np.ndarray]:
    count = cut = 0
    while some := list(itertools.islice(texts, _TEXTS)):
      ids, too_long = self._ids(some, reading.prefix, limit)
      count, cut = count + len(some), cut + too_long
      lengths = np.array([len(one) for one in ids])
      vectors = np.zeros((len(ids), self.config.hidden_size), np.float32)
      for row_length, numbers in by_row_length(
        lengths, self.config.max_positions
      ):
        # Packed rows hold some padding at their ends.
        needed = 1.05 * lengths[numbers].sum() / row_length
        rows = batch_rows(
          needed, row_length, reading.batch_tokens, self.mesh.size
        )
        embed = self._embed(row_length, rows, layer, reading.pooling)
        embedded = embed(self.params, [ids[i] for i in numbers], done)
        vectors[numbers] = embedded[0, 0]  # the one layer and pooling
      yield _unit(vectors) if reading.normalize else vectors
    _warn_of_cuts(cut, count, limit)

  def hidden_states(
    self,
    texts: Sequence[str],
    *,
    prefix: str = "",
    max_length: int | None = None,
  ) -> list[np.ndarray]:
    """The vectors of all tokens of each text: float32 [layers + 1, tokens, D].

    Entry 0 of the first axis is the embedding output. The tokens are those of
    `tokenize`, `<s>` and `</s>` among them; `pieces` shows them.
    """
    return self.token_vectors(
      self.tokenize(texts, prefix=prefix, max_length=max_length)
    )

  def token_vectors(self, ids: Sequence[np.ndarray]) -> list[np.ndarray]:
    """`hidden_states` of token ids, int32 [tokens] with `<s>` and `</s>`."""
    return self._token_vectors(self.params, ids, Reading.batch_tokens)

  def tokenize(
    self,
    texts: Sequence[str],
    *,
    prefix: str = "",
    max_length: int | None = None,
  ) -> list[np.ndarray]:
    """Ids that the encoder reads, int32 [tokens], with `<s>` and `</s>`.

    A text that is too long is truncated at its end; a warning says how many.
    """
    texts = _listed(texts)
    _, limit = Reading(max_length=max_length).checked_for(self.config)
    ids, cut = self._ids(texts, prefix, limit)
    _warn_of_cuts(cut, len(texts), limit)
    return ids

  def _ids(
    self, texts: Sequence[str], prefix: str, limit: int
  ) -> tuple[list[np.ndarray], int]:
    """Ids of the texts, and how many had to be cut."""
    ends = (self.tokenizer.bos_id, self.tokenizer.eos_id)
    pieces = self.tokenizer.encode_batch([prefix + text for text in texts])
    ids = [
      np.array([ends[0], *one[: limit - 2], ends[1]], np.int32)
      for one in pieces
    ]
    return ids, sum(len(one) > limit - 2 for one in pieces)

  def pieces(self, text: str, *, prefix: str = "") -> list[str]:
    """The tokens of a text as people read them."""
    return self.tokenizer.pieces(self.tokenize([text], prefix=prefix)[0])

  def _make_embed(
    self, row_length: int, rows: int, layer: int, pooling: str
  ) -> Embed:
    return make_embed(
      self.config,
      self.mesh,
      poolings=(pooling,),
      row_length=row_length,
      rows=rows,
      items=max(1, rows * row_length // 8),
      groups=self.mesh.size,
      layer=layer,
    )


def _listed(texts: Sequence[str]) -> list[str]:
  if isinstance(texts, str):
    raise InputError("give a list of texts, not one text")
  return list(texts)


def _warn_of_cuts(cut: int, count: int, limit: int) -> None:
  if cut:
    logging.warning(
      "%d of %d texts were longer than %d tokens and were cut",
      cut,
      count,
      limit,
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
  """Vectors scaled to length 1; zeros stay zeros."""
  norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
  return vectors / np.maximum(norms, 1e-12)
