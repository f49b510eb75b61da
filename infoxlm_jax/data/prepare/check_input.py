"""Checks the input of a preparation before anything is done."""

import os
from collections.abc import Sequence

from infoxlm_jax.data.corpora.base import Corpus
from infoxlm_jax.data.corpora.held_out_pairs import held_out_pairs
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.runtime import resources


def check_input(
  *,
  tokenizer: str | os.PathLike[str],
  corpora: Sequence[Corpus],
  dev_pairs: str | None = None,
  test_pairs: str | None = None,
) -> None:
  """Checks that tokenizer and files are there; reads no text.

  Args:
    tokenizer, corpora, dev_pairs, test_pairs: see pipeline.prepare.

  Raises:
    InputError: a file is missing, or a pattern matches none.
  """
  load_tokenizer(resources.find(tokenizer))
  for corpus in (*corpora, *held_out_pairs(dev_pairs, test_pairs)):
    for split in corpus.splits():
      corpus.fingerprint(split)
