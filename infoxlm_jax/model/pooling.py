"""What is read of an encoder as the vector of a text."""

import dataclasses
import difflib

from infoxlm_jax.errors import InputError
from infoxlm_jax.model.config import EncoderConfig

POOLINGS = ("mean", "mean_all", "first")


@dataclasses.dataclass(frozen=True)
class Reading:
  """How a text becomes a vector.

  Attributes:
    layer: 1 is the first layer, 0 the embedding output, None the last.
    pooling: "mean" of the tokens without `<s>` and `</s>` (zeros where there
      are no others), "mean_all" with them, or "first", the vector of `<s>`.
    prefix: put before every text, such as "query: " for e5.
    normalize: scale vectors to length 1.
    max_length: longest text in tokens, `<s>` and `</s>` included; None: what
      the model has positions for.
    batch_tokens: computed at a time on each device.
  """

  layer: int | None = None
  pooling: str = "mean"
  prefix: str = ""
  normalize: bool = False
  max_length: int | None = None
  batch_tokens: int = 4096

  def checked_for(self, model: EncoderConfig) -> tuple[int, int]:
    """(layer, longest text in tokens) that this means for a model.

    Raises:
      InputError: a layer, pooling, length or batch that there is not.
    """
    if self.pooling not in POOLINGS:
      close = difflib.get_close_matches(self.pooling, POOLINGS, 1)
      hint = f": did you mean {close[0]!r}?" if close else ""
      raise InputError(
        f"pooling {self.pooling!r} is none of {', '.join(POOLINGS)}{hint}"
      )
    if self.batch_tokens < 1:
      raise InputError(f"batch_tokens = {self.batch_tokens}: give at least 1")
    layer = model.num_layers if self.layer is None else self.layer
    if not 0 <= layer <= model.num_layers:
      raise InputError(
        f"layer {layer}: the model has {model.num_layers} layers; 0 is the"
        " embedding output"
      )
    limit = model.max_positions
    length = limit if self.max_length is None else self.max_length
    if not 2 <= length <= limit:
      raise InputError(
        f"max_length = {length}: the model has {limit} positions, and a text"
        " has at least <s> and </s>"
      )
    return layer, length
