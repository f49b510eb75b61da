"""The small files of a checkpoint: where the run is, and what its weights are.

Both are plain JSON, so a checkpoint can be used without executing any gin.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from infoxlm_jax.data.tokenizer import Tokenizer
from infoxlm_jax.encoder_config import EncoderConfig

POSITION, MODEL = "position.json", "model.json"


@dataclasses.dataclass
class Position:
  """What a run must know besides its arrays, kept on the host.

  Batches are a function of (seed, samples drawn), so this is all that an
  exact resume of the data needs.
  """

  samples: dict[str, int]  # drawn so far, by stream
  tokens: int = 0
  seconds: float = 0.0

  @classmethod
  def read(cls, files: Mapping[str, bytes]) -> "Position":
    """The position that `file` wrote."""
    return cls(**json.loads(files[POSITION]))

  def file(self) -> dict[str, bytes]:
    """position.json, by name."""
    return {POSITION: json.dumps(dataclasses.asdict(self)).encode()}

  def advance(self, streams: Mapping[str, Any]) -> None:
    """One update further."""
    self.samples = {
      name: self.samples[name] + stream.batch
      for name, stream in streams.items()
    }


def describe_model(
  model: EncoderConfig, tokenizer: Tokenizer, contrast: Any | None
) -> bytes:
  """model.json: what one must know to use the weights."""
  described = {
    "architecture": "xlm-roberta",
    "encoder": dataclasses.asdict(model),
    "padded_vocab": model.padded_vocab,
    "special_ids": {
      "bos": tokenizer.bos_id,
      "pad": tokenizer.pad_id,
      "eos": tokenizer.eos_id,
      "unk": tokenizer.unk_id,
      "mask": tokenizer.mask_id,
    },
    "tokenizer_sha256": tokenizer.sha256,
    "contrast": None if contrast is None else dataclasses.asdict(contrast),
  }
  return json.dumps(described, indent=2).encode()
