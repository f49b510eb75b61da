"""The prefix that some models want before every text, such as e5's "query: ".

Records hold no prefix, so that the same ones serve any model. Where a tokenizer
cuts text at the end of the prefix in any case, as SentencePiece and WordPiece
do at a space, its tokens stand before those of the text.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError

_PROBE = "Text"


def put_before(
  prefix: str, store: Store, items: Sequence[tuple[np.ndarray, ...]]
) -> list[tuple[np.ndarray, ...]]:
  """Items whose first sentence begins with the tokens of a prefix.

  Args:
    prefix: text.
    store: of the records; the prepared folder that it is in has the tokenizer.
    items: token ids of the sentences of each item.

  Raises:
    InputError: the tokenizer joins the prefix with the text after it.
  """
  ids = _ids(prefix, store.folder.parent)
  return [(np.concatenate([ids, first]), *rest) for first, *rest in items]


@functools.cache
def _ids(prefix: str, folder: Path) -> np.ndarray:
  tokenizer = load_tokenizer(folder)
  ids, text, both = tokenizer.encode_batch([prefix, _PROBE, prefix + _PROBE])
  if not np.array_equal(np.concatenate([ids, text]), both):
    raise InputError(
      f"PREFIX = {prefix!r}: the tokenizer of {folder} does not cut text at the"
      " end of this prefix, so it cannot be put before records. End it with a"
      " space; a byte-level tokenizer can be used without a prefix only."
    )
  return ids.astype(np.int32)
