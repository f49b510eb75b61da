"""Registers corpora as seqio Tasks; `add` is called by the files in tasks/.

A Task gives plain strings, or ready-made ids: prepare makes the tokens, with
the tokenizer of the run. Only this file and seqio_reader.py use seqio and
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

# Examples that pass through TensorFlow at a time: one by one costs ten times
# as much.
BATCH = 1024

# The features of a corpus of each kind; "ids" in place of "text" where it has
# tokens already.
FEATURES = {
  "text": ("text", "language"),
  "pairs": ("text_a", "language_a", "text_b", "language_b"),
}

# Errors that a corpus raised inside TensorFlow, which passes on only their
# text: the reader raises them again.
raised_errors: list[InputError] = []


def add(name: str, corpus: Any) -> None:
  """Registers a corpus (data/corpora.py) as the seqio Task `name`.

  The Task gives what the corpus gives, in its order. Nothing is read yet.
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
    del shuffle_files, seed  # the order is the files'
    return tf.data.Dataset.from_generator(
      lambda: batches(split), output_signature=signature
    ).unbatch()

  source = seqio.FunctionDataSource(dataset, splits=tuple(corpus.splits()))
  source.corpus = corpus  # for `describe`
  seqio.TaskRegistry.add(name, source=source, output_features=features)


def string_features(names: Sequence[str]) -> dict[str, Any]:
  """seqio features of plain strings: prepare makes the tokens."""
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
  """Values of a feature of many examples, as TensorFlow takes them."""
  if isinstance(values[0], str):
    return values
  import tensorflow as tf

  return tf.RaggedTensor.from_row_lengths(
    np.concatenate(values), [len(v) for v in values]
  )


def import_seqio() -> Any:
  """seqio, with TensorFlow kept off the accelerators, which JAX needs."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  with _no_native_stderr():
    import seqio
    import tensorflow as tf

  for kind in ("GPU", "TPU"):
    try:
      tf.config.set_visible_devices([], kind)
    except (RuntimeError, ValueError):
      # Already initialised, by the caller's own use: nothing left to hide.
      pass
  return seqio


@contextlib.contextmanager
def _no_native_stderr() -> Iterator[None]:
  """Drops what TensorFlow's C++ says while it loads; no option does."""
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
