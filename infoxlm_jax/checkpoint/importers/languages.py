"""The languages of a model's language embeddings, in the order of their rows.

XLM adds an embedding of its language to every token. Which row is which
language stands in the model.json of this project's checkpoints ("languages"),
and in "lang2id" of a Hugging Face config.json.
"""

import json
from pathlib import Path
from typing import Any

from infoxlm_jax.checkpoint.importers import hf_config, open_weights
from infoxlm_jax.checkpoint.metadata import MODEL, read_step_files
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import read_files
from infoxlm_jax.runtime.run_layout import find_step


def languages_of(path: str | Path) -> tuple[str, ...] | None:
  """Languages of the rows of the type embedding; None: it is not said.

  Args:
    path: of weights, as load_weights takes it.

  Raises:
    InputError: no weights are there, or the file that should say it is broken.
  """
  path = Path(path)
  if (step := find_step(path)) is not None:
    stated = json.loads(read_step_files(step)[MODEL]).get("languages")
    return None if stated is None else tuple(map(str, stated))
  config = hf_config.path_of(open_weights.find(path))
  if not config.is_file():
    return None
  numbers = read_files.read_object(config).get("lang2id")
  return None if numbers is None else _in_order(numbers, str(config))


def _in_order(numbers: Any, where: str) -> tuple[str, ...]:
  """{"en": 1, "ar": 0} as ("ar", "en")."""
  if not isinstance(numbers, dict) or not all(
    type(n) is int for n in numbers.values()
  ):
    raise InputError(f"{where}: lang2id is no object of languages and numbers")
  if sorted(numbers.values()) != list(range(len(numbers))):
    raise InputError(
      f"{where}: lang2id = {numbers} does not give every number from 0 to"
      f" {len(numbers) - 1} to one language"
    )
  return tuple(sorted(numbers, key=numbers.__getitem__))
