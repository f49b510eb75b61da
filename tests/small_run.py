"""A pretraining run that takes seconds: 2 layers of 16 on one device."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import small_corpus
import weights_files
from jax.experimental.compilation_cache import compilation_cache

from infoxlm_jax.data import streams
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.model import partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.contrast import Contrast
from infoxlm_jax.objectives.masked_lm import MaskedLM
from infoxlm_jax.training import optimizer, schedules
from infoxlm_jax.training.options import (
  CheckpointOptions,
  DataOptions,
  EvaluationOptions,
  Parallelism,
  RunOptions,
  UpdateOptions,
  WeightOptions,
)

_CACHE_OPTIONS = (
  "jax_enable_compilation_cache",
  "jax_compilation_cache_dir",
  "jax_persistent_cache_min_compile_time_secs",
)
# {short name: (argument of pretrain.pretrain, its field)}
_FIELDS = {
  field.name: (argument, field.name)
  for argument, group in (
    ("run", RunOptions),
    ("update", UpdateOptions),
    ("parallelism", Parallelism),
    ("weights", WeightOptions),
    ("checkpoints", CheckpointOptions),
  )
  for field in dataclasses.fields(group)
} | {
  "data": ("data", "folder"),
  "prepare": ("data", "prepare"),
  "eval_every": ("evaluation", "every"),
  "eval_batches": ("evaluation", "batches"),
  "eval_examples": ("evaluation", "examples"),
}
LENGTH = small_corpus.ROW_LENGTH
STEPS = 20


ONE_DEVICE = partitioning.MeshShape(devices=1)


def one_device() -> Any:
  """A mesh of the first device."""
  return partitioning.make_mesh(ONE_DEVICE)


@contextlib.contextmanager
def compiled_once(folder: Path) -> Iterator[None]:
  """A second start finds the programs of the first, kept in the folder.

  Without most optimisations: such runs compile longer than they compute.
  """
  before = {name: getattr(jax.config, name) for name in _CACHE_OPTIONS}
  for name, value in zip(_CACHE_OPTIONS, (True, str(folder), 0), strict=True):
    jax.config.update(name, value)
  jax.config.update("jax_disable_most_optimizations", True)
  compilation_cache.reset_cache()
  yield
  jax.config.update("jax_disable_most_optimizations", False)
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def options(folder: Path, **changes: Any) -> dict[str, Any]:
  """Arguments of pretrain.pretrain; the vectors of `<s>` are nearly constant.

  Args:
    folder: the run's.
    **changes: arguments by name, or fields of the options objects among them.
      Three fields have longer names here: eval_every, eval_batches, data.
  """
  rate = schedules.constant(1e-4)
  arguments = {
    "run": RunOptions(str(folder), STEPS, log_every=1),
    "model": EncoderConfig(
      vocab_size=load_tokenizer(small_corpus.TOKENIZER).vocab_size,
      num_layers=2,
      hidden_size=16,
      num_heads=2,
      ffn_size=32,
      max_positions=LENGTH,
    ),
    "objectives": {
      "mlm": MaskedLM(stream="mlm"),
      "xlco": Contrast(
        layer=1,
        pooling="first",
        queue_size=20,
        momentum=0.9,
      ),
    },
    "streams": {
      "mlm": streams.TextStream(batch=4, rows=4, row_length=LENGTH),
      "tlm": streams.PairStream(batch=4, rows=4, row_length=LENGTH),
      "xlco": streams.ContrastStream(batch=8, rows=8, row_length=LENGTH),
    },
    "update": UpdateOptions(optimizer.adamw(rate), rate),
    "parallelism": Parallelism(groups=4, mesh=ONE_DEVICE),
    "data": DataOptions(str(small_corpus.prepared())),
    "weights": WeightOptions(),
    "evaluation": EvaluationOptions(every=1000, batches=1, examples=6),
    "checkpoints": CheckpointOptions(save_every=1000),
  }
  return changed(arguments, **changes)


def changed(arguments: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
  """Arguments of pretrain.pretrain with these changes, named as in options."""
  arguments = dict(arguments)
  for name, value in changes.items():
    argument, field = _FIELDS.get(name, (name, None))
    if field is not None:
      value = dataclasses.replace(arguments[argument], **{field: value})
    arguments[argument] = value
  return arguments


def hugging_face(folder: Path, **changes: Any) -> Path:
  """A random XLM-R of these shapes as a Hugging Face folder, with tokenizer."""
  config = options(Path("unused"))["model"]
  draw = np.random.default_rng(0)
  tensors = {}
  for name, value in weights_files.tensors_of("xlmr_mlm").items():
    shape = tuple(
      {
        101: config.vocab_size,
        40: config.max_positions + 2,
        32: config.hidden_size,
        64: config.ffn_size,
      }.get(n, n)
      for n in value.shape
    )
    tensors[name] = draw.normal(0, 0.05, shape).astype(np.float32)
  weights_files.write(
    folder,
    tensors,
    vocab_size=config.vocab_size,
    hidden_size=config.hidden_size,
    intermediate_size=config.ffn_size,
    num_attention_heads=config.num_heads,
    max_position_embeddings=config.max_positions + 2,
    **changes,
  )
  shutil.copyfile(small_corpus.TOKENIZER, folder / "sentencepiece.bpe.model")
  return folder
