"""A model to export, with its tokenizer and the results of its run."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from infoxlm_jax.checkpoint.importers.find_tokenizer import (
  find_tokenizer,
  imported_folder,
  with_ids_of,
)
from infoxlm_jax.checkpoint.importers.load import load_weights
from infoxlm_jax.checkpoint.metadata import (
  MODEL,
  key_encoder_part,
  read_model,
  read_step_files,
)
from infoxlm_jax.checkpoint.params import read_params
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.runtime import read_files
from infoxlm_jax.runtime.json_crc import read_checked
from infoxlm_jax.runtime.run_dir import IDENTITY
from infoxlm_jax.runtime.run_layout import RESULTS, find_step

ENCODERS = ("query", "key")


@dataclasses.dataclass(frozen=True)
class Source:
  """A model to export.

  Attributes:
    path: what it was read from.
    config, params: of the encoder and its heads.
    tokenizer: None where there is none.
    results: of the run, {} where there is none; "init_from" is the name of
      the weights that it started from.
    encoder: "query", what is trained, or "key", its moving average.
    notes: sentences for the model card on what was done to it since.
    imported_from: the Hugging Face folder that its tokenizer is from, with
      whose ids those of an export must be equal; None where it is not known,
      or the vocabulary was trimmed since.
  """

  path: str
  config: EncoderConfig
  params: Mapping[str, Any]
  tokenizer: Tokenizer | None
  results: Mapping[str, Any]
  encoder: str = "query"
  notes: tuple[str, ...] = ()
  imported_from: Path | None = None

  @property
  def chosen(self) -> tuple[int | None, str | None]:
    """Layer and pooling that the run's evaluation chose on dev."""
    dev = self.results.get("retrieval", {}).get("dev", {})
    return dev.get("layer"), dev.get("pooling")


def open_source(
  path: str | Path,
  *,
  tokenizer: str | Path | None = None,
  encoder: str = "query",
  allow_pickle: bool = False,
) -> Source:
  """Reads a run, a checkpoint, or a Hugging Face folder.

  Raises:
    InputError: nothing there, something broken, or no key encoder in it.
  """
  own_tokenizer = find_tokenizer(path, tokenizer)
  if encoder == "key":
    config, params = _key_encoder(Path(path))
  else:
    config, params, _ = load_weights(path, allow_pickle=allow_pickle)
  if own_tokenizer is not None:
    config = with_ids_of(config, own_tokenizer, path)
  config, params = _with_their_positions(config, params)
  results = _results(Path(path))
  if encoder == "key":  # which the run did not evaluate
    results = {k: v for k, v in results.items() if k != "retrieval"}
  return Source(
    str(path),
    config,
    params,
    own_tokenizer,
    results,
    encoder,
    imported_from=imported_folder(path, tokenizer),
  )


def first_layers(source: Source, layers: int) -> Source:
  """The encoder up to a layer, without any head.

  Raises:
    InputError: no such layer.
  """
  config = source.config
  if not 1 <= layers <= config.num_layers:
    raise InputError(
      f"layer {layers}: {source.path} has {config.num_layers} layers, and a"
      " model has at least one"
    )
  params = {
    "embed": source.params["embed"],
    "layers": jax.tree.map(lambda x: x[:layers], source.params["layers"]),
    "heads": {},
  }
  config = dataclasses.replace(config, num_layers=layers)
  return dataclasses.replace(source, config=config, params=params)


def _with_their_positions(
  config: EncoderConfig, params: dict[str, Any]
) -> tuple[EncoderConfig, dict[str, Any]]:
  """A position table that begins where transformers looks for it.

  RoBERTa's first position is row pad + 1. A model from scratch may have a
  tokenizer whose padding is another id than the row before its positions.
  """
  first = config.pad_id + 1
  if config.architecture != "xlm-roberta" or config.position_offset == first:
    return config, params
  table = np.asarray(params["embed"]["position"])[config.position_offset :]
  table = np.pad(table, [(first, 0), (0, 0)])
  embed = dict(params["embed"]) | {"position": table}
  config = dataclasses.replace(config, position_offset=first)
  return config, params | {"embed": embed}


def _key_encoder(path: Path) -> tuple[EncoderConfig, dict[str, Any]]:
  step = find_step(path)
  if step is None:
    raise InputError(
      f"{path}: is no run or checkpoint of this project; only those have a key"
      " encoder"
    )
  files = read_step_files(step)
  contrast = json.loads(files[MODEL]).get("contrast")
  part = key_encoder_part(files)
  if not contrast or part is None:
    raise InputError(
      f"{step}: holds no key encoder: the run had no contrast, or the"
      " checkpoint is of weights only"
    )
  device = SingleDeviceSharding(jax.local_devices()[0])
  params, _ = read_params(
    step,
    files,
    lambda name, shape: device,
    lambda name: not name.startswith("heads/"),
    part=part,
  )
  config = dataclasses.replace(
    read_model(files, step), num_layers=contrast["layer"]
  )
  return config, {"heads": {}} | params


def _results(path: Path) -> dict[str, Any]:
  """What is known of the run that a path belongs to."""
  step = find_step(path)
  if step is None:
    return {}
  run = step.parent.parent  # <run>/checkpoints/<step>
  results = {}
  if (run / RESULTS).is_file():
    results = read_checked(run / RESULTS)
  if (run / IDENTITY).is_file():
    init_from = read_files.read_object(run / IDENTITY).get("init_from")
    if init_from:  # the name alone: a path would tell about the user's machine
      results["init_from"] = Path(init_from).name
  return results
