"""The small files by which sentence-transformers builds a model.

Its own mean is over all tokens, <s> and </s> among them: our "mean_all". For
our "mean" a module WordWeights, which is part of the library, stands before
it and gives the weight 0 to <s>, </s> and padding: the weighted mean is then
exactly the mean of the others, and no remote code is needed.
"""

import json
from typing import Any

from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.model.config import EncoderConfig

# The names under which releases before and after 6.0 find them.
_MODULES = "sentence_transformers.models."


def module_files(
  config: EncoderConfig,
  tokenizer: Tokenizer,
  pooling: str,
  normalize: bool,
  prefix: str,
) -> dict[str, str]:
  """Contents by path: modules.json and what it names.

  Args:
    config: of the encoder that stands in the same folder.
    tokenizer: its tokenizer.
    pooling: "mean", "mean_all" or "first".
    normalize: whether vectors get length 1.
    prefix: the default prompt.
  """
  settings: list[tuple[str, dict[str, Any]]] = []
  if pooling == "mean":
    settings.append(("WordWeights", _weights(config, tokenizer)))
  settings.append(("Pooling", _pooling(config, pooling)))
  if normalize:
    settings.append(("Normalize", {}))
  modules = [
    {"idx": 0, "name": "0", "path": "", "type": f"{_MODULES}Transformer"}
  ]
  files = {}
  for number, (kind, content) in enumerate(settings, 1):
    path = f"{number}_{kind}"
    modules.append(
      {
        "idx": number,
        "name": str(number),
        "path": path,
        "type": f"{_MODULES}{kind}",
      }
    )
    files[f"{path}/config.json"] = _json(content)
  prompts = {"default": prefix} if prefix else {}
  return files | {
    "modules.json": _json(modules),
    "sentence_bert_config.json": _json(
      {"max_seq_length": config.max_positions, "do_lower_case": False}
    ),
    "config_sentence_transformers.json": _json(
      {
        "model_type": "SentenceTransformer",
        "prompts": prompts,
        "default_prompt_name": "default" if prefix else None,
        "similarity_fn_name": "cosine",
      }
    ),
  }


def _pooling(config: EncoderConfig, pooling: str) -> dict[str, Any]:
  return {
    "word_embedding_dimension": config.hidden_size,
    "pooling_mode_cls_token": pooling == "first",
    "pooling_mode_mean_tokens": pooling != "first",
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
    "pooling_mode_weightedmean_tokens": False,
    "pooling_mode_lasttoken": False,
    "include_prompt": True,
  }


def _weights(config: EncoderConfig, tokenizer: Tokenizer) -> dict[str, Any]:
  pieces = tokenizer.pieces(range(tokenizer.vocab_size))
  framing = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id}
  weights = {pieces[i]: 0.0 for i in framing}
  # The module also looks for a piece in lower case.
  weights |= {
    piece: 1.0
    for piece in pieces
    if piece not in weights and piece.lower() in weights
  }
  # A row for each of the model's ids; no text reaches the last ones.
  pieces += [""] * (config.vocab_size - len(pieces))
  return {"vocab": pieces, "word_weights": weights, "unknown_word_weight": 1.0}


def _json(content: Any) -> str:
  return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
