"""Texts in, vectors out: an encoder for notebooks and scripts.

encoder = infoxlm_jax.load("runs/quickstart")
vectors = encoder.encode(["A sentence.", "Ein Satz."], layer=1)
"""

from collections.abc import Mapping
from pathlib import Path

from infoxlm_jax.checkpoint.importers.find_tokenizer import (
  find_tokenizer,
  with_ids_of,
)
from infoxlm_jax.checkpoint.importers.load import load_weights
from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.text_encoder import Encoder as Encoder
from infoxlm_jax.model import partitioning
from infoxlm_jax.model.pooling import Reading


def load(
  path: str | Path,
  *,
  tokenizer: str | Path | None = None,
  dtype: str = "float32",
  allow_pickle: bool = False,
  devices: int | None = None,
  layer: int | None = None,
  pooling: str = Reading.pooling,
  normalize: bool = False,
  prompts: Mapping[str, str] | None = None,
) -> Encoder:
  """An encoder from a run, a checkpoint, or a Hugging Face folder.

  Args:
    path: a run's folder (its newest checkpoint), a checkpoint's, a Hugging
      Face folder, or a file of weights.
    tokenizer: file or folder of it where `path` holds none.
    dtype: of the computation; "bfloat16" is faster on accelerators.
    allow_pickle: whether torch's pickled files may be read.
    devices: use the first so many; None: all. Each holds the whole model.
    layer: default of `Encoder.encode`; None: the last.
    pooling: default of `Encoder.encode`.
    normalize: default of `Encoder.encode`.
    prompts: texts put before others, by name: {"query": "query: ", "document":
      "passage: "} for e5. `encode(prompt_name=...)` chooses one, and mteb the
      one of its task: by the task's name, its type, "query" or "document".

  Raises:
    InputError: nothing is there, something is broken, the tokenizer is
      missing or of another model, or the model has no such layer or pooling.
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
  return Encoder(
    with_ids_of(config, model, path),
    params,
    model,
    mesh,
    name=str(path),
    reading=Reading(layer, pooling, normalize=normalize),
    prompts=prompts,
  )
