"""The small files of a checkpoint: position in the data, model, checksums.

They are plain JSON, so a checkpoint can be used without executing gin files.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infoxlm_jax.checkpoint import checksum_file
from infoxlm_jax.checkpoint.checksum_file import Damaged
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.runtime.run_layout import FILES

POSITION, MODEL = "position.json", "model.json"
_COMMITTED = "commit_success.txt"  # orbax puts it into every finished folder


@dataclasses.dataclass
class Position:
  """The progress of a run, kept on the host and stored in its checkpoints.

  A batch is a function of the seed and the number of samples drawn before it,
  so these counts are all that an exact resume of the data needs.

  Attributes:
    samples: samples drawn so far, by stream.
    tokens: tokens trained on so far.
    seconds: time that the run has taken so far.
    metric_lines: lines of metrics.jsonl so far; 0: unknown.
  """

  samples: dict[str, int]
  tokens: int = 0
  seconds: float = 0.0
  metric_lines: int = 0

  @classmethod
  def read(cls, files: Mapping[str, bytes]) -> "Position":
    """Reads the position from a checkpoint's small files."""
    return cls(**json.loads(files[POSITION]))

  def file(self) -> dict[str, bytes]:
    """{"position.json": contents}, for the files of a checkpoint."""
    return {POSITION: json.dumps(dataclasses.asdict(self)).encode()}

  def advance(self, streams: Mapping[str, Any]) -> None:
    """Adds the batch of one update to the samples of every stream."""
    self.samples = {
      name: self.samples[name] + stream.batch
      for name, stream in streams.items()
    }


def key_encoder_part(files: Mapping[str, bytes]) -> str | None:
  """Path of the key encoder's parameters in a checkpoint's state, or None.

  Args:
    files: the small files of the checkpoint, by name. Where the run has
      several contrasts, model.json names the one whose key encoder this is.
  """
  contrast = json.loads(files[MODEL]).get("contrast") or {}
  part = "key_params"
  if "name" in contrast:
    part = f"objective_state/{contrast['name']}/key_params"
  arrays = checksum_file.read(files, "the checkpoint").arrays
  return part if any(a.startswith(f"{part}/") for a in arrays) else None


def describe_model(
  model: EncoderConfig,
  tokenizer: Tokenizer | None = None,
  *,
  contrast: Mapping[str, Any] | None = None,
  imported_from: str | None = None,
  languages: Sequence[str] | None = None,
) -> bytes:
  """model.json: the facts that are needed to use the weights.

  Args:
    model: the encoder.
    tokenizer: None if the weights have none.
    contrast: name and options of the objective that trains sentence vectors
      (contrast.describe), if there is one.
    imported_from: the folder of another program that weights and tokenizer
      are from, with which an export compares ids.
    languages: of the rows of the type embedding, where these are languages.
  """
  ids = model.ids
  described = {
    "architecture": model.architecture,
    "encoder": dataclasses.asdict(model),
    "padded_vocab": model.padded_vocab,
    "special_ids": {
      "bos": ids.bos,
      "pad": ids.pad,
      "eos": ids.eos,
      "unk": ids.unk,
      "mask": ids.mask,
    },
    "tokenizer_sha256": None if tokenizer is None else tokenizer.sha256,
    "contrast": None if contrast is None else dict(contrast),
  }
  if imported_from is not None:
    described["imported_from"] = imported_from
  if languages is not None:
    described["languages"] = list(languages)
  return json.dumps(described, indent=2).encode()


def read_model(
  files: Mapping[str, bytes], where: Any, **options: Any
) -> EncoderConfig:
  """The encoder that model.json describes.

  Args:
    files: the small files of a checkpoint, by name.
    where: the checkpoint, for messages.
    **options: fields that the user may choose, such as dtype; they replace
      the values of the training, which model.json holds.

  Raises:
    InputError: model.json is missing, broken, or from a later version.
  """
  known = {field.name for field in dataclasses.fields(EncoderConfig)}
  try:
    fields = dict(json.loads(files[MODEL])["encoder"])
    if later := sorted(set(fields) - known):
      raise InputError(
        f"{where}: {MODEL} has {', '.join(later)}, which this version does not"
        " know: use the version that wrote it, or a later one"
      )
    return EncoderConfig(**(fields | options))
  except (KeyError, TypeError, ValueError) as error:
    raise InputError(
      f"{where}: {MODEL} cannot be read: {error!r}. Is this a checkpoint?"
    ) from None


def read_folder(folder: Path) -> dict[str, bytes]:
  """The small files of a checkpoint by name, not verified."""
  return {
    path.name: path.read_bytes()
    for path in folder.iterdir()
    if path.name != _COMMITTED
  }


def read_step_files(step: Path) -> dict[str, bytes]:
  """The small files of a checkpoint's folder by name, verified.

  Args:
    step: the folder of one checkpoint; it is only read.

  Raises:
    InputError: a file is missing, or differs from the saved one.
  """
  try:
    return verified(read_folder(step / FILES), step)
  except (OSError, Damaged) as error:
    raise InputError(
      f"{step}: cannot be used as a checkpoint: {error}. Give another step's"
      " folder."
    ) from None


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """Nested dicts from paths: the inverse of partitioning.path_of.

  >>> unflatten({"embed/token": 1, "embed/type": 2, "heads/pooler/bias": 3})
  {'embed': {'token': 1, 'type': 2}, 'heads': {'pooler': {'bias': 3}}}
  """
  tree: dict[str, Any] = {}
  for path, leaf in leaves.items():
    *parents, name = path.split("/")
    place = tree
    for parent in parents:
      place = place.setdefault(parent, {})
    place[name] = leaf
  return tree


def verified(files: dict[str, bytes], where: Any) -> dict[str, bytes]:
  """Compares each file with its stored hash, and returns all of them.

  Raises:
    Damaged: a file is missing, or differs from the saved one.
    InputError: the checkpoint has a format that this version does not read.
  """
  for name, digest in checksum_file.read(files, where).files.items():
    if hashlib.sha256(files.get(name, b"")).hexdigest() != digest:
      raise Damaged(f"{where}: {name} is not what was saved")
  return files
