"""Writes a tokenizer as the files that `transformers` reads."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.data.tokenizers.file_names import CONFIG, JSON, SENTENCEPIECE
from infoxlm_jax.data.tokenizers.huggingface import JsonTokenizer
from infoxlm_jax.data.tokenizers.xlm import XlmTokenizer
from infoxlm_jax.data.tokenizers.xlmr import (
  BYTE,
  NORMAL,
  UNIGRAM,
  SentencePieceTokenizer,
  read_proto,
)
from infoxlm_jax.errors import InputError

SPECIALS_MAP = "special_tokens_map.json"
XLMR_MODEL = "sentencepiece.bpe.model"
_SPACE = "▁"
# The class that uses tokenizer.json as it is. An architecture's class rebuilds
# parts of it from its own options.
_PLAIN = "PreTrainedTokenizerFast"
# Not `WhitespaceSplit`: to SentencePiece a tab that its normalizer leaves is an
# ordinary character.
_AT_SPACES = {
  "type": "Split",
  "pattern": {"String": " "},
  "behavior": "Removed",
  "invert": False,
}


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
      JSON: _json(_unigram(tokenizer)),
      **_configs(tokenizer, _class(tokenizer), model_max_length),
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


def _class(tokenizer: SentencePieceTokenizer) -> str:
  """XLM-R's class if it gives the same ids, else the plain one.

  XLM-R's class also splits at tabs and line ends, and has no byte fallback.
  """
  tabs, spaces = tokenizer.encode_batch(["a\tb\nc\rd", "a b c d"])
  byte_fallback = read_proto(tokenizer).trainer_spec.byte_fallback
  same = tabs.tolist() == spaces.tolist() and not byte_fallback
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


def _unigram(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
  """tokenizer.json of a SentencePiece unigram model, XLM-R's ids."""
  proto = read_proto(tokenizer)
  _check_expressible(proto, tokenizer.path)
  spec = proto.normalizer_spec
  space = {
    "type": "Metaspace",
    "replacement": _SPACE,
    "prepend_scheme": "always" if spec.add_dummy_prefix else "never",
    "split": True,
  }
  specials = tokenizer.pieces([0, 1, 2, 3, tokenizer.mask_id])
  pieces = [(piece.piece, piece.score) for piece in proto.pieces[3:]]
  zeros = [(name, 0.0) for name in specials]
  byte_fallback = proto.trainer_spec.byte_fallback
  bytes_back = [{"type": "ByteFallback"}] if byte_fallback else []
  return {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
      {
        "id": i,
        "content": name,
        "single_word": False,
        # As in XLM-R's file: "a <mask>" has no piece for the space.
        "lstrip": name == "<mask>",
        "rstrip": False,
        "normalized": False,
        "special": True,
      }
      for i, name in zip([0, 1, 2, 3, tokenizer.mask_id], specials, strict=True)
    ],
    "normalizer": _normalizer(spec),
    "pre_tokenizer": {
      "type": "Sequence",
      "pretokenizers": [_AT_SPACES, space],
    },
    "post_processor": _template(tokenizer),
    "decoder": {"type": "Sequence", "decoders": [*bytes_back, space]},
    "model": {
      "type": "Unigram",
      "unk_id": tokenizer.unk_id,
      "vocab": [*zeros[:4], *pieces, zeros[4]],
      "byte_fallback": byte_fallback,
    },
  }


def _check_expressible(proto: Any, path: str) -> None:
  spec = proto.normalizer_spec
  others = [p.piece for p in proto.pieces[3:] if p.type not in (NORMAL, BYTE)]
  problem = ""
  if proto.trainer_spec.model_type != UNIGRAM:
    problem = "it is no unigram model"
  elif others:
    problem = f"it has pieces that are user-defined or unused ({others[0]!r})"
  elif not (spec.remove_extra_whitespaces and spec.escape_whitespaces):
    problem = "it keeps repeated spaces"
  elif proto.trainer_spec.treat_whitespace_as_suffix:
    problem = "it writes spaces at the end of words"
  if problem:
    raise InputError(
      f"{path} cannot be written as a tokenizer.json that gives the same ids: "
      f"{problem}. Train a unigram model with infoxlm-train-tokenizer."
    )


def _normalizer(spec: Any) -> dict[str, Any] | None:
  if not spec.precompiled_charsmap:
    return None
  charsmap = base64.b64encode(spec.precompiled_charsmap).decode()
  return {"type": "Precompiled", "precompiled_charsmap": charsmap}


def _template(tokenizer: Tokenizer) -> dict[str, Any]:
  """XLM-R's post-processor: `<s> A </s>` and `<s> A </s></s> B </s>`."""
  begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
  end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
  a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
  ids = {"<s>": tokenizer.bos_id, "</s>": tokenizer.eos_id}
  return {
    "type": "TemplateProcessing",
    "single": [begin, a, end],
    "pair": [begin, a, end, end, b, end],
    "special_tokens": {
      name: {"id": name, "ids": [i], "tokens": [name]}
      for name, i in ids.items()
    },
  }
