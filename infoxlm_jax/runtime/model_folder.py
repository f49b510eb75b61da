"""The folder of the encoder in a folder of sentence-transformers.

Its older releases put the encoder into a folder of its own, 0_Transformer,
which modules.json names; today's stands at the top.
"""

from pathlib import Path
from typing import Any

from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import read_files

MODULES = "modules.json"
# What follows an encoder and is a choice of how its vectors are read.
_READING = ("Pooling", "Normalize")


def transformer_folder(folder: Path) -> Path:
  """Where the encoder and its tokenizer are; the folder itself as a rule.

  Raises:
    InputError: modules.json names no encoder, or one that is not there.
  """
  modules = _modules(folder)
  if not modules:
    return folder
  encoders = [place for kind, place in modules if kind == "Transformer"]
  if not encoders:
    kinds = ", ".join(kind for kind, _ in modules)
    raise InputError(
      f"{folder / MODULES}: names no Transformer ({kinds}): no encoder that is"
      " known here."
    )
  place = folder / encoders[0]
  if not place.is_dir():
    raise InputError(
      f"{folder / MODULES}: names the folder {encoders[0]}, which is not"
      " there: copy or download it again."
    )
  return place


def is_sentence_encoder(folder: Path) -> bool:
  """Whether it is a folder of sentence-transformers."""
  return (folder / MODULES).is_file()


def modules_left_out(folder: Path) -> dict[str, str]:
  """{folder of a module: its kind}, of those that change an encoder's vectors.

  Raises:
    InputError: a broken modules.json.
  """
  return {
    place: kind
    for kind, place in _modules(folder)
    if kind not in ("Transformer", *_READING)
  }


def _modules(folder: Path) -> list[tuple[str, str]]:
  """(kind, path) of each module; [] where there is no modules.json."""
  if not is_sentence_encoder(folder):
    return []
  file = folder / MODULES
  listed = read_files.parse_json(read_files.read_regular(file), str(file))
  return [_module(one, file) for one in _as_list(listed, file)]


def _as_list(value: Any, file: Path) -> list[Any]:
  if not isinstance(value, list):
    raise InputError(f"{file}: holds no list of modules: it is damaged.")
  return value


def _module(one: Any, file: Path) -> tuple[str, str]:
  described = read_files.check_object(one, file, {"type": str, "path": str})
  path = described["path"]
  kind = described["type"].rpartition(".")[2]
  return kind, read_files.check_inside(path, file) if path else ""
