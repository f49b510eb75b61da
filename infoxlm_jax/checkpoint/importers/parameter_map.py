"""Which tensor of a Hugging Face model is which of our arrays, both ways.

One table an architecture. An entry names our array by its path and theirs by
the full name that a whole model has ("roberta.embeddings..."); {i} is the
layer, and ours holds all layers on its first axis. Import and export read the
same table, so that what goes in comes out.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from infoxlm_jax.model.config import EncoderConfig

# Prefix of the encoder's tensors in a model with a head; a file saved from a
# bare encoder has none.
PREFIX = {"xlm-roberta": "roberta.", "bert": "bert.", "xlm": "transformer."}

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Entry:
  """One array of ours and the tensors that make it.

  Attributes:
    path: of our array in the parameters, such as "layers/ffn_in/kernel".
    names: their tensors; several only for q, k and v, which we keep in one.
    form: how a layer's tensors become ours, one of FORMS.
    layered: whether {i} stands in the names.
  """

  path: str
  names: tuple[str, ...]
  form: str = "same"

  @property
  def layered(self) -> bool:
    return "{i}" in self.names[0]

  def of_layer(self, i: int) -> tuple[str, ...]:
    """The names for one layer."""
    return tuple(name.format(i=i) for name in self.names)


@dataclasses.dataclass(frozen=True)
class Form:
  """How tensors become an array, and back.

  Attributes:
    ours: tensors -> our array (of one layer).
    theirs: our array -> tensors.
  """

  ours: Callable[[Sequence[np.ndarray], EncoderConfig], np.ndarray]
  theirs: Callable[[np.ndarray, EncoderConfig], list[np.ndarray]]


def _pad_rows(x: np.ndarray, config: EncoderConfig) -> np.ndarray:
  extra = config.padded_vocab - x.shape[0]
  return np.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1))


def _heads(config: EncoderConfig) -> tuple[int, int, int]:
  """(hidden size, heads, size of a head)."""
  d, n = config.hidden_size, config.num_heads
  return d, n, d // n


def _qkv_kernel(parts: Sequence[np.ndarray], c: EncoderConfig) -> np.ndarray:
  d, n, h = _heads(c)
  return np.stack([x.T for x in parts], 1).reshape(d, 3, n, h)


def _qkv_kernel_back(x: np.ndarray, c: EncoderConfig) -> list[np.ndarray]:
  d, _, _ = _heads(c)
  return [x[:, i].reshape(d, d).T for i in range(3)]


def _qkv_bias(parts: Sequence[np.ndarray], c: EncoderConfig) -> np.ndarray:
  _, n, h = _heads(c)
  return np.stack(parts).reshape(3, n, h)


def _out_kernel(parts: Sequence[np.ndarray], c: EncoderConfig) -> np.ndarray:
  d, n, h = _heads(c)
  return parts[0].T.reshape(n, h, d)


FORMS = {
  # As it is.
  "same": Form(lambda x, c: x[0], lambda x, c: [x]),
  # Rows of the vocabulary: ours are padded.
  "vocab": Form(
    lambda x, c: _pad_rows(x[0], c), lambda x, c: [x[: c.vocab_size]]
  ),
  # A matrix: theirs are [out, in].
  "matrix": Form(lambda x, c: x[0].T, lambda x, c: [x.T]),
  "qkv_kernel": Form(_qkv_kernel, _qkv_kernel_back),
  "qkv_bias": Form(_qkv_bias, lambda x, c: [part.ravel() for part in x]),
  "out_kernel": Form(_out_kernel, lambda x, c: [x.reshape(-1, x.shape[-1]).T]),
}


def encoder_entries(config: EncoderConfig) -> list[Entry]:
  """The embedding and the layers, all of which a file must hold."""
  if config.architecture == "xlm":
    return list(_xlm_encoder(config))
  return list(_bert_encoder(config, PREFIX[config.architecture]))


def head_entries(config: EncoderConfig) -> dict[str, list[Entry]]:
  """The heads that a file may hold, by our name.

  A head is there when its first tensor is. XLM's heads for sentences and
  spans are none of these.
  """
  if config.architecture == "xlm":
    bias = Entry("heads/masked_lm/bias", ("pred_layer.proj.bias",), "vocab")
    heads = {"masked_lm": [bias]}
    decoder = "pred_layer.proj.weight"
  elif config.architecture == "bert":
    heads = {
      "masked_lm": _lm_head("cls.predictions.", "transform.", "LayerNorm"),
      "pooler": _linear("pooler", "bert.pooler.dense"),
      "next_sentence": _linear("next_sentence", "cls.seq_relationship"),
    }
    decoder = "cls.predictions.decoder.weight"
  else:
    heads = {
      "masked_lm": _lm_head("lm_head.", "", "layer_norm"),
      "pooler": _linear("pooler", "roberta.pooler.dense"),
      "classification": _linear("classification/dense", "classifier.dense")
      + _linear("classification/out", "classifier.out_proj"),
    }
    decoder = "lm_head.decoder.weight"
  if config.architecture != "xlm":
    heads |= {
      "token_classification": _linear("token_classification", "classifier"),
      "question_answering": _linear("question_answering", "qa_outputs"),
    }
  if not config.tied:
    heads["masked_lm"].append(
      Entry("heads/masked_lm/decoder", (decoder,), "vocab")
    )
  return heads


def copies(config: EncoderConfig) -> dict[str, str]:
  """Tensors that some writers store twice: {the copy: what it is a copy of}.

  A tied matrix among them, and the output bias under its second name.
  """
  base = PREFIX[config.architecture]
  if config.architecture == "xlm":
    names = {"pred_layer.proj.weight": f"{base}embeddings.weight"}
  else:
    head = "lm_head." if base == "roberta." else "cls.predictions."
    names = {
      f"{head}decoder.bias": f"{head}bias",
      f"{head}decoder.weight": f"{base}embeddings.word_embeddings.weight",
    }
  if not config.tied:
    names = {k: v for k, v in names.items() if not k.endswith(".weight")}
  return names


# Endings of names that mean the same array where a model ties its matrices.
_TIES = (
  (
    "embeddings.word_embeddings.weight",
    "lm_head.decoder.weight",
    "cls.predictions.decoder.weight",
  ),
  ("transformer.embeddings.weight", "pred_layer.proj.weight"),
  ("lm_head.bias", "lm_head.decoder.bias"),
  ("cls.predictions.bias", "cls.predictions.decoder.bias"),
)


def may_be_tied(name: str, others: Iterable[str]) -> bool:
  """Whether one of the others may hold the tensor of this name, too."""
  endings = [e for tie in _TIES if name.endswith(tie) for e in tie]
  return any(other.endswith(tuple(endings)) for other in others)


def _bert_encoder(config: EncoderConfig, base: str) -> Iterator[Entry]:
  table, layer = f"{base}embeddings.", f"{base}encoder.layer.{{i}}."
  yield Entry("embed/token", (f"{table}word_embeddings.weight",), "vocab")
  yield Entry("embed/position", (f"{table}position_embeddings.weight",))
  if config.type_vocab_size:
    yield Entry("embed/type", (f"{table}token_type_embeddings.weight",))
  yield from _norm("embed/norm", f"{table}LayerNorm")
  attention = f"{layer}attention."
  yield from _attention(
    [f"{attention}self.{name}" for name in ("query", "key", "value")],
    f"{attention}output.dense",
  )
  yield from _norm("layers/attention_norm", f"{attention}output.LayerNorm")
  yield from _dense("layers/ffn_in", f"{layer}intermediate.dense")
  yield from _dense("layers/ffn_out", f"{layer}output.dense")
  yield from _norm("layers/ffn_norm", f"{layer}output.LayerNorm")


def _xlm_encoder(config: EncoderConfig) -> Iterator[Entry]:
  base = PREFIX["xlm"]
  yield Entry("embed/token", (f"{base}embeddings.weight",), "vocab")
  yield Entry("embed/position", (f"{base}position_embeddings.weight",))
  if config.type_vocab_size:
    yield Entry("embed/type", (f"{base}lang_embeddings.weight",))
  yield from _norm("embed/norm", f"{base}layer_norm_emb")
  attention = f"{base}attentions.{{i}}."
  yield from _attention(
    [f"{attention}{name}_lin" for name in "qkv"], f"{attention}out_lin"
  )
  yield from _norm("layers/attention_norm", f"{base}layer_norm1.{{i}}")
  yield from _dense("layers/ffn_in", f"{base}ffns.{{i}}.lin1")
  yield from _dense("layers/ffn_out", f"{base}ffns.{{i}}.lin2")
  yield from _norm("layers/ffn_norm", f"{base}layer_norm2.{{i}}")


def _attention(qkv: Sequence[str], out: str) -> Iterator[Entry]:
  weights = tuple(f"{name}.weight" for name in qkv)
  biases = tuple(f"{name}.bias" for name in qkv)
  yield Entry("layers/qkv/kernel", weights, "qkv_kernel")
  yield Entry("layers/qkv/bias", biases, "qkv_bias")
  yield Entry("layers/attention_out/kernel", (f"{out}.weight",), "out_kernel")
  yield Entry("layers/attention_out/bias", (f"{out}.bias",))


def _lm_head(base: str, transform: str, norm: str) -> list[Entry]:
  path = "heads/masked_lm"
  return [
    Entry(f"{path}/bias", (f"{base}bias",), "vocab"),
    *_dense(f"{path}/dense", f"{base}{transform}dense"),
    *_norm(f"{path}/norm", f"{base}{transform}{norm}"),
  ]


def _linear(head: str, name: str) -> list[Entry]:
  return list(_dense(f"heads/{head}", name))


def _dense(path: str, name: str) -> Iterator[Entry]:
  yield Entry(f"{path}/kernel", (f"{name}.weight",), "matrix")
  yield Entry(f"{path}/bias", (f"{name}.bias",))


def _norm(path: str, name: str) -> Iterator[Entry]:
  yield Entry(f"{path}/scale", (f"{name}.weight",))
  yield Entry(f"{path}/bias", (f"{name}.bias",))
