"""Writes a model as a folder that transformers or sentence-transformers loads.

A folder gets its name after all files are written and compared.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from infoxlm_jax.checkpoint.exporters import compare_torch, safetensors_writer
from infoxlm_jax.checkpoint.exporters.hf_tensors import (
  model_class,
  task,
  tensors,
)
from infoxlm_jax.checkpoint.exporters.model_card import About, model_card
from infoxlm_jax.checkpoint.exporters.sentence_transformers_files import (
  module_files,
)
from infoxlm_jax.checkpoint.exporters.source import Source, first_layers
from infoxlm_jax.checkpoint.importers import compare_tokenizer
from infoxlm_jax.checkpoint.importers.hf_config import to_hugging_face
from infoxlm_jax.data.tokenizers.export import (
  hugging_face_files,
  why_not_exported,
)
from infoxlm_jax.errors import InputError
from infoxlm_jax.model.pooling import Reading
from infoxlm_jax.runtime.files import atomic_folder

# (model, texts, how to read a text's vector) -> vectors, float32 [N, D].
Encode = Callable[[Source, Sequence[str], Reading], np.ndarray]


def export_transformers(
  source: Source,
  output: str | Path,
  about: About,
  *,
  dtype: str = "float32",
  check: bool = True,
) -> list[str]:
  """A folder for transformers: weights, config, tokenizer, model card.

  A tokenizer that cannot be written is left out, and this is said.

  Args:
    source: the model; its class follows from its heads.
    output: a new folder.
    about: for the card.
    dtype: of the stored weights.
    check: compare the outputs in torch, where it is installed.

  Returns:
    Lines to print for the user.

  Raises:
    InputError: the folder exists, values that the dtype cannot hold, or an
      output that transformers does not reproduce.
    StorageError: writing failed.
  """
  source, why = _expressible(source)
  with atomic_folder(output) as folder:
    class_name, said = _write_model(source, folder, dtype, why)
    kind = task(class_name)
    _write_card(
      folder,
      model_card(
        source,
        about,
        library="transformers",
        task=kind,
        code=_loading(
          class_name, Path(output).name, source.tokenizer is not None
        ),
      ),
    )
    if not check:
      return said
    if not compare_torch.available("torch", "transformers"):
      return [*said, _no_comparison("torch and transformers")]
    difference = compare_torch.compare_model(folder, source, class_name, dtype)
    return [*said, *_compare_ids(source), str(difference)]


def export_sentence_transformers(
  source: Source,
  output: str | Path,
  about: About,
  *,
  layer: int,
  pooling: str,
  normalize: bool = False,
  prefix: str = "",
  dtype: str = "float32",
  encode: Encode | None,
) -> list[str]:
  """A folder for sentence-transformers: the encoder up to a layer, pooled.

  Args:
    source: the model, with a tokenizer.
    output: a new folder.
    about: for the card.
    layer: whose vectors are read; those above it are left out.
    pooling: as in Encoder.encode; the same vectors come out.
    normalize: whether vectors get length 1.
    prefix: stored as the default prompt, put before every text.
    dtype: of the stored weights.
    encode: computes our vectors, with which those of the folder are compared
      where torch is installed; None: compare nothing.

  Returns:
    Lines to print for the user.

  Raises:
    InputError: as export_transformers; also no tokenizer, or no such layer or
      pooling.
    StorageError: writing failed.
  """
  Reading(layer, pooling).checked_for(source.config)
  source = first_layers(source, layer)
  check_reads_text(source)
  assert source.tokenizer is not None
  with atomic_folder(output) as folder:
    class_name, said = _write_model(source, folder, dtype)
    modules = module_files(
      source.config, source.tokenizer, pooling, normalize, prefix
    )
    for name, content in modules.items():
      (folder / name).parent.mkdir(exist_ok=True)
      (folder / name).write_text(content)
    _write_card(
      folder,
      model_card(
        source,
        about,
        library="sentence-transformers",
        task="sentence-similarity",
        code=_ENCODING.format(folder=Path(output).name),
        notes=(
          f"Sentence vectors: {pooling} pooling after layer {layer}"
          + (", scaled to length 1." if normalize else "."),
        ),
      ),
    )
    if encode is None:
      return said
    if not compare_torch.available(
      "torch", "transformers", "sentence_transformers"
    ):
      return [*said, _no_comparison("torch and sentence-transformers")]
    # An accelerator's default would round the products to fewer bits.
    with jax.default_matmul_precision("highest"):
      vectors = encode(
        compare_torch.rounded(source, dtype),
        compare_tokenizer.SENTENCES,
        Reading(pooling=pooling, normalize=normalize, prefix=prefix),
      )
    return [
      *said,
      *_compare_ids(source),
      str(compare_torch.compare_model(folder, source, class_name, dtype)),
      str(compare_torch.compare_vectors(folder, vectors)),
    ]


def check_reads_text(source: Source) -> None:
  """Checks that a model can be one of sentence-transformers.

  Raises:
    InputError: it has no tokenizer, or one that cannot be written.
  """
  if source.tokenizer is None:
    raise InputError(
      f"{source.path}: holds no tokenizer, and a model that reads sentences"
      " needs one: give its file or folder"
    )
  if why := why_not_exported(source.tokenizer):
    raise InputError(
      f"{why} sentence-transformers reads text, and needs a tokenizer: use"
      " --format hf."
    )


def _compare_ids(source: Source) -> list[str]:
  """Compares our ids with those of the folder that was imported.

  compare_torch compares them with those of the export.
  """
  if source.tokenizer is None:
    return []
  return [
    compare_tokenizer.compare_with_folder(
      source.tokenizer, source.imported_from
    )
  ]


def _expressible(source: Source) -> tuple[Source, str]:
  """The model without a tokenizer that cannot be written, and why it lacks one.

  The reason goes into the model card, too.
  """
  if source.tokenizer is None:
    return source, "the model has none; give one to include it"
  if (why := why_not_exported(source.tokenizer)) is None:
    return source, ""
  notes = (*source.notes, f"{why} Ids are those of infoxlm_jax.")
  return dataclasses.replace(source, tokenizer=None, notes=notes), why


def _write_model(
  source: Source, folder: Path, dtype: str, why: str = ""
) -> tuple[str, list[str]]:
  """Weights, config and tokenizer; (class, what to tell).

  `why` says why there is no tokenizer, if there is none.
  """
  config = source.config
  class_name, heads = model_class(config, source.params["heads"])
  said = []
  if left := sorted(set(source.params["heads"]) - set(heads)):
    said.append(f"left out: {', '.join(left)} (not part of {class_name})")
  size = safetensors_writer.write(
    folder / "model.safetensors",
    list(tensors(source.params, config, heads)),
    dtype,
  )
  described = to_hugging_face(config, class_name) | {"dtype": dtype}
  _write_json(folder / "config.json", described | _labels(source, class_name))
  if source.tokenizer is None:
    said.append(f"no tokenizer: {why}")
  else:
    for name, content in hugging_face_files(
      source.tokenizer, config.max_positions
    ).items():
      (folder / name).write_bytes(content)
  said.insert(0, f"{class_name}: {size / 1e6:,.1f} MB of {dtype}")
  return class_name, said


def _labels(source: Source, class_name: str) -> dict[str, Any]:
  """How many classes a head has, as config.json says it."""
  heads = source.params["heads"]
  if class_name.endswith("SequenceClassification"):
    out = heads["classification"]["out"]
  elif class_name.endswith("TokenClassification"):
    out = heads["token_classification"]
  else:
    return {}
  names = {str(i): f"LABEL_{i}" for i in range(len(out["bias"]))}
  return {
    "id2label": names,
    "label2id": {name: int(i) for i, name in names.items()},
  }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
  path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _write_card(folder: Path, text: str) -> None:
  (folder / "README.md").write_text(text, encoding="utf-8")


def _no_comparison(packages: str) -> str:
  return f"not compared: {packages} are not installed (pip install '.[parity]')"


def _loading(class_name: str, folder: str, has_tokenizer: bool) -> str:
  tokenizer = "AutoTokenizer, " if has_tokenizer else ""
  lines = [f"from transformers import {tokenizer}{class_name}", ""]
  lines.append(f'model = {class_name}.from_pretrained("{folder}")')
  if has_tokenizer:
    lines += [
      f'tokenizer = AutoTokenizer.from_pretrained("{folder}")',
      'batch = tokenizer(["A sentence."], return_tensors="pt")',
      "outputs = model(**batch)",
    ]
  return "\n".join(lines)


_ENCODING = """
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{folder}")
vectors = model.encode(["A sentence.", "Ein Satz."])
"""
