"""Retrieval on sets of pairs, at every layer and pooling of an encoder."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.inference import Encoder
from infoxlm_jax.evaluation.layer_vectors import make_layer_vectors
from infoxlm_jax.evaluation.nearest import own_is_best
from infoxlm_jax.evaluation.pair_sets import PairSet
from infoxlm_jax.evaluation.retrieval import Retrieval
from infoxlm_jax.evaluation.scoring import Scoring
from infoxlm_jax.model.pooling import POOLINGS, Reading

_GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class LayerOptions:
  """Which layer and pooling the result is read at.

  Attributes:
    layer: index of Hugging Face's hidden_states, 0 is the embedding output;
      None: chosen on dev pairs, or the last layer where there are none.
    pooling: "mean_all", "mean" or "first"; None: chosen on dev pairs, or
      mean_all where there are none.
    all_layers: measure all layers and poolings; else only these two.
    max_gib: memory that the vectors of one set may take.
  """

  layer: int | None = None
  pooling: str | None = None
  all_layers: bool = True
  max_gib: float = 8.0

  def reading(self, reading: Reading) -> Reading:
    """`reading` at this layer and pooling, or at those used without dev."""
    return dataclasses.replace(
      reading, layer=self.layer, pooling=self.pooling or "mean_all"
    )


@dataclasses.dataclass(frozen=True)
class Measured:
  """Retrieval of one model on several sets.

  Attributes:
    retrieval: NaN at layers and poolings that were not measured.
    ties: int, shaped as retrieval.accuracy: queries that are wrong only
      because another sentence is as good as their translation.
  """

  retrieval: Retrieval
  ties: np.ndarray


def measure(
  encoder: Encoder,
  sets: Sequence[PairSet],
  reading: Reading,
  options: LayerOptions,
  scoring: Scoring,
  *,
  pivot: str = "en",
  done: Callable[[int], None] = lambda count: None,
) -> Measured:
  """Retrieval between the pivot and each set's language, one set at a time.

  All sentences of the other side are candidates.

  Args:
    encoder: the model.
    sets: of different languages.
    reading: how a text becomes a vector; see `LayerOptions.reading`.
    options: which layers and poolings.
    scoring: how sentences are compared.
    pivot: names the directions of the result.
    done: called with the number of texts of every batch.

  Raises:
    InputError: reading is not one of the model's, or a set's vectors need
      more than max_gib.
  """
  every = options.all_layers
  check_memory(encoder, sets, options)
  vectors = make_layer_vectors(encoder, reading, every=every)
  layer, _ = reading.checked_for(encoder.config)
  shape = (encoder.config.num_layers + 1, len(POOLINGS), len(sets), 2)
  accuracy, ties = np.full(shape, np.nan), np.zeros(shape, np.int64)
  for place, one in enumerate(sets):
    a, b = (vectors(texts, done) for texts in (one.pivot_texts, one.texts))
    for index in np.ndindex(a.shape[:2]):
      at = index if every else (layer, POOLINGS.index(reading.pooling))
      ways = own_is_best(a[index], b[index], scoring)
      accuracy[(*at, place)] = [hits.own.mean() for hits in ways]
      ties[(*at, place)] = [hits.ties for hits in ways]
  counts = {one.language: len(one.texts) for one in sets}
  retrieval = Retrieval(accuracy, tuple(counts), POOLINGS, counts, pivot)
  return Measured(retrieval, ties)


def check_memory(
  encoder: Encoder, sets: Sequence[PairSet], options: LayerOptions
) -> None:
  """Checks that the vectors of every set fit into max_gib.

  Raises:
    InputError: they do not.
  """
  config = encoder.config
  if not options.all_layers:
    return
  for one in sets:
    vectors = 2 * len(one.texts) * (config.num_layers + 1) * len(POOLINGS)
    gib = 4 * vectors * config.hidden_size / _GIB
    if gib > options.max_gib:
      raise InputError(
        f"{one.source}: the vectors of {len(one.texts):,} pairs at all layers"
        f" need {gib:.1f} GiB, more than MAX_GIB = {options.max_gib:g}. Set"
        " ALL_LAYERS=False with LAYER and POOLING, MAX_PAIRS, or a larger"
        " MAX_GIB."
      )


def choose(retrieval: Retrieval, options: LayerOptions) -> tuple[int, str]:
  """(layer, pooling) with the best mean, where the options leave it open.

  Of equals, the lowest layer.
  """
  mean_LP = retrieval.mean().mean(axis=-1)
  layers, poolings = range(mean_LP.shape[0]), range(mean_LP.shape[1])
  allowed = [
    (layer, pooling)
    for layer in layers
    for pooling in poolings
    if options.layer in (None, layer)
    and options.pooling in (None, retrieval.poolings[pooling])
  ]
  layer, pooling = max(allowed, key=lambda place: mean_LP[place])
  return layer, retrieval.poolings[pooling]
