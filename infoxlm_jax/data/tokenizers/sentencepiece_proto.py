"""Parses a SentencePiece model file, so that it can be read and changed."""

from typing import Any

from infoxlm_jax.data.tokenizers.file_names import SENTENCEPIECE
from infoxlm_jax.data.tokenizers.xlmr import SentencePieceTokenizer

# The format's numbers of types of pieces, and of types of models.
NORMAL, USER_DEFINED, BYTE = 1, 4, 6
UNIGRAM, BPE = 1, 2


def read_proto(tokenizer: SentencePieceTokenizer) -> Any:
  """A new ModelProto: .pieces, .trainer_spec, .normalizer_spec."""
  # Not at the top of the file: it loads protobuf.
  from sentencepiece import sentencepiece_model_pb2

  # Its classes are made at import, so type checkers do not see them.
  module: Any = sentencepiece_model_pb2
  proto = module.ModelProto()
  proto.ParseFromString(tokenizer.files[SENTENCEPIECE])
  return proto
