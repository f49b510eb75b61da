"""What mteb asks of an encoder besides vectors: a name for its results.

    results = mteb.evaluate(infoxlm_jax.load("runs/mine", layer=8), tasks)

The package mteb is imported only if it is asked for.
"""

import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infoxlm_jax.checkpoint.checksums import describe
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.pooling import Reading


def model_meta(
  name: str,
  config: EncoderConfig,
  params: Any,
  reading: Reading,
  prompts: Mapping[str, str],
) -> Any:
  """The encoder's mteb.models.ModelMeta.

  mteb stores results by name and revision, so the revision is a hash of all
  that the vectors depend on: weights, layer, pooling, prompts and dtype.

  Raises:
    AttributeError: mteb is not installed; so `hasattr` is False then.
  """
  try:
    models: Any = importlib.import_module("mteb.models.model_meta")
  except ImportError as error:
    raise AttributeError(f"mteb_model_meta needs mteb: {error}") from None
  weights = {part: params[part] for part in ("embed", "layers")}
  made_of = (describe(weights), config, reading, sorted(prompts.items()))
  digest = hashlib.sha256(repr(made_of).encode()).hexdigest()
  return models.ModelMeta.create_empty(
    {
      "name": f"infoxlm_jax/{Path(name).resolve().name or 'encoder'}",
      "revision": digest[:16],
      "max_tokens": reading.max_length or config.max_positions,
      "embed_dim": config.hidden_size,
      "similarity_fn_name": models.ScoringFunction.COSINE,
    }
  )
