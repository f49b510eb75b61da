"""SentencePiece with XLM-R's id layout.

    <s> 0, <pad> 1, </s> 2, <unk> 3, piece i of the file -> i + 1, <mask> last

The file has <unk> <s> </s> at its ids 0, 1, 2 (SentencePiece's default), so its
first ordinary piece, number 3, becomes id 4, and <mask> follows the last one:
250,000 pieces make a vocabulary of 250,002.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import sentencepiece

from infoxlm_jax.data.tokenizers.file_names import (
  SENTENCEPIECE,
  checked_ids,
  sha256_of,
)
from infoxlm_jax.errors import InputError

# The file format's numbers of types of pieces, and of types of models.
NORMAL, USER_DEFINED, BYTE = 1, 4, 6
UNIGRAM, BPE = 1, 2

_SPECIAL_NAMES = ("<s>", "<pad>", "</s>", "<unk>")


class SentencePieceTokenizer:
  """A tokenizer (see base.py) of a SentencePiece model.

  Raises:
    InputError: the bytes are no SentencePiece model, or its special pieces
      have other ids than in XLM-R's file.
  """

  bos_id = 0
  pad_id = 1
  eos_id = 2
  unk_id = 3

  def __init__(self, model: bytes, path: str):
    self.path = path
    self.files: Mapping[str, bytes] = {SENTENCEPIECE: model}
    self.sha256 = sha256_of(self.files)
    self._model = _read(model, path)
    self.vocab_size = self._model.get_piece_size() + 2
    self.mask_id = self.vocab_size - 1
    self.special_ids = frozenset((0, 1, 2, 3, self.mask_id))

  def __reduce__(self) -> tuple[type, tuple[bytes, str]]:
    return type(self), (self.files[SENTENCEPIECE], self.path)

  def encode(self, text: str) -> np.ndarray:
    """Ids of one text, int32 [length], without <s> and </s>."""
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Ids of each text, int32 [length], without <s> and </s>."""
    encoded = self._model.encode(list(texts), out_type=int)
    return [self._from_file_ids(np.array(ids, np.int32)) for ids in encoded]

  def encode_with_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """The ids of `encode`, and the characters of each; see base.py."""
    # Not at the top of the file: it loads protobuf.
    from sentencepiece import sentencepiece_pb2

    # Its classes are made at import, so type checkers do not see them.
    module: Any = sentencepiece_pb2
    encoded = module.SentencePieceText()
    # Of the forms with offsets the one that all releases since 0.2 have.
    encoded.ParseFromString(
      self._model.encode(text, out_type="serialized_proto")
    )
    ids = np.array([piece.id for piece in encoded.pieces], np.int32)
    ends = [(piece.begin, piece.end) for piece in encoded.pieces]
    in_bytes = np.array(ends, np.int64).reshape(-1, 2)
    return self._from_file_ids(ids), _characters(text)[in_bytes]

  def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ids of all texts, concatenated, int32; lengths, int64 [texts].

    It uses one thread and makes no array for each text, as is best for a
    process on each core.
    """
    encoded = self._model.encode(list(texts), out_type=int, num_threads=1)
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    ids = np.fromiter(
      itertools.chain.from_iterable(encoded), np.int32, int(lengths.sum())
    )
    return self._from_file_ids(ids), lengths

  def decode(self, ids: Iterable[int]) -> str:
    """The text of ids; special ids and <mask> are left out, <unk> is shown."""
    kept = [i - 1 if i > 3 else 0 for i in self._checked(ids) if self._shown(i)]
    return self._model.decode(kept)

  def pieces(self, ids: Iterable[int]) -> list[str]:
    """The piece of each id, special ones by their names."""
    return [self._piece(i) for i in self._checked(ids)]

  def surfaces(self, text: str) -> list[str]:
    """The pieces of a text as strings; unknown ones as they are in the text."""
    surfaces: list[str] = self._model.encode(text, out_type=str)
    return surfaces

  def _from_file_ids(self, ids: np.ndarray) -> np.ndarray:
    return np.where(ids == 0, np.int32(self.unk_id), ids + np.int32(1))

  def _checked(self, ids: Iterable[int]) -> list[int]:
    return checked_ids(ids, self.vocab_size, self.path)

  def _shown(self, i: int) -> bool:
    return i >= self.unk_id and i != self.mask_id

  def _piece(self, i: int) -> str:
    if i < len(_SPECIAL_NAMES):
      return _SPECIAL_NAMES[i]
    return "<mask>" if i == self.mask_id else self._model.id_to_piece(i - 1)


def _characters(text: str) -> np.ndarray:
  """The number of the character at each byte of UTF-8, int64 [bytes + 1]."""
  data = np.frombuffer(text.encode("utf-8"), np.uint8)
  starts = (data & 0xC0) != 0x80  # 10xxxxxx continues a character
  return np.concatenate([np.cumsum(starts) - 1, [len(text)]])


def _read(model: bytes, path: str) -> sentencepiece.SentencePieceProcessor:
  try:
    if not model:
      raise RuntimeError("empty")
    spm = sentencepiece.SentencePieceProcessor(model_proto=model)
    # Loading does not check the pieces: those of a damaged file may not be
    # UTF-8, and would fail only when they are printed.
    spm.id_to_piece(list(range(spm.get_piece_size())))
  except (RuntimeError, UnicodeDecodeError) as error:
    raise InputError(
      f"{path} is not a SentencePiece model ({len(model)} bytes read), or is "
      "damaged: give the .model file that spm_train or "
      "infoxlm-train-tokenizer wrote."
    ) from error
  specials = (spm.unk_id(), spm.bos_id(), spm.eos_id())
  if specials != (0, 1, 2):
    raise InputError(
      f"{path} has <unk>, <s>, </s> at ids {specials}, XLM-R's layout needs "
      "(0, 1, 2), SentencePiece's default: train it again without "
      "setting these ids."
    )
  return spm


def read_proto(tokenizer: SentencePieceTokenizer) -> Any:
  """A new ModelProto of the file: .pieces, .trainer_spec, .normalizer_spec."""
  # Not at the top of the file: it loads protobuf.
  from sentencepiece import sentencepiece_model_pb2

  # Its classes are made at import, so type checkers do not see them.
  module: Any = sentencepiece_model_pb2
  proto = module.ModelProto()
  proto.ParseFromString(tokenizer.files[SENTENCEPIECE])
  return proto
