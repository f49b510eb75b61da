"""Small models with a tokenizer, as Hugging Face folders."""

import dataclasses
import functools
import tempfile
from pathlib import Path

import jax
import numpy as np
import small_corpus

from infoxlm_jax.checkpoint.exporters import export
from infoxlm_jax.checkpoint.exporters.model_card import About
from infoxlm_jax.checkpoint.exporters.source import Source
from infoxlm_jax.checkpoint.importers.find_tokenizer import with_ids_of
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.model import encoder
from infoxlm_jax.model.config import EncoderConfig

CONFIG = EncoderConfig(
  vocab_size=8010,  # more rows than the tokenizer has ids
  num_layers=3,
  hidden_size=32,
  num_heads=4,
  ffn_size=64,
  max_positions=256,
)


def params(config, scale=0.1):
  """Weights far from zero, so that a forgotten one shows."""
  made = jax.eval_shape(
    lambda key: {
      **encoder.init(key, config),
      "heads": {"masked_lm": encoder.init_lm_head(key, config)},
    },
    jax.random.key(0),
  )
  draw = np.random.Generator(np.random.SFC64(2))

  def value(path, x):
    drawn = draw.standard_normal(x.shape, np.float32)
    drawn *= scale
    return drawn + 1 if path[-1].key == "scale" else drawn

  return jax.tree_util.tree_map_with_path(value, made)


def source(**changes):
  """A model as it comes out of a run."""
  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  config = dataclasses.replace(CONFIG, **changes)
  config = with_ids_of(config, tokenizer, "here")
  return Source("here", config, params(config), tokenizer, {})


@functools.cache
def folder() -> Path:
  """The same as a Hugging Face folder; nobody writes into it."""
  target = Path(_kept().name) / "model"
  export.export_transformers(source(), target, About("small"), check=False)
  return target


@functools.cache
def _kept() -> tempfile.TemporaryDirectory[str]:
  # Kept by the cache, removed when the process ends.
  return tempfile.TemporaryDirectory(prefix="infoxlm-test-")
