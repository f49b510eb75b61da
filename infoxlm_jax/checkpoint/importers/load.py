"""Loads weights of any known format as our parameters, with a report.

Hugging Face folders and files, fairseq's XLM-R and InfoXLM, and this project's
own checkpoints. Which tensor is which array is parameter_map.py's table.
"""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, SingleDeviceSharding

from infoxlm_jax.checkpoint.importers import (
  assemble,
  hf_config,
  open_weights,
  tensor_names,
)
from infoxlm_jax.checkpoint.importers.report import Loaded, Report
from infoxlm_jax.checkpoint.importers.torch_pickle import SUFFIXES
from infoxlm_jax.checkpoint.metadata import (
  read_model,
  read_step_files,
  unflatten,
)
from infoxlm_jax.checkpoint.params import read_params
from infoxlm_jax.data.tokenizers.base import Tokenizer, load_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.partitioning import path_of
from infoxlm_jax.runtime.model_folder import modules_left_out
from infoxlm_jax.runtime.run_layout import find_step

_LATER = "a {} of sentence-transformers after the encoder, not part of it"
_NOT_WANTED = "a head that is not asked for"
# What a model is run with, which says nothing about its arrays.
_OWN_CHOICE = {
  *("bos_id", "pad_id", "eos_id", "unk_id", "mask_id", "num_ids"),
  "dropout",
  "attention_dropout",
  "dtype",
  "remat",
  "unroll",
}


def load_weights(
  path: str | Path,
  *,
  allow_pickle: bool = False,
  mesh: Mesh | None = None,
  heads: Collection[str] | None = None,
  model: EncoderConfig | None = None,
  **options: Any,
) -> tuple[EncoderConfig, dict[str, Any], Report]:
  """Reads weights array by array; never holds more than one copy of them.

  Args:
    path: a Hugging Face folder, a file in one (.safetensors, .bin, fairseq's
      .pt), or a run, checkpoints or step folder of this project.
    allow_pickle: whether torch's pickled files may be read.
    mesh: lay the arrays out over it by partitioning.RULES, each process
      reading only what its devices hold. None: numpy arrays on the host (jax
      arrays on the first device from a checkpoint of this project).
    heads: names of the heads to load; None: all that are there.
    model: what the weights must be of; None: whatever they are of.
    **options: fields of EncoderConfig that are a choice of the user: dtype,
      remat, unroll, dropout, attention_dropout. Not with `model`.

  Returns:
    The encoder's config, the parameters {"embed", "layers", "heads"} in
    float32, and what became of every tensor.

  Raises:
    InputError: weights that are missing, broken, of another architecture or
      shape, not finite, or in a form that must be allowed first.
  """
  path = Path(path)
  if (step := find_step(path)) is not None:
    return _own(step, mesh, heads, model, options)
  file = open_weights.find(path)
  tensors, stated = open_weights.open_tensors(file, allow_pickle=allow_pickle)
  config, config_path = hf_config.of_weights(file, stated, options)
  if model is not None:
    check_fits(model, config, config_path)
    config = model
  by_name, entries, ignored = tensor_names.sort(
    tensors,
    config,
    str(file),
    "config.json" if stated is None else "the file's own options",
  )
  if path.is_dir():
    ignored |= {
      place: _LATER.format(kind)
      for place, kind in modules_left_out(path).items()
    }
  if heads is not None:
    for head in sorted(set(entries) - {"", *heads}):
      left = [name for e in entries.pop(head) for name in e.names]
      ignored |= {by_name[name].name: _NOT_WANTED for name in left}
  chosen = [entry for parts in entries.values() for entry in parts]
  for entry in chosen:
    assemble.check_shapes(entry, by_name, config, config_path)
  read = {e.path: assemble.read(e, by_name, config, mesh) for e in chosen}
  report = Report(
    source=str(file),
    kind=config.architecture,
    loaded=tuple(
      Loaded(
        e.path,
        tuple(by_name[name].name for name in tensor_names.all_names(e, config)),
        tuple(read[e.path].shape),
      )
      for e in chosen
    ),
    ignored=ignored,
  )
  params = {"heads": {}} | unflatten(read)
  return config, params, report


def model_of(
  path: str | Path | None,
  *,
  dtype: str = "float32",
  remat: str = "none",
  unroll: int = 1,
  dropout: float = 0.0,
  attention_dropout: float = 0.0,
  allow_pickle: bool = False,
  tokenizer: str | None = None,
) -> EncoderConfig:
  """The encoder that weights are of, without reading them.

  In gin: `pretrain.pretrain.model = @load.model_of()`. For the other options
  see EncoderConfig; dropout is 0 unless given, as in continued pretraining.

  Args:
    path: as load_weights takes it.
    allow_pickle: needed for fairseq's model.pt, which has no config.json.
    tokenizer: the tokenizer that it will be used with, which knows its ids
      better than a config.json does, and may have fewer than the table rows.

  Raises:
    InputError: nothing is there, or of another architecture; or the tokenizer
      has more ids than the table rows.
  """
  if path is None:  # a dry run without the settings that a run must have
    raise InputError(
      "the shapes of this model are those of the weights INIT_FROM, which are"
      " not given: add --gin.INIT_FROM=..."
    )
  config = _stated_model(
    Path(path),
    allow_pickle,
    dtype=dtype,
    remat=remat,
    unroll=unroll,
    dropout=dropout,
    attention_dropout=attention_dropout,
  )
  if tokenizer is None:
    return config
  return with_ids(config, load_tokenizer(tokenizer), str(path))


def with_ids(
  config: EncoderConfig, tokenizer: Tokenizer, where: str
) -> EncoderConfig:
  """The config with the special ids and the number of ids of a tokenizer.

  Raises:
    InputError: the tokenizer has more ids than the table has rows.
  """
  if tokenizer.vocab_size > config.vocab_size:
    raise InputError(
      f"{where}: the embedding table has {config.vocab_size} rows, the"
      f" tokenizer {tokenizer.path} has {tokenizer.vocab_size} ids: it is of"
      " another model. More rows than ids are normal, fewer are not."
    )
  return dataclasses.replace(
    config,
    bos_id=tokenizer.bos_id,
    pad_id=tokenizer.pad_id,
    eos_id=tokenizer.eos_id,
    unk_id=tokenizer.unk_id,
    mask_id=tokenizer.mask_id,
    num_ids=tokenizer.vocab_size,
  )


def _stated_model(
  path: Path, allow_pickle: bool, **options: Any
) -> EncoderConfig:
  if (step := find_step(path)) is not None:
    return read_model(read_step_files(step), step, **options)
  file = open_weights.find(path)
  stated = None
  if not hf_config.path_of(file).is_file() and file.suffix in SUFFIXES:
    _, stated = open_weights.open_tensors(file, allow_pickle=allow_pickle)
  return hf_config.of_weights(file, stated, options)[0]


def check_fits(
  wanted: EncoderConfig, stored: EncoderConfig, where: str
) -> None:
  """The configured encoder must be the one that the weights are of.

  Raises:
    InputError: names everything that differs, both ways.
  """
  mine, theirs = (dataclasses.asdict(c) for c in (wanted, stored))
  differing = [
    f"{name} is {mine[name]!r} in this configuration and {theirs[name]!r} in"
    " the weights"
    for name in mine
    if name not in _OWN_CHOICE and _meant(wanted, name) != _meant(stored, name)
  ]
  if differing:
    raise InputError(
      f"{where}: the weights are of another model than this configuration's:"
      f" {'; '.join(differing)}. Take the model from the weights:"
      " pretrain.pretrain.model = @load.model_of()"
    )


def _meant(config: EncoderConfig, name: str) -> Any:
  """A field's value, as far as it makes a difference to the arrays."""
  if name == "vocab_multiple":
    return config.padded_vocab
  return getattr(config, name)


def _own(
  step: Path,
  mesh: Mesh | None,
  heads: Collection[str] | None,
  model: EncoderConfig | None,
  options: dict[str, Any],
) -> tuple[EncoderConfig, dict[str, Any], Report]:
  """The same from a checkpoint of this project."""
  files = read_step_files(step)
  config = read_model(files, step, **options)
  hf_config.check_numbers(config, str(step))
  if model is not None:
    check_fits(model, config, str(step))
    config = model

  def sharding_of(path: str, shape: tuple[int, ...]) -> jax.sharding.Sharding:
    if mesh is None:
      return SingleDeviceSharding(jax.local_devices()[0])
    return assemble.sharding_of(path, shape, mesh)

  def wanted(path: str) -> bool:
    part = path.split("/")
    return heads is None or part[0] != "heads" or part[1] in heads

  params, left = read_params(step, files, sharding_of, wanted)
  leaves = jax.tree_util.tree_leaves_with_path(params)
  loaded = tuple(
    Loaded(path, (f"params/{path}",), tuple(leaf.shape))
    for path, leaf in ((path_of(p), x) for p, x in leaves)
  )
  ignored = {
    path: _NOT_WANTED
    if path.startswith("params/")
    else "of the run, not of the model"
    for path in left
  }
  kind = f"a checkpoint of this project, {config.architecture}"
  return (
    config,
    {"heads": {}} | params,
    Report(str(step), kind, loaded, {}, ignored),
  )
