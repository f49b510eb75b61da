"""Shards: the records of a group from all chunks, sorted by their keys.

A shard is one range of keys. make_records.py describes the files of records.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from infoxlm_jax.data import records
from infoxlm_jax.data.prepare.array_files import read_arrays, write_checked_json
from infoxlm_jax.data.prepare.deduplicate import hash_range, within


class Source(NamedTuple):
  """The records of a part (make_records.py) in a file."""

  path: Path
  part: str


def make_shard(
  sources: Sequence[Source],
  languages: Sequence[str],
  number: int,
  count: int,
  folder: Path,
  name: str,
  eos: int,
  out: Path,
) -> int:
  """Writes the records of range `number` of `count` of keys, in a worker.

  Args:
    sources: files of records, in order.
    languages: of the group.
    number, count: of the range.
    folder, name: of the shard.
    eos: id that ends a sentence.
    out: file to write: {"shard": the manifest's entry, None if the range has
      no record, "sentences", "tokens"}.

  Returns:
    The number of tokens.
  """
  low, high = hash_range(number, count)
  keys, lengths, data = [], [], []
  for source in sources:
    meta, arrays = read_arrays(source.path)
    for group in meta["groups"]:
      if (group["languages"], group["part"]) != (list(languages), source.part):
        continue
      start, end = group["rows"]
      first, last = within(arrays["keys"][start:end], low, high)
      if first >= last:
        continue
      first, last = first + start, last + start
      offset = int(arrays["ends"][first - 1]) if first else 0
      ends = arrays["ends"][first:last]
      keys.append(arrays["keys"][first:last])
      lengths.append(np.diff(ends, prepend=offset))
      data.append(arrays["data"][offset : int(ends[-1])])
  entry: dict[str, Any] = {"shard": None, "sentences": 0, "tokens": 0}
  if keys:
    order = np.argsort(np.concatenate(keys), kind="stable")
    sizes = np.concatenate(lengths)
    flat = np.concatenate(data)
    del keys, lengths, data
    ends = np.cumsum(sizes)
    view = flat.astype("<i4", copy=False).data.cast("B")
    runs = zip(
      (4 * (ends - sizes)[order]).tolist(),
      (4 * ends[order]).tolist(),
      strict=True,
    )
    pairs = len(languages) == 2
    shard = records.write_shard(
      folder,
      name,
      (view[start:end].tobytes() for start, end in runs),
      "pairs" if pairs else "text",
    )
    entry = {
      "shard": dataclasses.asdict(shard),
      "sentences": 2 * len(sizes) if pairs else int((flat == eos).sum()),
      "tokens": int(sizes.sum()) - (len(sizes) if pairs else 0),
    }
  write_checked_json(out, entry)
  return entry["tokens"]
