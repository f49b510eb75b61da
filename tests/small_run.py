"""A pretraining run that takes seconds: 2 layers of 16 on one device."""

from pathlib import Path
from typing import Any

import jax
import small_corpus
from jax.sharding import AxisType, Mesh

from infoxlm_jax import optimizer, schedules
from infoxlm_jax.data import streams
from infoxlm_jax.data.tokenizer import load_tokenizer
from infoxlm_jax.encoder_config import EncoderConfig
from infoxlm_jax.objectives.contrast import Contrast
from infoxlm_jax.objectives.masked_lm import MaskedLM
from infoxlm_jax.partitioning import BATCH_AXES

LENGTH = small_corpus.ROW_LENGTH
STEPS = 20


def one_device() -> Mesh:
  return jax.make_mesh(
    (1, 1),
    BATCH_AXES,
    devices=jax.devices()[:1],
    axis_types=(AxisType.Auto,) * 2,
  )


def options(folder: Path, **changes: Any) -> dict[str, Any]:
  """Arguments of train.pretrain; the vectors of `<s>` are nearly constant."""
  rate = schedules.constant(1e-4)
  return {
    "model_dir": str(folder),
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
      "xlco": Contrast(stream="xlco", layer=1, pooling="first", queue_size=20),
    },
    "streams": {
      "mlm": streams.TextStream(batch=4, rows=4, row_length=LENGTH),
      "tlm": streams.PairStream(batch=4, rows=4, row_length=LENGTH),
      "xlco": streams.ContrastStream(batch=8, rows=8, row_length=LENGTH),
    },
    "optimizer": optimizer.adamw(rate),
    "learning_rate": rate,
    "momentum": schedules.constant(0.9),
    "steps": STEPS,
    "groups": 4,
    "data": str(small_corpus.prepared()),
    "mesh": one_device,
    "eval_batches": 1,
    "eval_every": 1000,
    "save_every": 1000,
    "log_every": 1,
  } | changes
