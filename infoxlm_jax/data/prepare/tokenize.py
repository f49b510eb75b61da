"""Cleans and tokenises a chunk of examples.

A chunk whose file exists is not made again. For the n examples that are kept,
the file holds

    tokens    int32, all sides of all examples, without special tokens
    lengths   int32 [n, sides], one side for a text, two for a pair
    group     int32 [n], index of the example's language(s) in meta["groups"]
    hashes    uint64 [n], sorted, each of an example's language(s) and tokens
    order     int64 [n], the example that each hash belongs to
    sentences uint64 [n, sides], the hash of each text (sentences.py), if some
              are held out; else not in the file

meta["counts"] has, for each group, how many sentences were read and how many
were dropped, by reason. A pair has two sentences.
"""

import functools
import hashlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.data.languages import is_language
from infoxlm_jax.data.prepare import sentences, unicode_scripts
from infoxlm_jax.data.prepare.array_files import write_arrays
from infoxlm_jax.data.prepare.chunks import Chunk
from infoxlm_jax.data.prepare.filters import REASONS, Cleaning, judge
from infoxlm_jax.data.sampler import mix
from infoxlm_jax.data.tokenizers.base import Tokenizer, load_tokenizer
from infoxlm_jax.errors import InputError

# Texts of one call of the tokenizer: its lists of Python numbers take ten times
# the memory of the arrays.
_BATCH = 4096


def make_chunk(
  chunk: Chunk,
  path: Path,
  name: str,
  limit: int,
  cleaning: Cleaning,
  tokenizer: Path,
  by_sentence: bool,
) -> int:
  """Cleans, tokenises and writes a chunk, in a worker.

  Args:
    chunk: the examples.
    path: file to write.
    name: of the corpus, for messages.
    limit: the most tokens of a text or a side.
    cleaning: which examples to drop.
    tokenizer: its folder.
    by_sentence: whether the file holds "sentences".

  Returns:
    The number of tokens, with those of dropped examples.

  Raises:
    InputError: a bad language code, ids that are not the tokenizer's, or a
      text that is too long if the policy is "error".
  """
  model = _tokenizer(tokenizer)
  groups, group = _groups(chunk.languages, name)
  encoded = [_encode(model, side, chunk, name) for side in chunk.sides]
  lengths = np.stack([n for _, n in encoded], axis=1)
  hashes = np.stack([_hashes(ids, n) for ids, n in encoded], axis=1)
  identical = None
  if len(encoded) == 2:
    translated = np.array([a != b for a, b in groups], bool)
    identical = (hashes[:, 0] == hashes[:, 1]) & translated[group]
  verdict = judge(
    cleaning,
    lengths,
    limit,
    _shares(chunk, cleaning),
    identical,
  )
  _stop_at_long(cleaning, verdict, lengths, limit, chunk, name)
  kept = verdict == 0
  more = {}
  if by_sentence:
    columns = [_sentences(model, side) for side in chunk.sides]
    more["sentences"] = np.stack(columns, axis=1)[kept]
  write_arrays(
    path,
    {"groups": groups, "counts": _counts(verdict, group, groups)},
    tokens=_interleave(encoded, kept),
    lengths=lengths[kept].astype(np.int32),
    group=group[kept].astype(np.int32),
    **_sorted(_example_hashes(hashes, groups, group)[kept]),
    **more,
  )
  return int(lengths.sum())


@functools.cache
def _tokenizer(folder: Path) -> Tokenizer:
  # There is a process for each core: threads of the library would slow them.
  os.environ["TOKENIZERS_PARALLELISM"] = "false"
  return load_tokenizer(folder)


def _groups(
  languages: Sequence[Sequence[str]], name: str
) -> tuple[list[tuple[str, ...]], np.ndarray]:
  """The languages (or pairs) that occur, sorted, and each example's index."""
  rows = list(zip(*languages, strict=True))
  groups = sorted(set(rows))
  for language in itertools.chain(*groups):
    if not is_language(language):
      raise InputError(
        f"{name}: an example has the language {language!r}; expected a code "
        "such as 'en' or 'zh-Hant'."
      )
  number = {row: n for n, row in enumerate(groups)}
  return groups, np.fromiter(map(number.__getitem__, rows), np.int64, len(rows))


def _encode(
  model: Tokenizer, side: list[Any], chunk: Chunk, name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Tokens of all texts of a side, concatenated, and their lengths."""
  if not isinstance(side[0], str):
    lengths = np.fromiter(map(len, side), np.int64, len(side))
    ids = np.concatenate(side).astype(np.int32)
    if ids.size and not 0 <= ids.min() <= ids.max() < model.vocab_size:
      wrong = int(ids[(ids < 0) | (ids >= model.vocab_size)][0])
      raise InputError(
        f"{name}: one of the examples {chunk.first + 1} to "
        f"{chunk.first + len(side)} has the token id {wrong}, which is not "
        f"among the tokenizer's {model.vocab_size}: give the tokenizer that "
        "made the ids."
      )
    return ids, lengths
  flat, counts = [], []
  for start in range(0, len(side), _BATCH):
    ids, lengths = encode_flat(model, side[start : start + _BATCH])
    flat.append(ids)
    counts.append(lengths)
  return np.concatenate(flat), np.concatenate(counts)


def encode_flat(
  model: Tokenizer, texts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Tokens of all texts, concatenated, int32; lengths, int64 [texts]."""
  if method := getattr(model, "encode_flat", None):
    return method(texts)
  arrays = model.encode_batch(texts)
  lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
  return np.concatenate(arrays).astype(np.int32), lengths


def _sentences(model: Tokenizer, side: Sequence[Any]) -> np.ndarray:
  """A hash of each text, or of the text of its ids, uint64 [texts]."""
  texts = [t if isinstance(t, str) else model.decode(t.tolist()) for t in side]
  return sentences.hashes(texts)


def _hashes(ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """A hash of each text's tokens, uint64 [texts]."""
  view = ids.astype("<i4", copy=False).data.cast("B")
  ends = (4 * np.cumsum(lengths)).tolist()
  starts = [0, *ends[:-1]]
  blake = hashlib.blake2b
  return np.frombuffer(
    b"".join(
      [
        blake(view[s:e], digest_size=8).digest()
        for s, e in zip(starts, ends, strict=True)
      ]
    ),
    "<u8",
  )


def _example_hashes(
  hashes: np.ndarray, groups: Sequence[tuple[str, ...]], group: np.ndarray
) -> np.ndarray:
  salts = [
    hashlib.blake2b("\0".join(names).encode(), digest_size=8).digest()
    for names in groups
  ]
  salt = np.frombuffer(b"".join(salts), "<u8")[group]
  return mix(salt, *hashes.T)


def _sorted(hashes: np.ndarray) -> dict[str, np.ndarray]:
  order = np.argsort(hashes, kind="stable")
  return {"hashes": hashes[order], "order": order.astype(np.int64)}


def _shares(chunk: Chunk, cleaning: Cleaning) -> np.ndarray | None:
  if cleaning.min_script_share is None or not isinstance(
    chunk.sides[0][0], str
  ):
    return None
  shares = np.ones((len(chunk.sides[0]), len(chunk.sides)))
  for number, (side, languages) in enumerate(
    zip(chunk.sides, chunk.languages, strict=True)
  ):
    names = np.array(languages)
    for language in set(languages):
      places = np.flatnonzero(names == language)
      texts = [side[i] for i in places.tolist()]
      shares[places, number] = unicode_scripts.shares(texts, language)
  return shares


def _counts(
  verdict: np.ndarray, group: np.ndarray, groups: Sequence[tuple[str, ...]]
) -> list[dict[str, Any]]:
  out = []
  for number, names in enumerate(groups):
    counts = np.bincount(verdict[group == number], minlength=len(REASONS))
    counts *= len(names)  # sentences: a pair has two
    dropped = {
      reason: int(n)
      for reason, n in zip(REASONS, counts.tolist(), strict=True)
      if reason and n
    }
    out.append({"read": int(counts.sum()), "dropped": dropped})
  return out


def _interleave(
  encoded: Sequence[tuple[np.ndarray, np.ndarray]], kept: np.ndarray
) -> np.ndarray:
  """Tokens of the kept examples, the sides of each one after the other."""
  if len(encoded) == 1 and kept.all():
    return encoded[0][0]
  pieces = []
  for ids, lengths in encoded:
    ends = np.cumsum(lengths)
    pieces.append((ids, (ends - lengths)[kept].tolist(), ends[kept].tolist()))
  runs = [
    ids[s:e]
    for row in zip(
      *[
        [(ids, s, e) for s, e in zip(starts, ends, strict=True)]
        for ids, starts, ends in pieces
      ],
      strict=True,
    )
    for ids, s, e in row
  ]
  return np.concatenate([np.empty(0, np.int32), *runs])


def _stop_at_long(
  cleaning: Cleaning,
  verdict: np.ndarray,
  lengths: np.ndarray,
  limit: int,
  chunk: Chunk,
  name: str,
) -> None:
  pairs = lengths.shape[1] == 2
  policy = cleaning.on_long_side if pairs else cleaning.on_long
  long = np.flatnonzero(verdict == REASONS.index("too_long"))
  if policy != "error" or not len(long):
    return
  option = "on_long_side" if pairs else "on_long"
  raise InputError(
    f"{name}: example {chunk.first + int(long[0]) + 1} has "
    f"{int(lengths[long[0]].max())} tokens, {limit} fit. Shorten it, or set "
    f"Cleaning.{option} to another policy than 'error'."
  )
