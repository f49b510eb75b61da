"""What the kinds of tokenizers share: their files' names, hash and checks."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from infoxlm_jax.errors import InputError

# What the copy in prepared data and in checkpoints is called, and what else
# people call a SentencePiece model.
SENTENCEPIECE = "tokenizer.model"
SENTENCEPIECE_NAMES = (
  SENTENCEPIECE,
  "sentencepiece.bpe.model",
  "sentencepiece.model",
  "spiece.model",
  "spm.model",
)
JSON = "tokenizer.json"
VOCAB_JSON, MERGES = "vocab.json", "merges.txt"
VOCAB_TXT = "vocab.txt"
CONFIG = "tokenizer_config.json"


def sha256_of(files: Mapping[str, bytes]) -> str:
  """Names a vocabulary: the hash of its only file, or of names and contents."""
  if len(files) == 1:
    return hashlib.sha256(*files.values()).hexdigest()
  digest = hashlib.sha256()
  for name, content in sorted(files.items()):
    digest.update(f"{name}\0{len(content)}\0".encode())
    digest.update(content)
  return digest.hexdigest()


def checked_ids(ids: Iterable[int], vocab_size: int, path: str) -> list[int]:
  """The ids as a list; InputError for one that is none of the vocabulary."""
  out = [int(i) for i in ids]
  for i in out:
    if not 0 <= i < vocab_size:
      raise InputError(
        f"token id {i} is not in the vocabulary of {path} ({vocab_size} ids): "
        "were these ids made with another tokenizer?"
      )
  return out


def as_ids(ids: Iterable[int]) -> np.ndarray:
  """int32 [length], also of no ids."""
  return np.array(ids, np.int32)
