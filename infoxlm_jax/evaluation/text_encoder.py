"""An encoder of texts: vectors, hidden states, logits.

Text never makes a special id: "<mask>" or "</s>" in a text is text, where
transformers makes the special token of it. `logits` and `fill_mask` take masks.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from infoxlm_jax.data.tokenizers.base import Tokenizer, framed
from infoxlm_jax.evaluation import encode_arguments, fill_mask, mteb_meta
from infoxlm_jax.evaluation.retrieval import unit
from infoxlm_jax.evaluation.sentence_vectors import make_sentence_vectors
from infoxlm_jax.evaluation.token_vectors import make_token_vectors
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.pooling import Reading

_TEXTS = 16384  # sorted by length, and held, at a time


class Encoder:
  """A model that turns texts into vectors.

  Attributes:
    config: of the encoder.
    params: {"embed", "layers", "heads"}, on every device of the mesh.
    tokenizer: text to ids and back.
    mesh: the devices.
    name: where it was read from.
    reading: what `encode` does where it is not told.
    prompts: texts put before others, by name.
  """

  def __init__(
    self,
    config: EncoderConfig,
    params: Any,
    tokenizer: Tokenizer,
    mesh: Mesh,
    *,
    name: str = "",
    reading: Reading = Reading(),  # noqa: B008, it is frozen
    prompts: Mapping[str, str] | None = None,
  ):
    reading.checked_for(config)
    self.config, self.tokenizer, self.mesh = config, tokenizer, mesh
    self.params, self.name, self.reading = params, name, reading
    self.prompts = dict(prompts or {})
    self._sentence_vectors = make_sentence_vectors(config, mesh)
    self._token_vectors = make_token_vectors(config, mesh)
    self._lm_logits = fill_mask.make_lm_logits(config)

  def __repr__(self) -> str:
    config = self.config
    return (
      f"Encoder({self.name!r}: {config.architecture}, {config.num_layers}"
      f" layers of {config.hidden_size}, {config.ids.size:,} ids,"
      f" {config.max_positions} positions, {config.dtype},"
      f" {self.mesh.size} {self.mesh.devices.flat[0].platform})"
    )

  def encode(
    self,
    texts: Iterable[str] | Iterable[Mapping[str, Any]],
    *,
    layer: int | None = None,
    pooling: str | None = None,
    prompt: str | None = None,
    prompt_name: str | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    batch_size: int | None = None,
    batch_tokens: int | None = None,
    show_progress: bool = False,
    **others: Any,
  ) -> np.ndarray:
    """One vector a text, float32 [N, D], in the order of the texts.

    What is None is as `load` was told: by default the last layer, "mean", no
    prompt, any length.

    Args:
      texts: of any length. A text longer than max_length is truncated; a
        warning says how many were. An empty text is `<s> </s>`. Batches of
        mteb, {"text": list of texts}, are taken, too.
      layer: 1 is the first layer, 0 the embedding output.
      pooling: "mean" of the tokens without `<s>` and `</s>` (zeros where
        there are no others), "mean_all" with them, or "first", the vector of
        `<s>`.
      prompt: put before every text, such as "query: " for e5.
      prompt_name: the prompt of this name of `load`'s prompts.
      normalize: scale vectors to length 1.
      max_length: longest text in tokens, `<s>` and `</s>` included.
      batch_size: the most texts computed at a time on each device.
      batch_tokens: tokens computed at a time on each device, 4,096 by default.
      show_progress: show a bar on the standard error output.
      **others: sentence-transformers' show_progress_bar, normalize_embeddings;
        this project's prefix, progress; and what mteb says of its task.

    Raises:
      InputError: a text is no str; or layer, pooling or max_length is not one
        of the model's.
      TypeError: an option of no known name.
    """
    given = {
      "layer": layer,
      "pooling": pooling,
      "prompt": prompt,
      "prompt_name": prompt_name,
      "normalize": normalize,
      "max_length": max_length,
      "batch_size": batch_size,
      "batch_tokens": batch_tokens,
      "show_progress": show_progress or None,
    }
    reading, show = encode_arguments.reading_of(
      self.reading, self.prompts, given, others
    )
    texts = encode_arguments.listed(texts)
    with tqdm(total=len(texts), unit="text", disable=not show) as bar:
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
    checked = encode_arguments.checked(texts)
    return self._stream(checked, reading, layer, limit, done)

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
      vectors = self._sentence_vectors(self.params, ids, reading, layer, done)
      yield unit(vectors) if reading.normalize else vectors
    encode_arguments.warn_of_cuts(cut, count, limit)

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
    texts = encode_arguments.listed(texts)
    reading = Reading(prefix=prefix, max_length=max_length)
    _, limit = reading.checked_for(self.config)
    ids, cut = self._ids(texts, prefix, limit)
    encode_arguments.warn_of_cuts(cut, len(texts), limit)
    return ids

  def _ids(
    self, texts: Sequence[str], prefix: str, limit: int
  ) -> tuple[list[np.ndarray], int]:
    """Ids of the texts, and how many had to be cut."""
    pieces = self.tokenizer.encode_batch([prefix + text for text in texts])
    ids = [framed(self.tokenizer, one[: limit - 2]) for one in pieces]
    return ids, sum(len(one) > limit - 2 for one in pieces)

  def pieces(self, text: str, *, prefix: str = "") -> list[str]:
    """The tokens of a text as people read them."""
    return self.tokenizer.pieces(self.tokenize([text], prefix=prefix)[0])

  def logits(self, texts: Sequence[str], *, mask: str = "") -> list[np.ndarray]:
    """Masked-LM logits of all tokens of each text: float32 [tokens, V].

    The tokens are those of `tokenize`; V is config.vocab_size, the rows of the
    model's table.

    Args:
      texts: none longer than the model's positions.
      mask: what stands for the mask token in a text, "<mask>" for instance;
        "": nothing does.

    Raises:
      InputError: a text is too long or no str, or the model has no masked-LM
        head.
    """
    head = fill_mask.head_of(self.params, self.name)
    texts = encode_arguments.listed(texts)
    ids = fill_mask.ids_of(texts, mask, self.tokenizer, self.config)
    table = self.params["embed"]["token"]
    return [
      self._lm_logits(head, table, states[-1])
      for states in self.token_vectors(ids)
    ]

  def fill_mask(
    self, texts: Sequence[str], *, mask: str = "<mask>", top: int = 5
  ) -> list[list[list[fill_mask.Filled]]]:
    """For each mask of each text the `top` likeliest tokens, likeliest first.

    Args:
      texts: each with one `mask` or more, none longer than the model's
        positions.
      mask: what stands for the mask token.
      top: how many tokens.

    Raises:
      InputError: as for `logits`; or a text has no mask.
    """
    head = fill_mask.head_of(self.params, self.name)
    texts, tokenizer = encode_arguments.listed(texts), self.tokenizer
    fill_mask.check_masks(texts, mask)
    ids = fill_mask.ids_of(texts, mask, tokenizer, self.config)
    table = self.params["embed"]["token"]
    return [
      fill_mask.best(
        self._lm_logits(head, table, states[-1][one == tokenizer.mask_id]),
        top,
        tokenizer,
      )
      for one, states in zip(ids, self.token_vectors(ids), strict=True)
    ]

  def similarity(self, a_ND: Any, b_MD: Any) -> np.ndarray:
    """Cosines of all vectors with all others, float32 [N, M].

    Args:
      a_ND: vectors [N, D]; one [D] counts as [1, D].
      b_MD: vectors [M, D]. Of two single vectors the result is one number, [].
    """
    a, b = unit(a_ND), unit(b_MD)
    return (
      np.dot(a, b)
      if a.ndim == b.ndim == 1
      else np.atleast_2d(a) @ np.atleast_2d(b).T
    )

  def similarity_pairwise(self, a_ND: Any, b_ND: Any) -> np.ndarray:
    """Cosine of each of [N, D] with the same one of [N, D], float32 [N]."""
    return np.einsum("nd,nd->n", unit(a_ND), unit(b_ND))

  @property
  def mteb_model_meta(self) -> Any:
    """What mteb stores results by, see mteb_meta.py."""
    return mteb_meta.model_meta(
      self.name, self.config, self.params, self.reading, self.prompts
    )
