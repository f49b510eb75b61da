"""Names of tokenizers' files, and the hash and checks that all kinds share."""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import limits

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
KNOWN_NAMES = (*SENTENCEPIECE_NAMES, JSON, VOCAB_JSON, MERGES, VOCAB_TXT)
DICT = "dict.txt"  # fairseq's, beside a SentencePiece model
CONFIG = "tokenizer_config.json"
# What a Hugging Face folder may say about its tokenizer besides.
MODEL_CONFIG = "config.json"
SPECIALS_MAP = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"


def sha256_of(files: Mapping[str, bytes]) -> str:
  """The hash of the only file, or of names and contents of several; in hex."""
  if len(files) == 1:
    return hashlib.sha256(*files.values()).hexdigest()
  digest = hashlib.sha256()
  for name, content in sorted(files.items()):
    digest.update(f"{name}\0{len(content)}\0".encode())
    digest.update(content)
  return digest.hexdigest()


def lines_of(content: bytes, where: str, otherwise: str = "") -> list[str]:
  r"""The lines of a vocabulary's file, divided at \n.

  Args:
    content: of the file.
    where: the file, for messages.
    otherwise: what a file of other bytes is not, for messages.

  Raises:
    InputError: it is not UTF-8.
  """
  try:
    return content.decode("utf-8").split("\n")
  except UnicodeDecodeError as error:
    is_not = f": {otherwise}" if otherwise else ""
    raise InputError(
      f"{where}: byte {error.start + 1} is not UTF-8{is_not}."
    ) from None


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


def check_vocabulary(pieces: Iterable[tuple[Any, Any]], where: str) -> None:
  """Checks the ids that a file gives its pieces.

  Tables are as long as the largest id, so a file of a few bytes could ask for
  gigabytes.

  Args:
    pieces: each piece and its id, as they are in the file.
    where: the file, for messages.

  Raises:
    InputError: there is none; one is no whole number from 0 up, or above
      limits.IDS.
  """
  largest = -1
  for piece, i in pieces:
    if type(i) is not int or i < 0:
      raise InputError(
        f"{where}: the piece {str(piece)[:40]!r} has the id {repr(i)[:40]}:"
        " expected a whole number."
      )
    largest = max(largest, i)
  if largest < 0:
    raise InputError(f"{where}: has no pieces: truncated?")
  if largest >= limits.IDS.value:
    raise limits.IDS.exceeded(f"{where}: a piece has the id {largest}")


@contextlib.contextmanager
def library_errors(path: str) -> Iterator[None]:
  """Turns errors of a tokenizer's library into InputErrors.

  The `tokenizers` package raises plain Exceptions; what its Rust code did not
  expect, such as a file that contradicts itself, comes as a PanicException,
  which is only a BaseException.

  Args:
    path: of the tokenizer's file.

  Raises:
    InputError: the library failed.
  """
  try:
    yield
  except (InputError, KeyboardInterrupt, SystemExit, GeneratorExit):
    raise
  except BaseException as error:
    if not isinstance(error, Exception) and not _is_panic(error):
      raise
    raise InputError(
      f"{path}: the tokenizer cannot be used: its library says"
      f" {' '.join(str(error).split())[:300]!r}. The file is damaged, or needs"
      " another version of the package."
    ) from error


def _is_panic(error: BaseException) -> bool:
  return type(error).__name__ == "PanicException"
