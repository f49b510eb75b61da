"""Reads a data set that TensorFlow Datasets has built, by its folder.

TensorFlow is imported inside the function.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from infoxlm_jax.data.corpora.seqio_tasks import import_seqio
from infoxlm_jax.errors import InputError


def read_tfds_folder(
  folder: Path, split: str, features: Sequence[str]
) -> Iterator[dict[str, str]]:
  """Yields texts of each example, in the order of the files.

  Args:
    folder: of one version, with dataset_info.json and the records.
    split: such as "train".
    features: names of features that are texts.

  Raises:
    InputError: the folder is no data set, or has no such split or feature, or
      a text is not UTF-8.
  """
  import_seqio()  # leaves the accelerators to JAX
  import tensorflow as tf
  import tensorflow_datasets as tfds

  try:
    builder = tfds.builder_from_directory(folder)
    dataset = builder.as_dataset(
      split=split,
      shuffle_files=False,
      read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    for example in dataset.as_numpy_iterator():
      yield {name: example[name].decode("utf-8") for name in features}
  except (OSError, ValueError, KeyError, AttributeError) as error:
    raise _not_read(folder, error) from error
  except tf.errors.OpError as error:
    raise _not_read(folder, error) from error


def _not_read(folder: Path, error: Exception) -> InputError:
  reason = str(error).strip().split("\n")[0][:200]
  return InputError(
    f"{folder}: not read as a data set of TensorFlow Datasets: {reason}. Build"
    " it again (tfds build)."
  )
