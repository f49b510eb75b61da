"""Small models in many files: what the tests of weights share."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import oracle
from safetensors.numpy import load_file, save_file


def tensors_of(name: str) -> dict[str, np.ndarray]:
  """The tensors of a stored oracle."""
  return load_file(oracle.ORACLES / name / "model.safetensors")


def write(
  folder: Path,
  tensors: dict[str, np.ndarray],
  like: str = "xlmr_mlm",
  **changes: Any,
) -> Path:
  """A Hugging Face folder with these tensors and an oracle's config.json."""
  folder.mkdir(parents=True, exist_ok=True)
  write_config(folder, like, **changes)
  save_file(
    {k: np.ascontiguousarray(v) for k, v in tensors.items()},
    folder / "model.safetensors",
  )
  return folder


def write_config(folder: Path, like: str = "xlmr_mlm", **changes: Any) -> None:
  config = json.loads((oracle.ORACLES / like / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(config | changes))


def copy(folder: Path, name: str = "xlmr_mlm") -> Path:
  return Path(shutil.copytree(oracle.ORACLES / name, folder))


def assert_same(found: Any, wanted: Any) -> None:
  """Equal bit for bit, leaf by leaf, names and all."""
  pairs = zip(
    jax.tree_util.tree_leaves_with_path(found),
    jax.tree_util.tree_leaves_with_path(wanted),
    strict=True,
  )
  for (path, a), (other, b) in pairs:
    assert path == other
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype and a.shape == b.shape, path
    assert a.tobytes() == b.tobytes(), path
