"""SentencePiece with XLM-R's id layout.

    <s> 0, <pad> 1, </s> 2, <unk> 3, piece i of the file -> i + 1, <mask> last

The file itself has <unk> <s> </s> at its ids 0, 1, 2 (SentencePiece's own
default), so its first ordinary piece, number 3, becomes id 4 and <mask> comes
after the last one: 250,000 pieces make a vocabulary of 250,002.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import sentencepiece

from infoxlm_jax.errors import InputError

# What the copy in prepared data and in checkpoints is called.
TOKENIZER_FILE = "tokenizer.model"

_SPECIAL_NAMES = ("<s>", "<pad>", "</s>", "<unk>")


class Tokenizer:
  """Text to ids and back; thread safe and picklable.

  Attributes:
    path: the file it was read from.
    sha256: hash of the file's bytes, in hex: names the vocabulary in
      manifests and checkpoints.
    vocab_size: number of ids, special ones and <mask> included.
    bos_id, pad_id, eos_id, unk_id, mask_id: special ids.
    num_special: ids below it are special (<mask> is special too, but last).
  """

  bos_id = 0
  pad_id = 1
  eos_id = 2
  unk_id = 3
  num_special = 4

  def __init__(self, model: bytes, path: str):
    self.path = path
    self.sha256 = hashlib.sha256(model).hexdigest()
    self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
    self.vocab_size = self._model.get_piece_size() + 2
    self.mask_id = self.vocab_size - 1

  def encode(self, text: str) -> np.ndarray:
    """Ids of one text, int32 [length], without <s> and </s>."""
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Ids of each text, int32 [length], without <s> and </s>."""
    encoded = self._model.encode(list(texts), out_type=int)
    return [self._from_file_ids(np.array(ids, np.int32)) for ids in encoded]

  def decode(self, ids: Iterable[int]) -> str:
    """The text of ids; special ids and <mask> are left out, <unk> is shown."""
    kept = [i - 1 if i > 3 else 0 for i in self._checked(ids) if self._shown(i)]
    return self._model.decode(kept)

  def pieces(self, ids: Iterable[int]) -> list[str]:
    """The piece of each id, special ones by their names."""
    return [self._piece(i) for i in self._checked(ids)]

  def _from_file_ids(self, ids: np.ndarray) -> np.ndarray:
    return np.where(ids == 0, np.int32(self.unk_id), ids + np.int32(1))

  def _checked(self, ids: Iterable[int]) -> list[int]:
    out = [int(i) for i in ids]
    for i in out:
      if not 0 <= i < self.vocab_size:
        raise InputError(
          f"token id {i} is not in the vocabulary of {self.path} "
          f"({self.vocab_size} ids): were these ids made with another "
          "tokenizer?"
        )
    return out

  def _shown(self, i: int) -> bool:
    return i >= self.unk_id and i != self.mask_id

  def _piece(self, i: int) -> str:
    if i < self.num_special:
      return _SPECIAL_NAMES[i]
    return "<mask>" if i == self.mask_id else self._model.id_to_piece(i - 1)


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
  """Reads a SentencePiece file.

  Raises:
    InputError: the file is missing, is no SentencePiece model, or has its
      special pieces elsewhere than XLM-R's file has them.
  """
  try:
    model = Path(path).read_bytes()
  except OSError as error:
    raise InputError(
      f"cannot read the tokenizer file {path}: {error.strerror}. TOKENIZER "
      "takes the path of a SentencePiece model, for example XLM-R's "
      "sentencepiece.bpe.model."
    ) from error
  try:
    if not model:
      raise RuntimeError("empty")
    tokenizer = Tokenizer(model, str(path))
  except RuntimeError as error:
    raise InputError(
      f"{path} is not a SentencePiece model ({len(model)} bytes read): give "
      "the .model file that spm_train or tools/train_tokenizer.py wrote."
    ) from error
  spm = tokenizer._model
  specials = (spm.unk_id(), spm.bos_id(), spm.eos_id())
  if specials != (0, 1, 2):
    raise InputError(
      f"{path} has <unk>, <s>, </s> at ids {specials}, XLM-R's layout needs "
      "(0, 1, 2), SentencePiece's own default: train it again without "
      "setting these ids."
    )
  return tokenizer
