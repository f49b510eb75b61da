"""fairseq's XLM-R and InfoXLM: its names and options, as Hugging Face has them.

Names are facts of fairseq (MIT), fairseq/models/roberta/model.py with its
upgrades of old names, and of the released InfoXLM (microsoft/unilm, MIT,
infoxlm/src-infoxlm/infoxlm/models/infoxlm.py), whose checkpoints hold the
query encoder as model_fast and the key encoder as model_slow.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infoxlm_jax.checkpoint.importers.lazy_tensor import Tensor
from infoxlm_jax.checkpoint.importers.wrappers import unwrapped
from infoxlm_jax.errors import InputError

_FAST = "model_fast."  # the query encoder of InfoXLM
_BODY = "encoder.sentence_encoder."
_TABLE = "roberta.embeddings.word_embeddings.weight"
_MATRIX = "lm_head.decoder.weight"  # tied to the table as a rule
_OUTER = {
  "embed_tokens.weight": _TABLE,
  "embed_positions.weight": "roberta.embeddings.position_embeddings.weight",
  "layernorm_embedding.weight": "roberta.embeddings.LayerNorm.weight",
  "layernorm_embedding.bias": "roberta.embeddings.LayerNorm.bias",
}
_LAYER = {
  "self_attn.q_proj": "attention.self.query",
  "self_attn.k_proj": "attention.self.key",
  "self_attn.v_proj": "attention.self.value",
  "self_attn.out_proj": "attention.output.dense",
  "self_attn_layer_norm": "attention.output.LayerNorm",
  "fc1": "intermediate.dense",
  "fc2": "output.dense",
  "final_layer_norm": "output.LayerNorm",
}
_HEADS = {
  "encoder.lm_head.weight": _MATRIX,
  "encoder.lm_head.bias": "lm_head.bias",
  "encoder.lm_head.dense.weight": "lm_head.dense.weight",
  "encoder.lm_head.dense.bias": "lm_head.dense.bias",
  "encoder.lm_head.layer_norm.weight": "lm_head.layer_norm.weight",
  "encoder.lm_head.layer_norm.bias": "lm_head.layer_norm.bias",
}
_IN_LAYER = re.compile(r"layers\.(\d+)\.(.+)\.(weight|bias)")
_FUSED = re.compile(r"(.*self_attn\.)in_proj_(weight|bias)")
# XLM-R's base and large; other widths must say how many heads they have.
_HEADS_OF_WIDTH = {768: 12, 1024: 16}


def is_fairseq(state: Any) -> bool:
  """Whether torch read a fairseq checkpoint."""
  return isinstance(state, Mapping) and isinstance(state.get("model"), Mapping)


def options(state: Mapping[str, Any]) -> dict[str, Any]:
  """The model's options, of whichever version of fairseq."""
  args = state.get("args")
  if args is not None:
    return dict(vars(args)) if hasattr(args, "__dict__") else dict(args)
  config = state.get("cfg") or {}
  model_options = config.get("model") or {}
  is_namespace = hasattr(model_options, "__dict__")
  return dict(vars(model_options) if is_namespace else model_options)


def translate(
  file: Path, tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
  """Tensors by Hugging Face's names, and what config.json would say.

  Names that have no counterpart stay as they are (for the report): the key
  encoder, projection and queue of InfoXLM among them.

  Raises:
    InputError: no RoBERTa, one with its layer norms elsewhere (XLM-R XL), or
      two in one file.
  """
  translated: dict[str, Tensor] = {}
  for name, tensor in tensors.items():
    parts = {
      _hugging_face(part_name): part
      for part_name, part in _unfused(_modern(name), tensor)
    }
    for known, part in parts.items():
      new, kept = (name, tensor) if known is None else (known, part)
      if new in translated:
        raise InputError(
          f"{file}: the tensors {translated[new].name} and {name} mean the same"
          f" array, {new}: the file holds two models. Remove one of them."
        )
      translated[new] = kept
  tied = not options.get("untie_weights_roberta", False)
  if tied and _TABLE not in translated and _MATRIX in translated:
    translated[_TABLE] = translated.pop(_MATRIX)
  return translated, _config(file, translated, options)


def _modern(name: str) -> str:
  name = unwrapped(name)[-1].removeprefix(_FAST)
  if name.startswith("decoder."):
    name = "encoder." + name.removeprefix("decoder.")
  return name.replace(".emb_layer_norm.", ".layernorm_embedding.")


def _unfused(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
  """Query, key and value apart, which fairseq before 0.9 held in one."""
  match = _FUSED.fullmatch(name)
  if not match or not tensor.shape or tensor.shape[0] % 3:
    return [(name, tensor)]
  width = tensor.shape[0] // 3
  return [
    (
      f"{match[1]}{letter}_proj.{match[2]}",
      tensor.rows(i * width, (i + 1) * width),
    )
    for i, letter in enumerate("qkv")
  ]


def _hugging_face(name: str) -> str | None:
  if name in _HEADS:
    return _HEADS[name]
  if not name.startswith(_BODY):
    return None
  name = name.removeprefix(_BODY)
  match = _IN_LAYER.fullmatch(name)
  if match and match[2] in _LAYER:
    return f"roberta.encoder.layer.{match[1]}.{_LAYER[match[2]]}.{match[3]}"
  return _OUTER.get(name)


def _config(
  file: Path, tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> dict[str, Any]:
  def shape(name: str) -> tuple[int, ...]:
    tensor = tensors.get(f"roberta.{name}")
    if tensor is None or len(tensor.shape) != 2:
      raise InputError(
        f"{file}: a fairseq checkpoint, but not of XLM-R: no matrix"
        f" {_BODY}* for {name}"
      )
    return tensor.shape

  if (
    options.get("encoder_normalize_before")
    and f"{_BODY}layer_norm.weight" in tensors
  ):
    raise InputError(
      f"{file}: a RoBERTa with layer norms before the blocks (XLM-R XL and"
      " XXL): another architecture, which is not supported"
    )
  vocab, width = shape("embeddings.word_embeddings.weight")
  positions, _ = shape("embeddings.position_embeddings.weight")
  ffn, _ = shape("encoder.layer.0.intermediate.dense.weight")
  heads = options.get("encoder_attention_heads", _HEADS_OF_WIDTH.get(width))
  if heads is None:
    raise InputError(
      f"{file}: does not say its number of attention heads"
      " (encoder_attention_heads), and its width is not XLM-R's"
    )
  numbers = [
    int(match[1])
    for name in tensors
    if (match := re.match(r"roberta\.encoder\.layer\.(\d+)\.", name))
  ]
  return {
    "model_type": "xlm-roberta",
    "vocab_size": vocab,
    "hidden_size": width,
    "num_hidden_layers": max(numbers) + 1,
    "num_attention_heads": heads,
    "intermediate_size": ffn,
    "max_position_embeddings": positions,
    "type_vocab_size": 0,  # fairseq has none; Hugging Face adds a row of zeros
    "layer_norm_eps": 1e-5,
    "hidden_act": options.get("activation_fn", "gelu"),
    # fairseq's dictionary begins so, and <mask> is its last entry.
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "mask_token_id": vocab - 1,
    "tie_word_embeddings": not options.get("untie_weights_roberta", False),
  }
