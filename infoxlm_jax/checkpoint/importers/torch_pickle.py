"""Tensors of torch's pickled files: only on request, and only as data.

A pickle can run any program when it is read. torch's `weights_only=True`
refuses everything but tensors, but had two holes itself. So the user must give
a flag, and torch must be a version in which both are closed.

fairseq's own checkpoints also hold meters, objects of its classes. Where such a
class is named, an empty object of ours is made; no code of fairseq is needed.
"""

import argparse
import importlib
import pickle
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from infoxlm_jax.checkpoint.importers.lazy_tensor import (
  PIECE_BYTES,
  Pieces,
  Tensor,
  looks_like,
)
from infoxlm_jax.errors import InputError

TORCH = (2, 10)  # the first with both holes mended
SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
# Weights hardly compress (float32 noise: 1.1 times); deflate can reach 1,000.
_MAX_RATIO = 20
_SMALL = 16 << 20  # a file that unpacks to so little is harmless
# What fairseq's save_checkpoint stores of its running averages, by version.
_METERS = tuple(
  f"fairseq.{module}.{name}"
  for module in ("meters", "logging.meters")
  for name in ("AverageMeter", "TimeMeter", "StopwatchMeter")
)


class _Meter:
  """Stands for a meter of fairseq: takes whatever it is given, keeps nothing.

  Without a `__dict__` nothing stored in the file can become its attribute.
  """

  __slots__ = ()

  def __new__(cls, *_: Any) -> "_Meter":
    return super().__new__(cls)

  def __init__(self, *_: Any) -> None:
    pass

  def __setstate__(self, state: Any) -> None:
    del state


def refuse(path: Path) -> InputError:
  """Why a torch file is not read without the flag."""
  return InputError(
    f"{path}: is a pickle of torch, which can run programs when it is read"
    " (CVE-2025-32434 and CVE-2026-24747 were holes even in torch's safe"
    " mode). Convert it to safetensors where you trust it, for example with"
    " `AutoModel.from_pretrained(...).save_pretrained(FOLDER)` of transformers,"
    " or, if you know where the file comes from, allow it: --allow_pickle, in"
    " gin --gin.ALLOW_PICKLE=True."
  )


def read_torch(path: Path, *, allow_pickle: bool) -> Any:
  """The object of a torch file, tensors mapped from disk where possible.

  Raises:
    InputError: not allowed, no fit torch, a zip bomb, something else than
      tensors, plain containers and meters of fairseq in it, or a damaged file.
  """
  if not allow_pickle:
    raise refuse(path)
  torch = _torch()
  zipped = zipfile.is_zipfile(path)
  if zipped:
    check_zip(path)
  try:
    # fairseq stores the options of its command line beside the tensors.
    known = [argparse.Namespace, *((_Meter, name) for name in _METERS)]
    with (
      torch.serialization.safe_globals(known),
      warnings.catch_warnings(),
    ):
      # It asks whoever meets a newer pickle to report that to torch.
      warnings.simplefilter("ignore", UserWarning)
      return torch.load(
        path, map_location="cpu", weights_only=True, mmap=zipped
      )
  except pickle.UnpicklingError as error:
    # Not torch's own words: they advise to read it without the safe mode.
    problem = "it is no pickle of tensors as torch writes it"
    if named := re.search(r"GLOBAL (\S+)", str(error)):
      problem = f"it names {named[1]}, which is no tensor"
    raise InputError(
      f"{path}: refused: {problem}. Nothing of it was run. A file of weights"
      " holds tensors and plain values only; do not use this one unless you"
      " trust where it comes from, and then convert it to safetensors."
    ) from None
  except Exception as error:  # of a damaged file it raises any kind
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise InputError(
      f"{path}: cannot be read as a torch file: {first}."
      f"{looks_like(path) if not zipped else ' It is damaged or truncated.'}"
    ) from None


def check_zip(path: Path) -> None:
  """Refuses a broken directory, two members of one name, and a zip bomb.

  Sizes are the declared ones; a member never yields more than it declares.

  Raises:
    InputError: see above.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      members = archive.infolist()
    stored = path.stat().st_size
  except (OSError, EOFError, RuntimeError, ValueError, BadZipFile) as error:
    raise InputError(
      f"{path}: cannot be read as a zip file: {error}.{looks_like(path)}"
    ) from None
  declared = sum(member.file_size for member in members)
  if declared > max(_MAX_RATIO * stored, _SMALL):
    raise InputError(
      f"{path}: {stored:,} bytes would unpack to {declared:,}, more than"
      f" {_MAX_RATIO} times as much. Weights do not compress so well: this is a"
      " zip bomb or no file of weights."
    )
  names = Counter(member.filename for member in members)
  if twice := [name for name, count in names.items() if count > 1]:
    raise InputError(f"{path}: holds the member {twice[0]!r} more than once")


def named_tensors(path: Path, state: Any) -> dict[str, Tensor]:
  """The tensors of a state dict that torch has read.

  Raises:
    InputError: it is no dict of tensors, or a tensor is larger than what is
      stored of it.
  """
  torch = _torch()
  if not isinstance(state, Mapping) or not all(
    isinstance(name, str) and isinstance(value, torch.Tensor)
    for name, value in state.items()
  ):
    raise InputError(
      f"{path}: holds no dict of tensors by name, as a pytorch_model.bin does,"
      " nor a fairseq checkpoint (a dict with 'model' and 'args' or 'cfg')"
    )
  return {name: _tensor(path, name, value) for name, value in state.items()}


def _tensor(path: Path, name: str, value: Any) -> Tensor:
  torch = _torch()
  if value.layout is not torch.strided or value.is_quantized:
    raise InputError(f"{path}: tensor {name} is sparse or quantized")
  if value.numel() * value.element_size() > value.untyped_storage().nbytes():
    raise InputError(
      f"{path}: tensor {name} has shape {tuple(value.shape)} but stores fewer"
      " values: no file of weights"
    )
  return Tensor(
    name=name,
    file=path,
    shape=tuple(value.shape),
    dtype=str(value.dtype).removeprefix("torch."),
    pieces=_pieces(value),
  )


def _pieces(value: Any) -> Pieces:
  torch = _torch()

  def pieces(start: int, stop: int) -> Iterator[np.ndarray]:
    flat = value.detach().reshape(-1)  # a view where it is contiguous
    step = PIECE_BYTES // value.element_size()
    while start < stop:
      piece = flat[start : min(start + step, stop)]
      if piece.dtype is torch.bfloat16:  # numpy has none
        piece = piece.float()
      yield piece.numpy()
      start += step

  return pieces


def _torch() -> Any:
  try:
    torch: Any = importlib.import_module("torch")
    version = torch.__version__
  except ImportError:
    version = "none"
  numbers = re.match(r"(\d+)\.(\d+)", str(version))
  if not numbers or (int(numbers[1]), int(numbers[2])) < TORCH:
    raise InputError(
      f"reading torch's files needs torch {TORCH[0]}.{TORCH[1]} or newer"
      f" (installed: {version}; older ones have CVE-2025-32434 or"
      " CVE-2026-24747): pip install 'infoxlm-jax[parity]', or convert the file"
      " to safetensors elsewhere"
    )
  return torch
