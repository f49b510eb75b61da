"""The tokenizer that belongs to weights, and its ids in their config."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from infoxlm_jax.checkpoint.checksum_file import CHECKSUMS
from infoxlm_jax.checkpoint.importers.load import with_ids
from infoxlm_jax.checkpoint.metadata import (
  MODEL,
  POSITION,
  read_step_files,
)
from infoxlm_jax.data.tokenizers.base import (
  Tokenizer,
  holds_tokenizer,
  load_tokenizer,
  tokenizer_from_files,
)
from infoxlm_jax.data.tokenizers.fairseq_dict import names_of
from infoxlm_jax.data.tokenizers.file_names import DICT, KNOWN_NAMES
from infoxlm_jax.errors import InputError
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.runtime import read_files
from infoxlm_jax.runtime.model_folder import transformer_folder
from infoxlm_jax.runtime.run_dir import IDENTITY
from infoxlm_jax.runtime.run_layout import find_step

_NOT_TOKENIZERS = (CHECKSUMS, MODEL, POSITION)


def find_tokenizer(
  path: str | Path, given: str | Path | None = None
) -> Tokenizer | None:
  """The tokenizer of a model.

  Args:
    path: as load_weights takes it.
    given: the tokenizer's own file or folder; None: the one that the model's
      folder or checkpoint holds.

  Returns:
    None where there is none.

  Raises:
    InputError: a broken one, or one that the checkpoint was not made with.
  """
  path = Path(path)
  if (step := find_step(path)) is not None:
    files = read_step_files(step)
    if given is None:
      # Weights that came without a tokenizer are stored without one.
      theirs = {k: v for k, v in files.items() if k not in _NOT_TOKENIZERS}
      return tokenizer_from_files(theirs, str(step)) if theirs else None
    tokenizer = load_tokenizer(given)
    _check_hash(files, tokenizer, step)
    return tokenizer
  if given is not None:
    tokenizer = load_tokenizer(given)
    check_dictionary(path, tokenizer)
    return tokenizer
  folder = _folder(path)
  return load_tokenizer(folder) if holds_tokenizer(folder) else None


def check_dictionary(path: Path, tokenizer: Tokenizer) -> None:
  """Checks a tokenizer against the dict.txt of fairseq beside the weights.

  fairseq numbers the rows of the embedding by it.

  Args:
    path: the weights, a file or a folder; no checkpoint of this project.
    tokenizer: the one that makes the model's ids.

  Raises:
    InputError: an id stands for two pieces, or the dict.txt is broken.
  """
  place = _folder(path) / DICT
  if not place.is_file():
    return
  theirs = names_of(read_files.read_regular(place), str(place))
  if theirs == tokenizer.pieces(range(tokenizer.vocab_size)):
    return
  raise InputError(
    f"{place}: numbers the pieces otherwise than the tokenizer"
    f" {tokenizer.path}: the weights belong to the numbers of {DICT}. Put the"
    f" SentencePiece model beside it, as sentencepiece.bpe.model: then both"
    " are read together."
  )


def imported_folder(
  path: str | Path, given: str | Path | None = None
) -> Path | None:
  """The Hugging Face folder that a model's tokenizer is from, if it is known.

  Args:
    path: as find_tokenizer takes it.
    given: as find_tokenizer takes it.

  Returns:
    The folder, of the weights that a run started from where `path` is a run;
    None where it is not known, or is gone.

  Raises:
    InputError: the checkpoint is broken.
  """
  step = find_step(Path(path))
  if step is None:
    place = Path(path if given is None else given)
    if given is not None and place.is_file() and place.name not in KNOWN_NAMES:
      return None  # beside it may stand another model's
    folder = _folder(place)
    return folder if holds_tokenizer(folder) else None
  files = read_step_files(step)
  described = json.loads(files[MODEL])
  origin = described.get("imported_from")
  run = step.parent.parent  # <run>/checkpoints/<step>
  if origin is None and (run / IDENTITY).is_file():
    origin = read_files.read_object(run / IDENTITY).get("init_from")
  if not isinstance(origin, str) or not os.path.exists(origin):
    return None
  return imported_folder(origin)


def with_ids_of(
  config: EncoderConfig, tokenizer: Tokenizer, where: str | Path
) -> EncoderConfig:
  """load.with_ids, of a tokenizer that pads as the weights say.

  Args:
    config: of the weights.
    tokenizer: the one that makes the model's ids.
    where: the weights, for messages.

  Raises:
    InputError: the tokenizer is of another model.
  """
  # Only where it decides positions: multilingual-e5's config.json states
  # BERT's 0, and its tokenizer is XLM-R's.
  if config.position_offset and tokenizer.pad_id != config.pad_id:
    raise InputError(
      f"{where}: the model pads with id {config.pad_id}, the tokenizer"
      f" {tokenizer.path} with {tokenizer.pad_id}: they do not belong together."
      " Give the model's own tokenizer."
    )
  return with_ids(config, tokenizer, str(where))


def _folder(path: Path) -> Path:
  """The folder of weights or of a tokenizer, of which `path` may be a file."""
  return transformer_folder(path) if path.is_dir() else path.parent


def _check_hash(
  files: Mapping[str, bytes], tokenizer: Tokenizer, step: Path
) -> None:
  described = read_files.check_object(
    read_files.parse_json(files[MODEL], step / MODEL), step / MODEL, {}
  )
  wanted = described.get("tokenizer_sha256")
  if wanted not in (None, tokenizer.sha256):
    wanted = str(wanted)
    raise InputError(
      f"{step}: was made with the tokenizer whose SHA-256 is {wanted[:12]}...,"
      f" {tokenizer.path} has {tokenizer.sha256[:12]}...: leave the tokenizer"
      " out, the checkpoint has its own."
    )
