"""Floating-point operations of the encoder, from its shapes."""

from infoxlm_jax.model.config import EncoderConfig


def encode_flops(
  model: EncoderConfig,
  rows: int,
  row_length: int,
  layers: int,
  read: int | None = None,
) -> int:
  """Floating-point operations of a forward pass over packed rows.

  Two for each multiply-add of the matrix products: q, k, v, output and
  feed-forward weights, and the two products of attention. Norms, softmax and
  gelu are left out, as is usual. The last layer has keys and values of all
  tokens, and the rest at `read` places of a row only (None: all).
  """
  d, f = model.hidden_size, model.ffn_size
  keys_and_values = 2 * 2 * d * d
  others = 2 * (2 * d * d + 2 * d * f) + 4 * row_length * d
  whole = (layers - 1) * row_length * (keys_and_values + others)
  places = row_length if read is None else read
  return rows * (whole + row_length * keys_and_values + places * others)
