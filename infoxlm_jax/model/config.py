"""Shapes, numerics and conventions of an encoder.

One post-LN transformer serves three architectures. What differs:

                     xlm-roberta     bert             xlm
  first position     row pad + 1     row 0            row 0
  type embedding     none or 1 row   2 segments       languages
  norm epsilon       1e-5            1e-12            1e-12
  LM head            dense, gelu,    the same         the table
                     norm, table                      alone
  special ids        0 1 2 3, last   the tokenizer's  0 2 1 3 5

"xlm-roberta" are also RoBERTa, InfoXLM and XLM-Align, "bert" also mBERT and
multilingual-e5.
"""

import dataclasses

from infoxlm_jax.special_ids import Ids

ARCHITECTURES = ("xlm-roberta", "bert", "xlm")


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
  """What an encoder is (defaults: XLM-R's conventions).

  Attributes:
    vocab_size: rows of the embedding table that are the model's; the table
      has `padded_vocab` rows.
    num_layers, hidden_size, num_heads, ffn_size: the transformer.
    max_positions: longest item in tokens (XLM-R: 512).
    position_offset: table row of an item's first token. RoBERTa counts from
      pad_id + 1 = 2, BERT and XLM from 0.
    type_vocab_size: rows of the type embedding, whose ids are segments or
      languages (0: none, as in fairseq; Hugging Face's port of XLM-R has 1).
    bos_id, pad_id, eos_id, unk_id, mask_id: special ids (mask_id None: the
      last of num_ids).
    num_ids: ids that the tokenizer gives; None: vocab_size.
    layer_norm_eps: of every layer norm.
    architecture: see the module; decides the LM head and what an export is.
    activation: of the feed-forward layers, "gelu" or "relu".
    tied: the LM head's output matrix is the embedding table.
    dropout, attention_dropout: rates; 0 in the paper's continued training.
    dtype: of the computation. Parameters, layer norm, softmax and losses are
      float32 whatever it says.
    attention: "xla" anywhere; "cudnn" on NVIDIA GPUs in bfloat16, "splash" on
      TPUs (rows of a multiple of 128): kernels without T x T weights.
    remat: what the backward pass computes again: "none", "dots" (all but
      the matrix products), "full" (a layer from its input).
    unroll: layers in one turn of the loop over layers. All of them is
      faster for a few small layers (no stacking of what the backward pass
      keeps); 1 keeps a deep model's program small.
    vocab_multiple: the embedding table is padded to a multiple of this.
  """

  vocab_size: int
  num_layers: int
  hidden_size: int
  num_heads: int
  ffn_size: int
  max_positions: int = 512
  position_offset: int = 2
  type_vocab_size: int = 0
  bos_id: int = 0
  pad_id: int = 1
  eos_id: int = 2
  unk_id: int = 3
  mask_id: int | None = None
  num_ids: int | None = None
  layer_norm_eps: float = 1e-5
  architecture: str = "xlm-roberta"
  activation: str = "gelu"
  tied: bool = True
  dropout: float = 0.0
  attention_dropout: float = 0.0
  dtype: str = "float32"
  attention: str = "xla"
  remat: str = "none"
  unroll: int = 1
  vocab_multiple: int = 128

  @property
  def padded_vocab(self) -> int:
    return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

  @property
  def ids(self) -> Ids:
    """The tokenizer's ids that this model was made for."""
    count = self.vocab_size if self.num_ids is None else self.num_ids
    mask = count - 1 if self.mask_id is None else self.mask_id
    return Ids(self.bos_id, self.pad_id, self.eos_id, self.unk_id, mask, count)
