"""Registers corpora as seqio Tasks; `add` is called by the files in tasks/.

A Task yields plain strings, or ready-made ids: prepare tokenises strings with
the tokenizer of the run. Only this file and seqio_reader.py import seqio and
TensorFlow, and only inside functions.
"""

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from infoxlm_jax.errors import InputError

# Examples that pass through TensorFlow at a time: one by one takes ten times as
# long.
BATCH = 1024

# The features of a corpus of each kind; "ids" replaces "text" in a corpus of
# ready-made ids.
FEATURES = {
  "text": ("text", "language"),
  "pairs": ("text_a", "language_a", "text_b", "language_b"),
}

# Errors that a corpus raised inside TensorFlow, which passes on only their
# text: the reader raises them again.
raised_errors: list[InputError] = []


def add(name: str, corpus: Any) -> None:
  """Registers a corpus (see sources.py) as the seqio Task `name`.

  The Task yields the examples of the corpus in their order. Nothing is read
  yet.
  """
  seqio = import_seqio()
  import tensorflow as tf

  names = list(FEATURES[corpus.kind])
  if corpus.ready_made:
    names = [feature.replace("text", "ids") for feature in names]
  features = string_features(names)
  signature = {n: tf.TensorSpec([None], tf.string) for n in names}
  for feature in names:
    if feature.startswith("ids"):
      features[feature] = seqio.Feature(
        seqio.PassThroughVocabulary(size=1), add_eos=False, dtype=tf.int32
      )
      signature[feature] = tf.RaggedTensorSpec([None, None], tf.int32)

  def batches(split: str) -> Iterator[dict[str, Any]]:
    examples = corpus.examples(split)
    try:
      while batch := list(itertools.islice(examples, BATCH)):
        yield {n: _values([e[n] for e in batch]) for n in names}
    except InputError as error:
      raised_errors.append(error)
      raise

  def dataset(
    split: str, shuffle_files: bool = False, seed: int | None = None
  ) -> Any:
    del shuffle_files, seed  # the files decide the order
    return tf.data.Dataset.from_generator(
      lambda: batches(split), output_signature=signature
    ).unbatch()

  source = seqio.FunctionDataSource(dataset, splits=tuple(corpus.splits()))
  source.corpus = corpus  # seqio_reader.py asks it about its files
  seqio.TaskRegistry.add(name, source=source, output_features=features)


def string_features(names: Sequence[str]) -> dict[str, Any]:
  """seqio features of plain strings, which prepare tokenises."""
  seqio = import_seqio()
  import tensorflow as tf

  string = seqio.Feature(
    seqio.PassThroughVocabulary(size=1),
    add_eos=False,
    dtype=tf.string,
    rank=0,
  )
  return dict.fromkeys(names, string)


def _values(values: list[Any]) -> Any:
  """The values of a feature of many examples, in TensorFlow's form."""
  if isinstance(values[0], str):
    return values
  import tensorflow as tf

  return tf.RaggedTensor.from_row_lengths(
    np.concatenate(values), [len(v) for v in values]
  )


def import_seqio() -> Any:
  """Imports seqio; TensorFlow leaves the accelerators to JAX."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  with _no_native_stderr():
    import seqio
    import tensorflow as tf

  for kind in ("GPU", "TPU"):
    try:
      tf.config.set_visible_devices([], kind)
    except (RuntimeError, ValueError):
      # The caller has used TensorFlow already: it is too late to hide devices.
      pass
  return seqio


@contextlib.contextmanager
def _no_native_stderr() -> Iterator[None]:
  """Drops the messages of TensorFlow's C++ while it loads; no option does."""
  sys.stderr.flush()
  kept = os.dup(2)
  null = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(null, 2)
    yield
  finally:
    sys.stderr.flush()
    os.dup2(kept, 2)
    os.close(kept)
    os.close(null)
