"""Which ids of a vocabulary have a meaning of their own."""

from typing import NamedTuple


class Ids(NamedTuple):
  """Special ids, and how many ids a tokenizer gives.

  A model's embedding table may have more rows than `size`: rows that no text
  reaches. Defaults are XLM-R's; the mask is its last id.

  Attributes:
    bos: `<s>`, BERT's `[CLS]`.
    pad: what stands where nothing stands.
    eos: `</s>`, BERT's `[SEP]`.
    unk: what no piece covers.
    mask: `<mask>`.
    size: number of ids; all ids are below it.
  """

  bos: int = 0
  pad: int = 1
  eos: int = 2
  unk: int = 3
  mask: int = 250001
  size: int = 250002

  @property
  def special(self) -> tuple[int, ...]:
    """The five special ids, the lowest first."""
    return tuple(sorted({self.bos, self.pad, self.eos, self.unk, self.mask}))
