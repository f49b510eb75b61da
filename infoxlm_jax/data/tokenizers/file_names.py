"""Names of tokenizers' files, and the hash and checks that all kinds share."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from infoxlm_jax.errors import InputError

# The name of a SentencePiece model in prepared data and checkpoints, and its
# names elsewhere.
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
  """The hash of the only file, or of names and contents of several; in hex."""
  if len(files) == 1:
    return hashlib.sha256(*files.values()).hexdigest()
  digest = hashlib.sha256()
  for name, content in sorted(files.items()):
    digest.update(f"{name}\0{len(content)}\0".encode())
    digest.update(content)
  return digest.hexdigest()


def checked_ids(ids: Iterable[int], vocab_size: int, path: str) -> list[int]:
  """The ids as a list; InputError if one is not in the vocabulary."""
  out = [int(i) for i in ids]
  for i in out:
    if not 0 <= i < vocab_size:
      raise InputError(
        f"token id {i} is not in the vocabulary of {path} ({vocab_size} ids): "
        "were these ids made with another tokenizer?"
      )
  return out


def as_ids(ids: Iterable[int]) -> np.ndarray:
  """The ids as int32 [length], also if there are none."""
  return np.array(ids, np.int32)
