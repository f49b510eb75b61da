"""Compares an exported folder with its source, in torch.

Torch, transformers and sentence-transformers are optional: without them there
is no comparison, and the export says so.
"""

import contextlib
import dataclasses
import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infoxlm_jax.checkpoint.exporters.source import Source
from infoxlm_jax.checkpoint.importers.compare_tokenizer import SENTENCES
from infoxlm_jax.errors import InputError
from infoxlm_jax.model import encoder, heads

LIMIT = 1e-3  # largest difference that rounding explains


@dataclasses.dataclass(frozen=True)
class Difference:
  """The largest difference between ours and torch's.

  Attributes:
    what: which numbers.
    largest: absolute.
  """

  what: str
  largest: float

  def __str__(self) -> str:
    return f"{self.what}: largest difference from torch {self.largest:.1e}"


def available(*packages: str) -> bool:
  """Whether all these packages are installed."""
  return all(importlib.util.find_spec(name) for name in packages)


def rounded(source: Source, dtype: str) -> Source:
  """The model as `dtype` stores it, to be computed with in float32."""
  params = jax.tree.map(
    lambda x: jnp.asarray(x).astype(dtype).astype(jnp.float32), source.params
  )
  config = dataclasses.replace(source.config, dtype="float32")
  return dataclasses.replace(source, config=config, params=params)


def compare_model(
  folder: Path, source: Source, class_name: str, dtype: str
) -> Difference:
  """Loads a folder with transformers and compares outputs on a few sentences.

  Args:
    folder: the exported folder.
    source: the model that was exported.
    class_name: the class of transformers that loads it.
    dtype: of the exported weights; the source's are rounded to it.

  Raises:
    InputError: it does not load, tensors are missing or unknown, ids of the
      tokenizer or outputs differ.
  """
  import torch
  import transformers

  with _quiet():
    model, info = getattr(transformers, class_name).from_pretrained(
      folder, dtype=torch.float32, output_loading_info=True
    )
  _check_keys(info)
  if source.tokenizer is not None:
    _check_tokenizer(folder, source)
  ids = _sample(source)
  width = max(map(len, ids))
  pad = source.config.pad_id
  tokens = np.array([[*one] + [pad] * (width - len(one)) for one in ids])
  real = np.arange(width) < np.array([[len(one)] for one in ids])
  model.eval()
  with torch.no_grad():
    outputs = model(
      input_ids=torch.tensor(tokens),
      attention_mask=torch.tensor(real.astype(np.int64)),
      output_hidden_states=True,
    )
  what, ours, theirs = _outputs(
    source, class_name, tokens, real, outputs, dtype
  )
  if ours.shape[:2] == real.shape:
    ours, theirs = ours[real], theirs[real]
  return _checked(Difference(what, float(np.abs(ours - theirs).max())))


def compare_vectors(folder: Path, vectors: np.ndarray) -> Difference:
  """The same with sentence-transformers, on the vectors of SENTENCES.

  Raises:
    InputError: the vectors differ.
  """
  from sentence_transformers import SentenceTransformer

  with _quiet():
    model = SentenceTransformer(str(folder), device="cpu")
  theirs = model.encode(list(SENTENCES), show_progress_bar=False)
  largest = float(np.abs(np.asarray(theirs) - vectors).max())
  return _checked(Difference("sentence vectors", largest))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Without transformers' report on the pooler, which is meant to be absent."""
  from transformers.utils import logging as theirs

  ours = logging.getLogger("sentence_transformers")
  level, verbosity = ours.level, theirs.get_verbosity()
  theirs.set_verbosity_error()
  theirs.disable_progress_bar()
  ours.setLevel(logging.ERROR)
  try:
    yield
  finally:
    theirs.set_verbosity(verbosity)
    theirs.enable_progress_bar()
    ours.setLevel(level)


def _checked(difference: Difference) -> Difference:
  if not difference.largest <= LIMIT:
    raise InputError(
      f"{difference}, which is more than {LIMIT:g}: the export is not what it"
      " was made from, and was removed. Please report this with the model's"
      " config.json."
    )
  return difference


def _check_keys(info: Any) -> None:
  missing = [k for k in info["missing_keys"] if "pooler." not in k]
  unknown = list(info["unexpected_keys"])
  if missing or unknown:
    raise InputError(
      f"transformers finds tensors missing ({', '.join(missing) or 'none'}) or"
      f" unknown ({', '.join(unknown) or 'none'}) in the export, which was"
      " removed. Please report this with the model's config.json."
    )


def _check_tokenizer(folder: Path, source: Source) -> None:
  import transformers

  assert source.tokenizer is not None
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  for sentence, ids in zip(SENTENCES, _sample(source), strict=True):
    their_ids = theirs(sentence)["input_ids"]
    if list(ids) != list(their_ids):
      raise InputError(
        f"transformers' tokenizer makes {their_ids} of {sentence!r}, ours"
        f" {list(map(int, ids))}: the export was removed. Please report this."
      )


def _sample(source: Source) -> list[np.ndarray]:
  """Ids with <s> and </s>; random ones without a tokenizer."""
  ids, limit = source.config.ids, source.config.max_positions - 2
  if source.tokenizer is not None:
    pieces = source.tokenizer.encode_batch(SENTENCES)
  else:
    random = np.random.default_rng(0)
    ordinary = np.setdiff1d(np.arange(ids.size), ids.special)
    pieces = [random.choice(ordinary, n) for n in (3, 9, 20)]
  return [np.array([ids.bos, *one[:limit], ids.eos]) for one in pieces]


def _outputs(
  source: Source,
  class_name: str,
  tokens: np.ndarray,
  real: np.ndarray,
  outputs: Any,
  dtype: str,
) -> tuple[str, np.ndarray, np.ndarray]:
  """(what, ours, theirs) of a batch [B, T]."""
  source = rounded(source, dtype)
  config, params = source.config, source.params
  rows = {
    "tokens": jnp.asarray(tokens, jnp.int32),
    "segments": jnp.asarray(real, jnp.int32),
    "positions": jnp.where(real, jnp.arange(tokens.shape[1]), 0),
  }

  @jax.jit
  def run(params: Any) -> Any:
    hidden = encoder.encode(params, rows, config)
    if class_name.endswith(("MaskedLM", "PreTraining", "LMHeadModel")):
      head, table = params["heads"]["masked_lm"], params["embed"]["token"]
      logits = encoder.lm_logits(head, table, hidden, config)
      return logits[..., : config.vocab_size]
    if class_name.endswith("SequenceClassification"):
      return heads.classification_logits(
        params["heads"]["classification"], hidden
      )
    if class_name.endswith("TokenClassification"):
      return heads.token_logits(params["heads"]["token_classification"], hidden)
    if class_name.endswith("QuestionAnswering"):
      head = params["heads"]["question_answering"]
      return jnp.stack(heads.span_logits(head, hidden), -1)
    return hidden

  # An accelerator's default would round the products to fewer bits.
  with jax.default_matmul_precision("highest"):
    ours = np.asarray(run(params))
  if class_name.endswith("QuestionAnswering"):
    both = (outputs.start_logits.numpy(), outputs.end_logits.numpy())
    return "logits", ours, np.stack(both, -1)
  for name in ("logits", "prediction_logits"):
    if class_name.endswith("NextSentencePrediction"):
      break
    if (logits := getattr(outputs, name, None)) is not None:
      return "logits", ours, logits.numpy()
  return "hidden states", ours, outputs.hidden_states[-1].numpy()
