"""Expected numbers made by other programs, in our arrays' shapes.

`official` is the authors' released code (microsoft/unilm, folder infoxlm),
run on a CPU; `xlmr_mlm` is Hugging Face transformers.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from infoxlm_jax.checkpoint.importers.load import load_weights

ORACLES = Path(__file__).parent / "expected" / "oracles"
PAD = 1


def load(name):
  with np.load(ORACLES / f"{name}.npz") as found:
    return dict(found)


def model(name):
  """(config, params) of a stored Hugging Face model."""
  return load_weights(ORACLES / name)[:2]


def train_init():
  """The model that `train_official` starts from.

  fairseq has no segment embedding; the stored row is zero and never trained.
  """
  config, params = model("train_init")
  assert not params["embed"].pop("type").any()
  return dataclasses.replace(config, type_vocab_size=0), params


def rows(ids):
  """One item a row, one row a group: [B, T] -> {name: [B, 1, T]}."""
  ids = np.asarray(ids, np.int32)[:, None]
  real = ids != PAD
  return {
    "tokens": ids,
    "segments": real.astype(np.int32),
    "positions": np.where(real, np.cumsum(real, -1) - 1, 0).astype(np.int32),
  }


def masked_rows(ids, labels):
  """rows with ready-made targets; a label of PAD is none."""
  labels = np.asarray(labels, np.int32)[:, None]
  return rows(ids) | {"targets": np.where(labels == PAD, -1, labels)}


def batch(numbers, update):
  """The batch of one update of `train_official`."""
  at = {
    name: numbers[f"{name}_{update}"]
    for name in (
      "mlm_ids",
      "mlm_labels",
      "tlm_ids",
      "tlm_labels",
      "src_ids",
      "tgt_ids",
    )
  }
  items = np.zeros((len(at["src_ids"]), 1), np.int32)
  return {
    "mlm": masked_rows(at["mlm_ids"], at["mlm_labels"]),
    "tlm": masked_rows(at["tlm_ids"], at["tlm_labels"]),
    "xlco": {
      "query": rows(at["src_ids"]),
      "key": rows(at["tgt_ids"]),
      "items": items,
    },
  }


def hugging_face_names(params, config, layers=None):
  """Our parameters under Hugging Face's names and shapes."""
  params = jax.tree.map(np.asarray, params)
  v, d = config.vocab_size, config.hidden_size
  embed = params["embed"]
  found = {
    "roberta.embeddings.word_embeddings.weight": embed["token"][:v],
    "roberta.embeddings.position_embeddings.weight": embed["position"],
    "roberta.embeddings.LayerNorm.weight": embed["norm"]["scale"],
    "roberta.embeddings.LayerNorm.bias": embed["norm"]["bias"],
  }
  if "type" in embed:
    found["roberta.embeddings.token_type_embeddings.weight"] = embed["type"]
  stack = params["layers"]
  for i in range(len(stack["qkv"]["bias"])):
    at = f"roberta.encoder.layer.{i}."
    for j, name in enumerate(("query", "key", "value")):
      kernel = stack["qkv"]["kernel"][i, :, j].reshape(d, d)
      found[f"{at}attention.self.{name}.weight"] = kernel.T
      found[f"{at}attention.self.{name}.bias"] = stack["qkv"]["bias"][
        i, j
      ].reshape(d)
    for ours, theirs in (
      ("attention_out", "attention.output.dense"),
      ("ffn_in", "intermediate.dense"),
      ("ffn_out", "output.dense"),
    ):
      bias = stack[ours]["bias"][i]
      found[f"{at}{theirs}.weight"] = (
        stack[ours]["kernel"][i].reshape(-1, len(bias)).T
      )
      found[f"{at}{theirs}.bias"] = bias
    for ours, theirs in (
      ("attention_norm", "attention.output.LayerNorm"),
      ("ffn_norm", "output.LayerNorm"),
    ):
      found[f"{at}{theirs}.weight"] = stack[ours]["scale"][i]
      found[f"{at}{theirs}.bias"] = stack[ours]["bias"][i]
  head = params["heads"].get("masked_lm")
  if head is not None:
    found |= {
      "lm_head.dense.weight": head["dense"]["kernel"].T,
      "lm_head.dense.bias": head["dense"]["bias"],
      "lm_head.layer_norm.weight": head["norm"]["scale"],
      "lm_head.layer_norm.bias": head["norm"]["bias"],
      "lm_head.bias": head["bias"][:v],
    }
  return found
