"""The request of prepare as JSON, and whether a folder was made by it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infoxlm_jax.data import prepared_files
from infoxlm_jax.data.corpora.base import Corpus
from infoxlm_jax.data.corpora.held_out_pairs import HeldOutPairs
from infoxlm_jax.data.manifest import FORMAT
from infoxlm_jax.data.prepare import work_dir
from infoxlm_jax.data.prepare.filters import Cleaning
from infoxlm_jax.data.prepare.plan import Sizes
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import read_files

# The corpora's splits for the records, and for the retrieval files.
STORES = {"train": "train", "dev": "validation"}
RETRIEVAL = {"dev": "validation", "test": "test"}
# The options that say how many records of training go to another store.
HELD_OUT_PARTS = {"dev": "held_out", "test": "held_out_test"}
# So that 48 bits and more of a key are a hash.
MOST_TOGETHER = 1 << 16


def options_of(
  *,
  model: Tokenizer,
  row_length: int,
  seed: int,
  max_side: int,
  cleaning: Cleaning,
  stores: Mapping[str, str] | None,
  retrieval: Mapping[str, str] | None,
  held_out: int,
  sizes: Sizes,
  corpora: Sequence[Corpus],
  pairs_together: int = 1,
  held_out_test: int = 0,
) -> dict[str, Any]:
  """The options that decide a prepared folder, besides its corpora, as JSON.

  Raises:
    InputError: bad options, no corpus, or two corpora with one name.
  """
  if row_length < 3 or max_side < 1:
    raise InputError(
      f"prepare: row_length = {row_length} and max_side = {max_side} leave no "
      "room for a sentence: they must be at least 3 and 1."
    )
  for name, count in (("held_out", held_out), ("held_out_test", held_out_test)):
    if count < 0:
      raise InputError(f"prepare: {name} = {count} must not be negative.")
  if not 1 <= pairs_together <= MOST_TOGETHER:
    raise InputError(
      f"prepare: pairs_together = {pairs_together} must be from 1, which"
      f" shuffles every pair by itself, to {MOST_TOGETHER}."
    )
  cleaning.check()
  kinds = [corpus.kind for corpus in corpora]
  if not {"text", "pairs"} & set(kinds):
    raise InputError(
      "prepare: corpora names no texts and no pairs: give at least one corpus "
      f"of kind 'text' or 'pairs' (found {kinds or 'none'})."
    )
  names = [corpus.name for corpus in corpora]
  if twice := sorted({name for name in names if names.count(name) > 1}):
    raise InputError(
      f"prepare: two corpora have the name {twice[0]!r}: give each its own."
    )
  own = dict(STORES if stores is None else stores)
  if held_out_test or any(_outside(c, RETRIEVAL["test"]) for c in corpora):
    own.setdefault("test", RETRIEVAL["test"])
  return {
    "format": FORMAT,
    "tokenizer_sha256": model.sha256,
    "row_length": row_length,
    "max_side": max_side,
    "seed": seed,
    "cleaning": dataclasses.asdict(cleaning),
    "stores": own,
    "retrieval": dict(RETRIEVAL if retrieval is None else retrieval),
    "held_out": held_out,
    "sizes": sizes._asdict(),
    # Requests from before these options existed lack them.
    **({"pairs_together": pairs_together} if pairs_together > 1 else {}),
    **({"held_out_test": held_out_test} if held_out_test else {}),
  }


def outside_parts(
  corpora: Sequence[Corpus], request: Mapping[str, Any]
) -> list[str]:
  """The parts, "dev" and "test", that some pairs outside of training give."""
  return [
    part
    for part in HELD_OUT_PARTS
    if any(_outside(c, request["stores"].get(part)) for c in corpora)
  ]


def _outside(corpus: Corpus, split: str | None) -> bool:
  """Whether a corpus has pairs for a split, and none for training."""
  return isinstance(corpus, HeldOutPairs) and corpus.split == split


def describe(corpus: Corpus, options: Mapping[str, Any]) -> dict[str, Any]:
  """A corpus and the fingerprints of its splits, as JSON."""
  which = "retrieval" if corpus.kind == "multiway" else "stores"
  available = corpus.splits()
  wanted = dict.fromkeys(options[which].values())
  splits = {s: corpus.fingerprint(s) for s in wanted if s in available}
  described = {
    "corpus": repr(corpus),
    "name": corpus.name,
    "kind": corpus.kind,
    "splits": splits,
  }
  return json.loads(json.dumps(described))


def read_request(
  output: Path, options: Mapping[str, Any]
) -> dict[str, Any] | None:
  """The request that `output` was prepared with; None if it is empty.

  Raises:
    InputError: it is no prepared folder, or the request has other options.
  """
  if not output.exists() or (output.is_dir() and not any(output.iterdir())):
    return None
  path = output / work_dir.REQUEST
  if not path.is_file():
    raise InputError(
      f"{output} exists and is not prepared data (no {work_dir.REQUEST}): "
      "nothing was overwritten. Choose another folder, or move this one away."
    )
  request = read_files.read_object(path, {"corpora": list})
  for described in request["corpora"]:
    read_files.check_object(described, f"{path}, corpora", {"corpus": str})
  if changed := work_dir.differences(
    {k: request.get(k) for k in options}, options
  ):
    raise InputError(_another(output, changed))
  return request


def without_test(output: Path) -> bool:
  """Whether `output` was prepared without records for test.

  Then one line says so: a run that began before there was such a part goes on
  with its data.
  """
  path = output / work_dir.REQUEST
  if not path.is_file() or "held_out_test" in read_files.read_object(path):
    return False
  print(
    f"{output} was prepared without a part for test (HELD_OUT_TEST); it is used"
    " as it is.",
    flush=True,
  )
  return True


def is_done(output: Path, request: dict[str, Any]) -> bool:
  """Whether `output` was prepared with this request, and is undamaged.

  Raises:
    InputError: it was prepared with another request, or is damaged.
  """
  earlier = read_request(output, {})
  if earlier is None:
    return False
  if changed := work_dir.differences(earlier, request):
    raise InputError(_another(output, changed))
  prepared_files.verify(output)
  return True


def _another(output: Path, changed: Sequence[str]) -> str:
  return (
    f"{output} was prepared from another request: {'; '.join(changed[:5])}. "
    "Nothing was overwritten. Choose another folder, or move this one away."
  )
