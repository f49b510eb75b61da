"""seqio tasks on TensorFlow Datasets, and how to add others.

    tfds_wikipedia_XX         wikipedia/20230601.XX: an article a text
    tfds_c4_XX                c4/multilingual, split XX: a page a text
    tfds_para_crawl_en_XX     para_crawl
    tfds_wmt14_XX_en          wmt14_translate (cs de fr hi ru)
    tfds_wmt19_XX_en          wmt19_translate (cs de fi gu kk lt ru zh)
    tfds_opus_NAME_de_en      opus: medical law koran IT subtitles
    tfds_ted_en_XX            ted_multi_translate
    tfds_flores_XX_en         flores (ne si), splits dev and devtest

TFDS downloads and builds a dataset at its first use, into TFDS_DATA_DIR
(~/tensorflow_datasets). Building c4/multilingual needs a cluster, so provide it
already built. To add another dataset, call `add_text` or `add_pairs`.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from infoxlm_jax.data.corpora.seqio_tasks import FEATURES, string_features

LANGUAGES = (
  *("en", "ar", "bg", "de", "el", "es", "fr", "hi"),
  *("ru", "sw", "th", "tr", "ur", "vi", "zh"),
)


def add_text(
  name: str,
  tfds_name: str,
  text_feature: str,
  language: str,
  splits: Mapping[str, str] | None = None,
  data_dir: str | None = None,
) -> None:
  """Registers a dataset as texts of one language.

  Args:
    name: of the task.
    tfds_name: with configuration and version, `wikipedia/20230601.de:1.0.0`.
    text_feature: the feature that holds the text.
    language: of all texts.
    splits: {split of the task: split of the dataset}; None: its own.
    data_dir: folder of the dataset; None: TFDS's own folder.
  """

  def text(example: Mapping[str, Any]) -> dict[str, Any]:
    return {
      "text": example[text_feature],
      "language": tf.constant(language),
    }

  _add(name, tfds_name, "text", [_map(text)], splits, data_dir)


def add_pairs(
  name: str,
  tfds_name: str,
  languages: Sequence[str],
  features: Sequence[str] | None = None,
  translations: str | None = None,
  splits: Mapping[str, str] | None = None,
  data_dir: str | None = None,
) -> None:
  """Registers a dataset as pairs of two languages.

  Args:
    name: of the task.
    tfds_name: with configuration and version, `wmt14_translate/de-en:1.0.0`.
    languages: of the first and the second side.
    features: the names of the two texts' features; None: the languages.
    translations: the feature that lists languages and their translations
      (TFDS's TranslationVariableLanguages); `features` are then the names of
      the two languages in this list. Examples without one of the two are left
      out.
    splits: {split of the task: split of the dataset}; None: its own.
    data_dir: folder of the dataset; None: TFDS's own folder.
  """
  sides = tuple(features or languages)

  def has_both(example: Mapping[str, Any]) -> Any:
    listed = example[str(translations)]["language"]
    return tf.reduce_all([tf.reduce_any(listed == side) for side in sides])

  def pair(example: Mapping[str, Any]) -> dict[str, Any]:
    if translations:
      listed = example[translations]
      first = [tf.argmax(listed["language"] == side) for side in sides]
      text_a, text_b = (listed["translation"][place] for place in first)
    else:
      text_a, text_b = (example[side] for side in sides)
    return {
      "text_a": text_a,
      "language_a": tf.constant(languages[0]),
      "text_b": text_b,
      "language_b": tf.constant(languages[1]),
    }

  steps = [_map(pair)]
  if translations:
    steps = [lambda dataset: dataset.filter(has_both), *steps]
  _add(name, tfds_name, "pairs", steps, splits, data_dir)


def _map(function: Any) -> Any:
  return functools.partial(_mapped, function=function)


def _mapped(dataset: tf.data.Dataset, function: Any) -> tf.data.Dataset:
  # tf.data keeps the order by default, whatever the number of threads.
  return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE)


def _add(
  name: str,
  tfds_name: str,
  kind: str,
  steps: Sequence[Any],
  splits: Mapping[str, str] | None,
  data_dir: str | None,
) -> None:
  seqio.TaskRegistry.add(
    name,
    source=seqio.TfdsDataSource(
      tfds_name, data_dir, splits=dict(splits) if splits else None
    ),
    preprocessors=steps,
    output_features=string_features(FEATURES[kind]),
  )


for _x in LANGUAGES:
  add_text(f"tfds_wikipedia_{_x}", f"wikipedia/20230601.{_x}:1.0.0", "text", _x)
  add_text(
    f"tfds_c4_{_x}",
    "c4/multilingual:3.1.0",
    "text",
    _x,
    splits={"train": _x, "validation": f"{_x}-validation"},
  )

for _x in ("bg", "de", "el", "es", "fr"):
  add_pairs(f"tfds_para_crawl_en_{_x}", f"para_crawl/en{_x}:1.2.0", ("en", _x))

for _x in ("cs", "de", "fr", "hi", "ru"):
  add_pairs(f"tfds_wmt14_{_x}_en", f"wmt14_translate/{_x}-en:1.0.0", (_x, "en"))

for _x in ("cs", "de", "fi", "gu", "kk", "lt", "ru", "zh"):
  add_pairs(f"tfds_wmt19_{_x}_en", f"wmt19_translate/{_x}-en:1.0.0", (_x, "en"))

for _x in ("medical", "law", "koran", "IT", "subtitles"):
  add_pairs(f"tfds_opus_{_x}_de_en", f"opus/{_x}:0.1.0", ("de", "en"))

for _x in ("ar", "bg", "de", "el", "es", "fr", "hi", "ru", "th", "tr", "ur"):
  add_pairs(
    f"tfds_ted_en_{_x}",
    "ted_multi_translate:1.1.0",
    ("en", _x),
    translations="translations",
  )

for _x in ("ne", "si"):
  add_pairs(f"tfds_flores_{_x}_en", f"flores/{_x}en:1.2.0", (_x, "en"))
