"""Our parameters as a Hugging Face model's class and tensors.

Export reads the table of importers/parameter_map.py, as import does.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from infoxlm_jax.checkpoint.importers.parameter_map import (
  FORMS,
  PREFIX,
  Entry,
  encoder_entries,
  head_entries,
)
from infoxlm_jax.model.config import EncoderConfig

# Heads of a model -> its class, for each architecture. The first line whose
# heads are all there is taken; what it does not name is left out.
_CLASSES: Mapping[str, tuple[tuple[tuple[str, ...], str], ...]] = {
  "xlm-roberta": (
    (("classification",), "XLMRobertaForSequenceClassification"),
    (("token_classification",), "XLMRobertaForTokenClassification"),
    (("question_answering",), "XLMRobertaForQuestionAnswering"),
    (("masked_lm",), "XLMRobertaForMaskedLM"),
    (("pooler",), "XLMRobertaModel"),
    ((), "XLMRobertaModel"),
  ),
  "bert": (
    (("token_classification",), "BertForTokenClassification"),
    (("question_answering",), "BertForQuestionAnswering"),
    (("masked_lm", "pooler", "next_sentence"), "BertForPreTraining"),
    (("masked_lm",), "BertForMaskedLM"),
    (("pooler", "next_sentence"), "BertForNextSentencePrediction"),
    (("pooler",), "BertModel"),
    ((), "BertModel"),
  ),
  "xlm": ((("masked_lm",), "XLMWithLMHeadModel"), ((), "XLMModel")),
}
# What a model of a class is for, as the hub names it.
_TASKS = {
  "ForSequenceClassification": "text-classification",
  "ForTokenClassification": "token-classification",
  "ForQuestionAnswering": "question-answering",
  "ForMaskedLM": "fill-mask",
  "ForPreTraining": "fill-mask",
  "WithLMHeadModel": "fill-mask",
}


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor to be written.

  Attributes:
    name, shape: in the file.
    read: makes its values, float32; called when they are written.
  """

  name: str
  shape: tuple[int, ...]
  read: Callable[[], np.ndarray]


def model_class(
  config: EncoderConfig, heads: Mapping[str, Any]
) -> tuple[str, list[str]]:
  """The class that holds an encoder and (most of) its heads.

  Args:
    config: of the encoder.
    heads: parameters by the heads' names.

  Returns:
    transformers' name of the class, and the heads that it holds.
  """
  for wanted, name in _CLASSES[config.architecture]:
    if set(wanted) <= set(heads):
      return name, list(wanted)
  raise AssertionError(f"no class of {config.architecture}")


def task(class_name: str) -> str:
  """The pipeline_tag of a model card."""
  for ending, kind in _TASKS.items():
    if class_name.endswith(ending):
      return kind
  return "feature-extraction"


def tensors(
  params: Mapping[str, Any], config: EncoderConfig, heads: list[str]
) -> Iterator[Tensor]:
  """All tensors of the model in the order of the table.

  Args:
    params: jax or numpy arrays.
    config: of the encoder.
    heads: which of the heads the model has.
  """
  entries = list(encoder_entries(config))
  table = head_entries(config)
  for head in heads:
    entries += table[head]
  for entry in entries:
    value = params
    for name in entry.path.split("/"):
      value = value[name]
    yield from _of_entry(entry, value, config)
  if not config.type_vocab_size and config.architecture != "xlm":
    # fairseq has no type embedding; transformers always adds row 0.
    yield Tensor(
      f"{PREFIX[config.architecture]}embeddings.token_type_embeddings.weight",
      (1, config.hidden_size),
      lambda: np.zeros((1, config.hidden_size), np.float32),
    )


def _of_entry(
  entry: Entry, value: Any, config: EncoderConfig
) -> Iterator[Tensor]:
  theirs = FORMS[entry.form].theirs

  def part(i: int | None, place: int) -> np.ndarray:
    # Of a stacked array only the layer: it may lie on an accelerator.
    mine = value if i is None else value[i]
    return theirs(np.asarray(jax.device_get(mine)), config)[place]

  one = tuple(value.shape[1:] if entry.layered else value.shape)
  shapes = [
    x.shape for x in theirs(np.broadcast_to(np.float32(0), one), config)
  ]
  for i in range(config.num_layers) if entry.layered else [None]:
    names = entry.names if i is None else entry.of_layer(i)
    for place, (name, shape) in enumerate(zip(names, shapes, strict=True)):
      yield Tensor(
        name,
        shape,
        lambda i=i, place=place: part(i, place),  # type: ignore[misc]
      )
