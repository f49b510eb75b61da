"""Runs the phases of prepare; each continues where it was stopped.

plan.py names the files that each phase leaves.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from infoxlm_jax.data.corpora.unpacking import bytes_consumed
from infoxlm_jax.data.manifest import Manifest
from infoxlm_jax.data.prepare import retrieval_sets, summary
from infoxlm_jax.data.prepare.array_files import read_arrays, write_checked_json
from infoxlm_jax.data.prepare.chunks import cut_chunks
from infoxlm_jax.data.prepare.deduplicate import find_duplicates
from infoxlm_jax.data.prepare.hold_out import Source, write_hold_out
from infoxlm_jax.data.prepare.make_records import make_records
from infoxlm_jax.data.prepare.plan import (
  File,
  Part,
  Plan,
  chunk_path,
  read_json,
  records_path,
)
from infoxlm_jax.data.prepare.process_pool import Pool, Task
from infoxlm_jax.data.prepare.request import HELD_OUT_PARTS, outside_parts
from infoxlm_jax.data.prepare.sentences import hashes
from infoxlm_jax.data.prepare.tokenize import make_chunk
from infoxlm_jax.data.prepare.write_shards import write_store
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime.progress import Progress


def write_stores(plan: Plan, pool: Pool, progress: bool) -> dict[str, Manifest]:
  """Runs all phases.

  Returns:
    The manifest of each store that has records.

  Raises:
    InputError: a store without a sentence, or bad examples.
  """
  parts = {store: _parts(plan, store) for store in plan.request["stores"]}
  for store, split in plan.request["stores"].items():
    if not parts[store] and not (
      store in HELD_OUT_PARTS and parts.get("train")
    ):
      names = ", ".join(corpus.name for corpus in plan.corpora)
      raise InputError(f"no corpus has the split {split!r}: looked at {names}.")
  by_sentence = _holds_out(plan, parts)
  chunks = {
    store: _tokenize(plan, store_parts, store, by_sentence, pool, progress)
    for store, store_parts in parts.items()
  }
  passes = {
    store: _find_duplicates(plan, store, pieces, pool, progress)
    for store, pieces in chunks.items()
  }
  held = _hold_out(plan, chunks, passes["train"], pool) if by_sentence else None
  made: dict[str, list[File]] = {}
  for store, pieces in chunks.items():
    own = held if store == "train" else None
    made[store] = _make_records(
      plan, pieces, passes[store], own, store, pool, progress
    )
    if parts[store] and not any(
      g["size"] for f in made[store] for g in f.groups
    ):
      raise InputError(
        f"split {plan.request['stores'][store]!r} of "
        f"{', '.join(p.corpus.name for p in parts[store])} gives no sentence"
        f"{summary.why_none(made[store])}."
      )
  return {
    store: manifest
    for store in parts
    if (manifest := write_store(plan, store, made, pool, progress))
  }


def _parts(plan: Plan, store: str) -> list[Part]:
  """The corpora's splits that the store is made of."""
  split = plan.request["stores"][store]
  dev = plan.request["stores"].get("dev")
  held_out = store == "train" and any(
    plan.request.get(name) for name in HELD_OUT_PARTS.values()
  )
  out = []
  for number, corpus in enumerate(plan.corpora):
    splits = plan.request["corpora"][number]["splits"]
    if corpus.kind != "multiway" and split in splits:
      folder = plan.folder / store / f"{number:03d}"
      out.append(Part(corpus, split, folder, held_out and dev not in splits))
  return out


def _holds_out(plan: Plan, parts: Mapping[str, Sequence[Part]]) -> bool:
  """Whether sentences are held out of training."""
  if not parts.get("train"):
    return False
  return (
    any(part.held_out for part in parts["train"])
    or any(own for store, own in parts.items() if store != "train")
    or any(
      corpus.kind == "multiway" and described["splits"]
      for corpus, described in zip(
        plan.corpora, plan.request["corpora"], strict=True
      )
    )
  )


def _hold_out(
  plan: Plan,
  chunks: Mapping[str, Sequence[tuple[Part, Path]]],
  passes: Sequence[Path],
  pool: Pool,
) -> Path:
  """Between phases 2 and 3: the file of what is held out of training."""
  out = plan.folder / "held_out"
  if out.exists():
    return out
  request = plan.request
  elsewhere = outside_parts(plan.corpora, request)
  counts = {
    part: 0 if part in elsewhere else request.get(name, 0)
    for part, name in HELD_OUT_PARTS.items()
  }
  if "test" in request["retrieval"] and any(
    corpus.kind == "multiway"
    and request["retrieval"]["test"] in described["splits"]
    for corpus, described in zip(plan.corpora, request["corpora"], strict=True)
  ):
    counts["test"] = 0
  outside = [
    read_arrays(path)[1]["sentences"].reshape(-1)
    for store, pieces in chunks.items()
    if store != "train"
    for _, path in pieces
  ]
  for row in retrieval_sets.multiway_rows(plan.corpora, request["retrieval"]):
    outside.append(hashes([text for key, text in row.items() if key != "id"]))
  write_hold_out(
    out,
    [
      Source(path, place)
      for place, (part, path) in enumerate(chunks["train"])
      if part.held_out
    ],
    passes,
    plan.layout,
    counts | {"texts": request["held_out"]},
    np.unique(np.concatenate([np.empty(0, np.uint64), *outside])),
    pool.run,
  )
  return out


def _tokenize(
  plan: Plan,
  parts: Sequence[Part],
  store: str,
  by_sentence: bool,
  pool: Pool,
  progress: bool,
) -> list[tuple[Part, Path]]:
  """Phase 1: the chunks of all parts."""
  todo = [part for part in parts if not (part.folder / "read.json").exists()]
  counts: dict[Path, int] = {}
  start = bytes_consumed()

  def tasks(phase: Progress) -> Iterator[Task]:
    for part in todo:
      part.folder.mkdir(parents=True, exist_ok=True)
      limit = plan.request["max_side"]
      if part.corpus.kind == "text":
        limit = plan.request["row_length"] - 2
      name = part.corpus.name
      counts[part.folder] = 0
      for chunk in cut_chunks(
        part.corpus.examples(part.split),
        part.corpus.kind,
        name,
        plan.sizes.chunk,
      ):
        counts[part.folder] += 1
        path = chunk_path(part, chunk.number)
        if path.exists() or records_path(path).exists():
          phase.skip(bytes_consumed() - start)
          continue
        yield (
          chunk,
          path,
          name,
          limit,
          plan.cleaning,
          plan.folder / "tokenizer",
          by_sentence,
        )

  name = f"{store} 1/4 tokenise"
  with Progress(_size(todo), name=name, phase=True, enabled=progress) as phase:
    for tokens in pool.run(make_chunk, tasks(phase)):
      phase.update(bytes_consumed() - start, tokens=tokens)
  for folder, count in counts.items():
    write_checked_json(folder / "read.json", {"chunks": count})
  return [
    (part, chunk_path(part, number))
    for part in parts
    for number in range(read_json(part.folder / "read.json")["chunks"])
  ]


def _find_duplicates(
  plan: Plan,
  store: str,
  chunks: Sequence[tuple[Part, Path]],
  pool: Pool,
  progress: bool,
) -> list[Path]:
  """Phase 2: files that list the examples that occurred before."""
  if not plan.cleaning.drop_duplicates or not chunks:
    return []
  folder = plan.folder / store / "duplicates"
  if not (folder / "passes.json").exists():
    folder.mkdir(parents=True, exist_ok=True)
    paths = [path for _, path in chunks]
    examples = sum(len(read_arrays(path)[1]["hashes"]) for path in paths)
    count = max(1, -(-examples // plan.sizes.hashes))
    todo = [
      (paths, number, count, folder / f"{number:04d}")
      for number in range(count)
      if not (folder / f"{number:04d}").exists()
    ]
    with Progress(
      len(todo),
      name=f"{store} 2/4 duplicates",
      phase=True,
      enabled=progress,
    ) as phase:
      for done, _ in enumerate(pool.run(find_duplicates, todo), 1):
        phase.update(done)
    write_checked_json(folder / "passes.json", {"passes": count})
  count = read_json(folder / "passes.json")["passes"]
  return [folder / f"{number:04d}" for number in range(count)]


def _make_records(
  plan: Plan,
  chunks: Sequence[tuple[Part, Path]],
  passes: Sequence[Path],
  held: Path | None,
  store: str,
  pool: Pool,
  progress: bool,
) -> list[File]:
  """Phase 3: the records of each chunk."""
  todo = [
    (
      path,
      passes,
      place,
      plan.layout,
      held,
      part.held_out,
      records_path(path),
    )
    for place, (part, path) in enumerate(chunks)
    if not records_path(path).exists()
  ]
  with Progress(
    len(todo), name=f"{store} 3/4 records", phase=True, enabled=progress
  ) as phase:
    for done, tokens in enumerate(pool.run(make_records, todo), 1):
      phase.update(done, tokens=tokens)
  return [
    File(records_path(path), part, read_arrays(records_path(path))[0]["groups"])
    for part, path in chunks
  ]


def _size(parts: Sequence[Part]) -> int | None:
  """Bytes that reading the parts consumes; None if one is not known."""
  sizes = []
  for part in parts:
    size = getattr(part.corpus, "size", None)
    sizes.append(size(part.split) if size else None)
  known = [size for size in sizes if size is not None]
  return sum(known) if len(known) == len(sizes) else None
