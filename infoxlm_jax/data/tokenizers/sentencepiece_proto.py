"""The content of a SentencePiece model file, to read and to change it."""

from typing import Any

from infoxlm_jax.data.tokenizers.file_names import SENTENCEPIECE
from infoxlm_jax.data.tokenizers.xlmr import SentencePieceTokenizer

# Types of a piece, and of a model, as the format numbers them.
NORMAL, USER_DEFINED, BYTE = 1, 4, 6
UNIGRAM, BPE = 1, 2


def read_proto(tokenizer: SentencePieceTokenizer) -> Any:
  """A ModelProto of its own: .pieces, .trainer_spec, .normalizer_spec."""
  # Not at the top of the file: it loads protobuf.
  from sentencepiece import sentencepiece_model_pb2

  # Its classes are made when it is imported: type checkers see none.
  module: Any = sentencepiece_model_pb2
  proto = module.ModelProto()
  proto.ParseFromString(tokenizer.files[SENTENCEPIECE])
  return proto
