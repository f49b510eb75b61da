"""Writes a tokenizer as the files that `transformers` reads."""

import json
from collections.abc import Mapping
from typing import Any

from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.data.tokenizers.fairseq_dict import (
  FairseqTokenizer,
  fairseq_json,
)
from infoxlm_jax.data.tokenizers.file_names import (
  CONFIG,
  JSON,
  SENTENCEPIECE,
  SPECIALS_MAP,
)
from infoxlm_jax.data.tokenizers.huggingface import JsonTokenizer
from infoxlm_jax.data.tokenizers.sentencepiece_json import (
  as_json,
  inexpressible,
  xlmr_pieces,
)
from infoxlm_jax.data.tokenizers.xlm import XlmTokenizer
from infoxlm_jax.data.tokenizers.xlmr import (
  UNIGRAM,
  SentencePieceTokenizer,
  read_proto,
)

XLMR_MODEL = "sentencepiece.bpe.model"
# The class that uses tokenizer.json as it is. An architecture's class rebuilds
# parts of it from its own options.
_PLAIN = "PreTrainedTokenizerFast"


def hugging_face_files(
  tokenizer: Tokenizer, model_max_length: int = 512
) -> dict[str, bytes]:
  """Contents by name of the files that `AutoTokenizer.from_pretrained` reads.

  Args:
    tokenizer: of any of our kinds.
    model_max_length: the model's most tokens, with <s> and </s>.

  Raises:
    InputError: a SentencePiece model that tokenizer.json cannot express.
  """
  if isinstance(tokenizer, SentencePieceTokenizer):
    return {
      XLMR_MODEL: tokenizer.files[SENTENCEPIECE],
      JSON: as_json(tokenizer, xlmr_pieces(tokenizer)),
      **_configs(tokenizer, _class(tokenizer), model_max_length),
    }
  if isinstance(tokenizer, FairseqTokenizer):
    return {
      JSON: fairseq_json(tokenizer),
      **_configs(tokenizer, _PLAIN, model_max_length),
    }
  if isinstance(tokenizer, XlmTokenizer):
    config = json.loads(tokenizer.files.get(CONFIG, b"{}")) | {
      "tokenizer_class": "XLMTokenizer",
      "do_lowercase_and_remove_accent": tokenizer.lower_case,
      "model_max_length": model_max_length,
    }
    return {**tokenizer.files, CONFIG: _json(config)}
  assert isinstance(tokenizer, JsonTokenizer), type(tokenizer)
  return {
    **{k: v for k, v in tokenizer.files.items() if k not in (JSON, CONFIG)},
    JSON: tokenizer.to_json(),
    **_configs(tokenizer, _PLAIN, model_max_length),
  }


def why_not_exported(tokenizer: Tokenizer) -> str | None:
  """Why transformers cannot have this tokenizer, as a sentence; None: it can.

  To be said when a run begins, not when it is exported at last.
  """
  problem = None
  if isinstance(tokenizer, SentencePieceTokenizer):
    problem = inexpressible(tokenizer)
  elif isinstance(tokenizer, FairseqTokenizer):
    problem = tokenizer.inexpressible()
  if problem is None:
    return None
  return (
    f"The tokenizer {tokenizer.path} cannot be written for transformers"
    f" ({problem}): an export of this model holds the weights alone."
  )


def _class(tokenizer: SentencePieceTokenizer) -> str:
  """XLM-R's class if it gives the same ids, else the plain one.

  XLM-R's class is of unigram models, also splits at tabs and line ends, and
  has no byte fallback.
  """
  tabs, spaces = tokenizer.encode_batch(["a\tb\nc\rd", "a b c d"])
  spec = read_proto(tokenizer).trainer_spec
  same = tabs.tolist() == spaces.tolist() and not spec.byte_fallback
  same &= spec.model_type == UNIGRAM
  return "XLMRobertaTokenizer" if same else _PLAIN


def _json(content: Mapping[str, Any]) -> bytes:
  return json.dumps(content, ensure_ascii=False, indent=2).encode()


def _configs(
  tokenizer: Tokenizer, name: str, model_max_length: int
) -> dict[str, bytes]:
  bos, pad, eos, unk, mask = tokenizer.pieces(
    [
      tokenizer.bos_id,
      tokenizer.pad_id,
      tokenizer.eos_id,
      tokenizer.unk_id,
      tokenizer.mask_id,
    ]
  )
  specials = {
    "bos_token": bos,
    "eos_token": eos,
    "cls_token": bos,
    "sep_token": eos,
    "pad_token": pad,
    "unk_token": unk,
    "mask_token": mask,
  }
  inputs = ["input_ids", "attention_mask"]
  if bos == "[CLS]":
    inputs.insert(1, "token_type_ids")
  config = specials | {
    "tokenizer_class": name,
    "model_max_length": model_max_length,
    "model_input_names": inputs,
    "clean_up_tokenization_spaces": False,
  }
  return {CONFIG: _json(config), SPECIALS_MAP: _json(specials)}
