"""Weights from elsewhere: Hugging Face folders of the XLM-R family.

XLM-R, RoBERTa, InfoXLM and XLM-Align are one architecture. A tensor that is
missing, left over or of another shape is an error that names it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from infoxlm_jax.encoder_config import EncoderConfig
from infoxlm_jax.errors import InputError

_FAMILY = ("xlm-roberta", "roberta", "camembert")
# our layer norm -> theirs
_NORMS = {
  "attention_norm": "attention.output.LayerNorm",
  "ffn_norm": "output.LayerNorm",
}


def load_hugging_face(
  folder: str | Path, *, dtype: str = "float32"
) -> tuple[EncoderConfig, dict[str, Any]]:
  """Reads config.json and model.safetensors.

  Returns:
    The encoder's config (dropout 0, as in continued pretraining) and float32
    numpy parameters {"embed", "layers", "heads"}; heads hold "masked_lm"
    where the file has a language-model head.

  Raises:
    InputError: missing or broken files, another architecture, a tensor that
      is missing, left over, or of an unexpected shape.
  """
  folder = Path(folder)
  config = _read_config(folder, dtype)
  path = folder / "model.safetensors"
  try:
    tensors = load_file(path)
  except (OSError, SafetensorError) as error:
    raise InputError(
      f"{path}: cannot be read as safetensors: {error}"
    ) from None
  return config, _Reader(path, tensors, config).params()


def _read_config(folder: Path, dtype: str) -> EncoderConfig:
  path = folder / "config.json"
  try:
    raw = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise InputError(f"{path}: cannot be read as JSON: {error}") from None
  if raw.get("model_type") not in _FAMILY:
    raise InputError(
      f"{path}: model_type is {raw.get('model_type')!r}; this reads the XLM-R"
      f" family ({', '.join(_FAMILY)})"
    )
  offset = raw["pad_token_id"] + 1
  return EncoderConfig(
    vocab_size=raw["vocab_size"],
    num_layers=raw["num_hidden_layers"],
    hidden_size=raw["hidden_size"],
    num_heads=raw["num_attention_heads"],
    ffn_size=raw["intermediate_size"],
    max_positions=raw["max_position_embeddings"] - offset,
    position_offset=offset,
    type_vocab_size=raw["type_vocab_size"],
    pad_id=raw["pad_token_id"],
    layer_norm_eps=raw["layer_norm_eps"],
    dtype=dtype,
  )


class _Reader:
  """Takes tensors out by name, so that what is left over can be named."""

  def __init__(self, path: Path, tensors: dict, config: EncoderConfig):
    self._path, self._config = path, config
    # The body's prefix is absent in files saved from a bare encoder.
    self._left = {k.removeprefix("roberta."): v for k, v in tensors.items()}

  def params(self) -> dict[str, Any]:
    c = self._config
    d = c.hidden_size
    embed = {
      "token": self._padded(
        self._take("embeddings.word_embeddings.weight", c.vocab_size, d)
      ),
      "position": self._take(
        "embeddings.position_embeddings.weight",
        c.max_positions + c.position_offset,
        d,
      ),
      "norm": self._norm("embeddings.LayerNorm"),
    }
    if c.type_vocab_size:
      embed["type"] = self._take(
        "embeddings.token_type_embeddings.weight", c.type_vocab_size, d
      )
    layers = [self._layer(i) for i in range(c.num_layers)]
    heads = {}
    if "lm_head.bias" in self._left:
      heads["masked_lm"] = {
        "dense": self._dense("lm_head.dense", d, d),
        "norm": self._norm("lm_head.layer_norm"),
        "bias": self._padded(self._take("lm_head.bias", c.vocab_size)),
      }
    # Not part of ours: the pooler (never trained here), the tied matrix
    # stored twice by some writers, and old files' position numbers.
    for name in list(self._left):
      if name.startswith(("pooler.", "lm_head.decoder.")) or name.endswith(
        "position_ids"
      ):
        del self._left[name]
    if self._left:
      raise InputError(
        f"{self._path}: tensors that are not part of this architecture:"
        f" {', '.join(sorted(self._left)[:5])}"
      )
    stacked = _stack(layers)
    return {"embed": embed, "layers": stacked, "heads": heads}

  def _layer(self, i: int) -> dict[str, Any]:
    c = self._config
    d, heads = c.hidden_size, c.num_heads
    at = f"encoder.layer.{i}."
    qkv = [
      self._dense(f"{at}attention.self.{n}", d, d)
      for n in ("query", "key", "value")
    ]
    out = self._dense(f"{at}attention.output.dense", d, d)
    return {
      "qkv": {
        "kernel": np.stack([x["kernel"] for x in qkv], 1).reshape(
          d, 3, heads, d // heads
        ),
        "bias": np.stack([x["bias"] for x in qkv]).reshape(
          3, heads, d // heads
        ),
      },
      "attention_out": {
        "kernel": out["kernel"].reshape(heads, d // heads, d),
        "bias": out["bias"],
      },
      "ffn_in": self._dense(f"{at}intermediate.dense", d, c.ffn_size),
      "ffn_out": self._dense(f"{at}output.dense", c.ffn_size, d),
    } | {name: self._norm(at + theirs) for name, theirs in _NORMS.items()}

  def _dense(self, name: str, inputs: int, outputs: int) -> dict[str, Any]:
    kernel = self._take(f"{name}.weight", outputs, inputs).T
    return {"kernel": kernel, "bias": self._take(f"{name}.bias", outputs)}

  def _norm(self, name: str) -> dict[str, Any]:
    d = self._config.hidden_size
    return {
      "scale": self._take(f"{name}.weight", d),
      "bias": self._take(f"{name}.bias", d),
    }

  def _padded(self, rows: np.ndarray) -> np.ndarray:
    extra = self._config.padded_vocab - rows.shape[0]
    return np.pad(rows, [(0, extra)] + [(0, 0)] * (rows.ndim - 1))

  def _take(self, name: str, *shape: int) -> np.ndarray:
    if name not in self._left:
      raise InputError(f"{self._path}: tensor {name} is missing")
    value = self._left.pop(name)
    if value.shape != shape:
      raise InputError(
        f"{self._path}: tensor {name} has shape {value.shape}, config.json"
        f" makes it {shape}"
      )
    return value.astype(np.float32)


def _stack(layers: list[dict[str, Any]]) -> dict[str, Any]:
  first = layers[0]
  return {
    k: _stack([layer[k] for layer in layers])
    if isinstance(v, dict)
    else np.stack([layer[k] for layer in layers])
    for k, v in first.items()
  }
