"""STAND-IN until branch tok lands: SentencePiece only."""

import json

import numpy as np
from sentencepiece import sentencepiece_model_pb2 as pb

from infoxlm_jax.errors import InputError


def hugging_face_files(tokenizer, max_length):
  model = tokenizer.files.get("tokenizer.model")
  if model is None:
    return dict(tokenizer.files)
  config = {
    "tokenizer_class": "XLMRobertaTokenizer",
    "model_max_length": max_length,
  }
  return {
    "sentencepiece.bpe.model": model,
    "tokenizer_config.json": json.dumps(config).encode(),
  }


def trim(tokenizer, keep):
  model = tokenizer.files.get("tokenizer.model")
  if model is None:
    raise InputError("only SentencePiece")
  proto = pb.ModelProto.FromString(model)
  ids = {int(i) - 1 for i in keep if 3 < i < tokenizer.mask_id}
  scores = [(p.score, i) for i, p in enumerate(proto.pieces) if p.type == 1]
  ids |= {0, 1, 2, min(scores)[1]}
  ids |= {i for i, p in enumerate(proto.pieces) if p.type != 1}
  kept = sorted(ids)
  pieces = [proto.pieces[i] for i in kept]
  new = pb.ModelProto()
  new.CopyFrom(proto)
  del new.pieces[:]
  new.pieces.extend(pieces)
  new.trainer_spec.vocab_size = len(pieces)
  old = [0, 1, 2, 3] + [i + 1 for i in kept if i > 2] + [tokenizer.mask_id]
  return {"tokenizer.model": new.SerializeToString()}, np.array(old)
