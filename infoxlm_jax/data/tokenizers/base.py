"""The protocol of a tokenizer, and how one is loaded from files.

The kinds, in the order in which a folder is searched for their files:

    tokenizer.model, sentencepiece.bpe.model ...   SentencePiece, XLM-R's ids
    tokenizer.json                                 Hugging Face's own format
    vocab.json + merges.txt                        XLM
    vocab.txt                                      BERT

The options of a vocab.* are in a tokenizer_config.json beside it. In a Hugging
Face folder also count the class of the tokenizer and the tokens that people
added (hugging_face_folder.py), in one of fairseq a dict.txt (fairseq_dict.py).
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from infoxlm_jax.data.tokenizers import file_names as names
from infoxlm_jax.data.tokenizers import hugging_face_folder
from infoxlm_jax.data.tokenizers.fairseq_dict import FairseqTokenizer
from infoxlm_jax.data.tokenizers.huggingface import JsonTokenizer, read_json
from infoxlm_jax.data.tokenizers.vocab_txt import read_vocab_txt
from infoxlm_jax.data.tokenizers.xlm import XlmTokenizer
from infoxlm_jax.data.tokenizers.xlmr import SentencePieceTokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import read_files
from infoxlm_jax.runtime.model_folder import transformer_folder
from infoxlm_jax.runtime.run_layout import FILES, find_step


class Tokenizer(Protocol):
  """Text to ids and back; thread safe and picklable.

  Attributes:
    path: the file or folder that it was read from.
    sha256: hex digest that names the vocabulary in manifests and checkpoints:
      of the file's bytes, or of names and bytes of several files.
    files: contents of its files by the names under which `load_tokenizer`
      finds them in a folder.
    vocab_size: number of ids, with the special ones.
    bos_id, pad_id, eos_id, unk_id, mask_id: special ids.
    special_ids: these and all other special ids.
  """

  path: str
  sha256: str
  vocab_size: int
  mask_id: int
  special_ids: frozenset[int]

  @property
  def files(self) -> Mapping[str, bytes]:
    """See the class."""

  @property
  def bos_id(self) -> int:
    """See the class."""

  @property
  def pad_id(self) -> int:
    """See the class."""

  @property
  def eos_id(self) -> int:
    """See the class."""

  @property
  def unk_id(self) -> int:
    """See the class."""

  def encode(self, text: str) -> np.ndarray:
    """Ids of one text, int32 [length], without <s> and </s>.

    <unk> is the only special id that a text becomes: "<mask>" is text here, a
    special token in transformers.
    """

  def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Ids of each text, int32 [length], without <s> and </s>."""

  def encode_with_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """The ids of `encode`, and the characters that each stands for.

    Returns:
      int32 [length], and start and end in `text`, int64 [length, 2]. They may
      include the space before a word. A piece that stands for no character of
      its own, such as a first "▁", has an empty span.

    Raises:
      InputError: this kind of tokenizer does not know them.
    """

  def decode(self, ids: Iterable[int]) -> str:
    """The text of ids; special ids are left out, <unk> is shown."""

  def pieces(self, ids: Iterable[int]) -> list[str]:
    """The piece of each id, special ones by their names."""


def framed(tokenizer: Tokenizer, ids: Any) -> np.ndarray:
  """`<s> ids </s>`, int32 [length + 2].

  Args:
    tokenizer: that has made the ids.
    ids: [length].
  """
  parts = ([tokenizer.bos_id], ids, [tokenizer.eos_id])
  return np.concatenate(parts, dtype=np.int32, casting="unsafe")


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
  """Reads a tokenizer from a file or a folder.

  Args:
    path: a file of one of the kinds above (its other files are read from the
      same folder), or a folder that holds one: a Hugging Face model, prepared
      data, a checkpoint or a run of this project.

  Raises:
    InputError: nothing is there, no tokenizer, a broken one, or one whose ids
      transformers would give otherwise.
  """
  path = Path(path)
  try:
    if path.is_dir():
      path = _folder_of(path)
      path /= _chosen(os.listdir(path), str(path))
    return _load_file(path)
  except OSError as error:
    raise InputError(
      f"cannot read the tokenizer {error.filename or path}: "
      f"{error.strerror}. TOKENIZER takes the path of a SentencePiece model "
      "(XLM-R's sentencepiece.bpe.model), of a tokenizer.json, or of a folder "
      "that holds one."
    ) from error


def _folder_of(path: Path) -> Path:
  """The folder of the tokenizer's files: the path, or one inside it."""
  if holds_tokenizer(path):
    return path
  step = find_step(path)
  return transformer_folder(path) if step is None else step / FILES


def tokenizer_from_files(files: Mapping[str, bytes], where: str) -> Tokenizer:
  """The tokenizer among files in memory, such as those of a checkpoint.

  Args:
    files: contents by name; files that are no tokenizer's are ignored.
    where: name of their place, for messages.

  Raises:
    InputError: no tokenizer among them, or a broken one.
  """
  return _of_kind(_chosen(files, where), files, where)


def save_tokenizer(
  tokenizer: Tokenizer, folder: str | os.PathLike[str]
) -> None:
  """Writes the tokenizer's files into an existing folder.

  Raises:
    OSError: writing failed.
  """
  for name, content in tokenizer.files.items():
    (Path(folder) / name).write_bytes(content)


def holds_tokenizer(folder: str | os.PathLike[str]) -> bool:
  """Whether `load_tokenizer` finds files in this folder."""
  return _choose(os.listdir(folder)) is not None


# The files that each kind must have.
_KINDS = (
  *((name,) for name in names.SENTENCEPIECE_NAMES),
  (names.JSON,),
  (names.VOCAB_JSON, names.MERGES),
  (names.VOCAB_TXT,),
)


def _choose(present: Iterable[str]) -> str | None:
  """Name of the first file of the first kind that is present, or None."""
  names_present = set(present)
  for needed in _KINDS:
    if names_present.issuperset(needed):
      return needed[0]
  return None


def _chosen(present: Iterable[str], where: str) -> str:
  """As `_choose`, but raises InputError if there is none."""
  chosen = _choose(present)
  if chosen is None:
    looked = ", ".join(" + ".join(needed) for needed in _KINDS)
    raise InputError(
      f"no tokenizer in {where}: looked for {looked}. Give the tokenizer's "
      "own file or folder."
    )
  return chosen


def _needed(first: str) -> tuple[str, ...]:
  """The files of the kind whose first file this is."""
  return next(needed for needed in _KINDS if needed[0] == first)


def _beside(first: str) -> tuple[str, ...]:
  """What may stand beside a kind's files and decide about its ids."""
  if first in names.SENTENCEPIECE_NAMES:
    return (names.JSON, names.DICT, *hugging_face_folder.BESIDE)
  return hugging_face_folder.BESIDE


def _of_kind(first: str, files: Mapping[str, bytes], where: str) -> Tokenizer:
  wanted = (*_needed(first), *_beside(first))
  files = hugging_face_folder.files_to_read(
    first, {name: files[name] for name in wanted if name in files}, where
  )
  first = next(iter(files))
  if names.DICT in files:
    return FairseqTokenizer(files, where)
  if first == names.SENTENCEPIECE:
    return SentencePieceTokenizer(files[first], where)
  if first == names.JSON:
    return JsonTokenizer(files, where, read_json)
  if first == names.VOCAB_TXT:
    return JsonTokenizer(files, where, read_vocab_txt)
  return XlmTokenizer(files, where)


def _load_file(path: Path) -> Tokenizer:
  """Loads a file, with what stands beside it in the same folder."""
  # Files of other names may belong to anything that stands beside them.
  beside: tuple[str, ...] = ()
  if path.name in (names.VOCAB_JSON, names.MERGES):
    first = names.VOCAB_JSON
    beside = (names.MERGES, *_beside(first))
    path = path.with_name(first)
  elif path.suffix == ".json":
    first = names.JSON
    beside = _beside(first) if path.name == first else ()
  elif path.suffix == ".txt":
    first = names.VOCAB_TXT
    beside = _beside(first) if path.name == first else (names.CONFIG,)
  elif path.name in names.SENTENCEPIECE_NAMES:
    first = path.name
    beside = _beside(first)
  else:
    first = names.SENTENCEPIECE
  files = {first: read_files.read_regular(path)}
  for name in beside:
    if name == names.MERGES or path.with_name(name).exists():
      files[name] = read_files.read_regular(path.with_name(name))
  return _of_kind(first, files, str(path))
