"""Heads on top of the encoder, as Hugging Face's models have them.

Parameters are plain dicts; a linear map is {"kernel": [in, out], "bias":
[out]}. The masked-LM head is encoder.lm_logits. Letters: B items, T tokens,
D hidden size.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from infoxlm_jax.model.layers import INIT

Params = Mapping[str, Any]


def init_linear(
  key: jax.Array, inputs: int, outputs: int
) -> dict[str, jax.Array]:
  """A linear map as transformers initialises it: N(0, 0.02) and 0."""
  return {"kernel": INIT(key, (inputs, outputs)), "bias": jnp.zeros(outputs)}


def pooled(head: Params, hidden_BTD: jax.Array) -> jax.Array:
  """BERT's pooler [B, D]: tanh of a linear map of the first token's vector.

  Args:
    head: heads["pooler"].
    hidden_BTD: last hidden states, one item a row.
  """
  return jnp.tanh(_linear(head, hidden_BTD[:, 0]))


def next_sentence_logits(head: Params, pooled_BD: jax.Array) -> jax.Array:
  """BERT's [B, 2]: class 0 is "the second sentence follows the first"."""
  return _linear(head, pooled_BD)


def classification_logits(head: Params, hidden_BTD: jax.Array) -> jax.Array:
  """Classes of whole items [B, classes], from the first token.

  Args:
    head: heads["classification"]: {"dense", "out"} for XLM-R's two-layer head
      (linear, tanh, linear).
    hidden_BTD: last hidden states, one item a row.
  """
  return class_logits(head, hidden_BTD[:, 0])


def class_logits(
  head: Params,
  first: jax.Array,
  drop: Callable[[jax.Array, int], jax.Array] = lambda x, site: x,
) -> jax.Array:
  """Classes of items [..., classes], from their first tokens' vectors [..., D].

  Args:
    head: see classification_logits.
    first: last hidden states of the first tokens.
    drop: dropout of the input of each linear map, by its number.
  """
  x = jnp.tanh(_linear(head["dense"], drop(first, 0)))
  return _linear(head["out"], drop(x, 1))


def pair_logits(head: Params, first: jax.Array) -> jax.Array:
  """Classes of pairs [..., classes], from the vectors of `<s>` [..., D].

  Args:
    head: heads["paraphrase"], one linear map.
    first: last hidden states of the first tokens.
  """
  return _linear(head, first)


def token_logits(head: Params, hidden_BTD: jax.Array) -> jax.Array:
  """Classes of every token [B, T, classes]; heads["token_classification"]."""
  return _linear(head, hidden_BTD)


def span_logits(
  head: Params, hidden_BTD: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Start and end of an answer, [B, T] each; heads["question_answering"]."""
  logits_BT2 = _linear(head, hidden_BTD)
  return logits_BT2[..., 0], logits_BT2[..., 1]


def _linear(head: Params, x: jax.Array) -> jax.Array:
  return x @ head["kernel"] + head["bias"]
