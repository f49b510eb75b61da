"""Reads a data set that TensorFlow Datasets has built, by its folder.

TensorFlow is imported inside the function.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.data.corpora.seqio_tasks import import_seqio
from infoxlm_jax.errors import InputError


def read_tfds_folder(
  folder: Path, split: str, features: Sequence[str]
) -> Iterator[dict[str, Any]]:
  """Yields some features of each example, in the order of the files.

  Texts are str, and a class (tfds.features.ClassLabel) is its name, "" where an
  example has none. Features that hold others are dicts and lists of these.

  Args:
    folder: of one version, with dataset_info.json and the records.
    split: such as "train".
    features: names of features.

  Raises:
    InputError: the folder is no data set, or has no such split or feature, or
      a text is not UTF-8.
  """
  import_seqio()  # leaves the accelerators to JAX
  import tensorflow as tf
  import tensorflow_datasets as tfds

  try:
    builder = tfds.builder_from_directory(folder)
    classes = {
      name: feature.names
      for name, feature in builder.info.features.items()
      if isinstance(feature, tfds.features.ClassLabel)
    }
    dataset = builder.as_dataset(
      split=split,
      shuffle_files=False,
      read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    for example in dataset.as_numpy_iterator():
      yield {
        name: _class_name(classes[name], int(example[name]))
        if name in classes
        else _texts(example[name])
        for name in features
      }
  except (OSError, ValueError, KeyError, AttributeError) as error:
    raise _not_read(folder, error) from error
  except tf.errors.OpError as error:
    raise _not_read(folder, error) from error


def _class_name(names: Sequence[str], number: int) -> str:
  return names[number] if 0 <= number < len(names) else ""


def _texts(value: Any) -> Any:
  """Bytes as text, wherever they are in dicts and arrays."""
  if isinstance(value, dict):
    return {name: _texts(inner) for name, inner in value.items()}
  if isinstance(value, np.ndarray):
    return [_texts(inner) for inner in value.tolist()]
  return value.decode("utf-8") if isinstance(value, bytes) else value


def _not_read(folder: Path, error: Exception) -> InputError:
  reason = str(error).strip().split("\n")[0][:200]
  return InputError(
    f"{folder}: not read as a data set of TensorFlow Datasets: {reason}. Build"
    " it again (tfds build)."
  )
