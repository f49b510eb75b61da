"""Another record of the corpus that an item is drawn from, for negatives."""

from typing import Any

import numpy as np

from infoxlm_jax.data.mixture import Mixture
from infoxlm_jax.data.records import Store
from infoxlm_jax.errors import InputError


def check_others(
  stream: Any, store: Store, mixture: Mixture, source: np.ndarray, noun: str
) -> None:
  """Raises InputError where a corpus in `source` has a single record.

  Args:
    stream: for its class's name in the message.
    store: for its folder.
    mixture: of the corpora.
    source: index of each item's corpus.
    noun: what a record is a pair of.
  """
  counts = mixture.sampler.counts[source]
  if counts.min(initial=2) < 2:
    languages = mixture.corpora[int(source[counts.argmin()])]
    name = "-".join(dict.fromkeys(languages))
    raise InputError(
      f"{type(stream).__name__}: {store.folder} holds a single pair of {noun}"
      f" in {name!r}, so there is no other second side to draw: prepare more of"
      " it, or leave it out of `languages`."
    )


def another(
  mixture: Mixture, source: np.ndarray, record: np.ndarray, hashes: np.ndarray
) -> np.ndarray:
  """A record of the same corpus, but not this one; each is equally likely.

  Args:
    mixture: its corpora in `source` have two records or more, see
      `check_others`.
    source, record: int64, of one shape with `hashes` or broadcast against it.
    hashes: uint64, which decide.
  """
  counts = mixture.sampler.counts[source]
  step = hashes % (counts - 1).astype(np.uint64)
  return np.asarray((record + 1 + step.astype(np.int64)) % counts)
