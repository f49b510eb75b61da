"""The phases of prepare, one after the other, each going on where it stopped.

    work/STORE/CORPUS/000012.chunk      phase 1; removed when the next is there
    work/STORE/CORPUS/read.json         when all its chunks are there
    work/STORE/duplicates/0003          phase 2, one range of hashes
    work/STORE/CORPUS/000012.records    phase 3
    work/STORE/shards/*.json            phase 4, an entry of the manifest each

A file that is there is complete, so what is there is not made again.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tqdm

from infoxlm_jax.data import records
from infoxlm_jax.data.arrays import read_arrays, write_json
from infoxlm_jax.data.chunks import cut_chunks, make_chunk, weigh
from infoxlm_jax.data.cleaning import Cleaning
from infoxlm_jax.data.corpora import Corpus
from infoxlm_jax.data.duplicates import find_duplicates
from infoxlm_jax.data.pool import Pool, Task
from infoxlm_jax.data.shuffle import (
  Layout,
  Source,
  make_records,
  make_shard,
  smallest_keys,
)
from infoxlm_jax.data.tokenizer import Tokenizer
from infoxlm_jax.errors import InputError

_ZERO, _LAST = np.uint64(0), np.uint64(2**64 - 1)
# The most that may be held out of a language or pair.
_HELD_OUT_SHARE = 20


class Sizes(NamedTuple):
  """Of the pieces that work is cut into.

  Attributes:
    chunk: characters of a chunk.
    shard: bytes of a shard's records, before they are packed.
    hashes: that one pass over the duplicates looks at.
  """

  chunk: int
  shard: int
  hashes: int


SIZES = Sizes(chunk=4 << 20, shard=64 << 20, hashes=2 << 20)


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is to be done, and where."""

  folder: Path
  output: Path
  corpora: Sequence[Corpus]
  request: Mapping[str, Any]
  cleaning: Cleaning
  sizes: Sizes
  tokenizer: Tokenizer

  @property
  def layout(self) -> Layout:
    return Layout(
      self.request["row_length"],
      self.request["max_side"],
      self.cleaning.on_long == "split",
      self.request["seed"],
      int(self.tokenizer.bos_id),
      int(self.tokenizer.eos_id),
    )


class _Part(NamedTuple):
  """One split of one corpus, for one store.

  held_out: whether records of it may go to dev.
  """

  corpus: Corpus
  split: str
  folder: Path
  held_out: bool


class _File(NamedTuple):
  path: Path
  part: _Part
  groups: list[dict[str, Any]]


def write_stores(
  plan: Plan, pool: Pool, progress: bool
) -> dict[str, records.Manifest]:
  """Runs all phases; returns the manifests by store.

  Raises:
    InputError: a store without a sentence; bad examples.
  """
  parts = {store: _parts(plan, store) for store in plan.request["stores"]}
  for store, split in plan.request["stores"].items():
    if not parts[store] and not (store == "dev" and parts.get("train")):
      names = ", ".join(corpus.name for corpus in plan.corpora)
      raise InputError(f"no corpus has the split {split!r}: looked at {names}.")
  chunks = {
    store: _read(plan, found, store, pool, progress)
    for store, found in parts.items()
  }
  made: dict[str, list[_File]] = {}
  for store, found in chunks.items():
    passes = _find_duplicates(plan, store, found, pool, progress)
    made[store] = _make_records(plan, found, passes, store, pool, progress)
    if parts[store] and not any(
      g["size"] for f in made[store] for g in f.groups
    ):
      raise InputError(
        f"split {plan.request['stores'][store]!r} of "
        f"{', '.join(p.corpus.name for p in parts[store])} gives no sentence."
      )
  limits = _limits(plan, made.get("train", []))
  return {
    store: manifest
    for store in parts
    if (manifest := _write_store(plan, store, made, limits, pool, progress))
  }


def _parts(plan: Plan, store: str) -> list[_Part]:
  split = plan.request["stores"][store]
  dev = plan.request["stores"].get("dev")
  held_out = bool(store == "train" and plan.request["held_out"])
  out = []
  for number, corpus in enumerate(plan.corpora):
    splits = plan.request["corpora"][number]["splits"]
    if corpus.kind != "multiway" and split in splits:
      folder = plan.folder / store / f"{number:03d}"
      out.append(_Part(corpus, split, folder, held_out and dev not in splits))
  return out


def _read(
  plan: Plan, parts: Sequence[_Part], store: str, pool: Pool, progress: bool
) -> list[tuple[_Part, Path]]:
  """Phase 1: chunks of all parts."""
  sizes = [_size(part) for part in parts]
  known = None if None in sizes else sum(n for n in sizes if n is not None)
  totals: Counter[str] = Counter()
  with _bar(f"{store} 1/4 tokenise", " tokens", None, progress) as bar:

    def count(found: Mapping[str, int], skipped: bool = False) -> None:
      totals.update(found)
      if known and totals["bytes"] and not skipped:
        # Tokens of what was skipped are not known: of the rest it is a guess.
        share = totals["bytes"] / known
        bar.total = int(totals["tokens"] / max(share, 1e-9))
      bar.set_postfix_str(f"{totals['sentences']:,} sentences", refresh=False)
      bar.update(found.get("tokens", 0))

    def tasks() -> Iterator[Task]:
      for part in parts:
        if (part.folder / "read.json").exists():
          continue
        part.folder.mkdir(parents=True, exist_ok=True)
        limit = plan.request["max_side"]
        if part.corpus.kind == "text":
          limit = plan.request["row_length"] - 2
        name, total = part.corpus.name, 0
        for chunk in cut_chunks(
          part.corpus.examples(part.split),
          part.corpus.kind,
          name,
          plan.sizes.chunk,
        ):
          total += 1
          path = _chunk_path(part, chunk.number)
          if path.exists() or _records_path(path).exists():
            count(weigh(chunk), skipped=True)
            continue
          yield (
            chunk,
            path,
            name,
            limit,
            plan.cleaning,
            plan.folder / "tokenizer",
          )
        ends[part.folder] = total

    ends: dict[Path, int] = {}
    for result in pool.run(make_chunk, tasks()):
      count(result)
  for folder, total in ends.items():
    write_json(folder / "read.json", {"chunks": total})
  return [
    (part, _chunk_path(part, number))
    for part in parts
    for number in range(_read_json(part.folder / "read.json")["chunks"])
  ]


def _find_duplicates(
  plan: Plan,
  store: str,
  chunks: Sequence[tuple[_Part, Path]],
  pool: Pool,
  progress: bool,
) -> list[Path]:
  """Phase 2: files that say which examples came before."""
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
    with _bar(f"{store} 2/4 duplicates", " passes", len(todo), progress) as bar:
      for _ in pool.run(find_duplicates, todo):
        bar.update()
    write_json(folder / "passes.json", {"passes": count})
  count = _read_json(folder / "passes.json")["passes"]
  return [folder / f"{number:04d}" for number in range(count)]


def _make_records(
  plan: Plan,
  chunks: Sequence[tuple[_Part, Path]],
  passes: Sequence[Path],
  store: str,
  pool: Pool,
  progress: bool,
) -> list[_File]:
  """Phase 3: records of each chunk."""
  todo = [
    (path, passes, place, plan.layout, _records_path(path))
    for place, (_, path) in enumerate(chunks)
    if not _records_path(path).exists()
  ]
  with _bar(f"{store} 3/4 records", " chunks", len(todo), progress) as bar:
    for _ in pool.run(make_records, todo):
      bar.update()
  return [
    _File(
      _records_path(path), part, read_arrays(_records_path(path))[0]["groups"]
    )
    for part, path in chunks
  ]


def _limits(
  plan: Plan, files: Sequence[_File]
) -> dict[tuple[str, ...], np.uint64]:
  """Up to which key records are held out of training, by language(s)."""
  files = [file for file in files if file.part.held_out]
  totals: Counter[tuple[str, ...]] = Counter()
  for file in files:
    for group in file.groups:
      totals[tuple(group["languages"])] += group["rows"][1] - group["rows"][0]
  limits = {}
  for languages, total in totals.items():
    count = min(plan.request["held_out"], total // _HELD_OUT_SHARE)
    if count:
      keys = [smallest_keys(file.path, languages, count) for file in files]
      smallest = np.partition(np.concatenate(keys), count - 1)
      limits[languages] = smallest[count - 1]
  return limits


def _write_store(
  plan: Plan,
  store: str,
  made: Mapping[str, Sequence[_File]],
  limits: Mapping[tuple[str, ...], np.uint64],
  pool: Pool,
  progress: bool,
) -> records.Manifest | None:
  """Phase 4: shards and manifest; None where the store would be empty."""
  files = made[store]
  groups = {tuple(g["languages"]) for file in files for g in file.groups}
  if store == "dev":
    groups |= set(limits)
  if not groups:
    return None
  entries = plan.folder / store / "shards"
  entries.mkdir(parents=True, exist_ok=True)
  names: dict[tuple[str, ...], list[str]] = {}
  todo: list[Task] = []
  for languages in sorted(groups):
    sources = _sources(store, languages, made, limits)
    size = sum(
      4 * g["size"]
      for file in files
      for g in file.groups
      if tuple(g["languages"]) == languages
    )
    count = max(1, -(-size // plan.sizes.shard))
    kind = "text" if len(languages) == 1 else "pairs"
    names[languages] = [
      f"{kind}/{'-'.join(languages)}-{n:05d}-of-{count:05d}.arrayrecord"
      for n in range(count)
    ]
    for number, name in enumerate(names[languages]):
      todo.append(
        (
          sources,
          languages,
          number,
          count,
          plan.folder / store / "finished",
          name,
          plan.layout.eos,
          entries / (name.replace("/", "-") + ".json"),
        )
      )
  missing = [task for task in todo if not task[-1].exists()]
  with _bar(f"{store} 4/4 shards", " shards", len(missing), progress) as bar:
    for _ in pool.run(make_shard, missing):
      bar.update()
  manifest = _manifest(plan, store, files, names, entries)
  folder = plan.output / store
  folder.mkdir()
  for corpus in manifest.corpora:
    for shard in corpus.shards:
      (folder / shard.name).parent.mkdir(exist_ok=True)
      (folder / shard.name).hardlink_to(
        plan.folder / store / "finished" / shard.name
      )
  (folder / records.MANIFEST).write_text(manifest.to_json(), "utf-8")
  return manifest


def _sources(
  store: str,
  languages: tuple[str, ...],
  made: Mapping[str, Sequence[_File]],
  limits: Mapping[tuple[str, ...], np.uint64],
) -> list[Source]:
  limit = limits.get(languages)
  out = []
  for file in made[store]:
    first = _ZERO
    if limit is not None and file.part.held_out:
      if limit == _LAST:
        continue
      first = np.uint64(int(limit) + 1)
    out.append(Source(file.path, first, _LAST))
  if store == "dev" and limit is not None:
    out += [
      Source(file.path, _ZERO, limit)
      for file in made["train"]
      if file.part.held_out
    ]
  return out


def _manifest(
  plan: Plan,
  store: str,
  files: Sequence[_File],
  names: Mapping[tuple[str, ...], Sequence[str]],
  entries: Path,
) -> records.Manifest:
  counts = _counts(files)
  corpora = []
  for languages, shards in names.items():
    found = [
      _read_json(entries / (name.replace("/", "-") + ".json"))
      for name in shards
    ]
    own = [c for c in counts if c.languages == languages]
    kept = [entry["shard"] for entry in found if entry["shard"]]
    corpora.append(
      records.Corpus(
        languages=languages,
        records=sum(shard["records"] for shard in kept),
        sentences=sum(entry["sentences"] for entry in found),
        tokens=sum(entry["tokens"] for entry in found),
        dropped=dict(sum((Counter(c.dropped) for c in own), Counter())),
        truncated=dict(sum((Counter(c.truncated) for c in own), Counter())),
        shards=tuple(records.Shard(**shard) for shard in kept),
      )
    )
  model = plan.tokenizer
  return records.Manifest(
    tokenizer_sha256=model.sha256,
    vocab_size=model.vocab_size,
    special_ids={
      name: int(getattr(model, f"{name}_id"))
      for name in ("bos", "pad", "eos", "unk", "mask")
    },
    row_length=plan.request["row_length"],
    max_side=plan.request["max_side"],
    corpora=tuple(corpora),
    counts=tuple(counts),
    request=dict(plan.request),
    versions=records.versions(),
  )


def _counts(files: Sequence[_File]) -> list[records.Counts]:
  """Sums over chunks, by corpus and language(s), in the order read."""
  order: dict[tuple[str, str, tuple[str, ...]], list[dict[str, Any]]] = {}
  for file in files:
    for group in file.groups:
      key = (file.part.corpus.name, file.part.split, tuple(group["languages"]))
      order.setdefault(key, []).append(group["counts"])
  out = []
  for (corpus, split, languages), found in order.items():

    def total(name: str, found: list[dict[str, Any]] = found) -> int:
      return sum(counts[name] for counts in found)

    def by_reason(
      name: str, found: list[dict[str, Any]] = found
    ) -> dict[str, int]:
      return dict(sum((Counter(c[name]) for c in found), Counter()))

    out.append(
      records.Counts(
        corpus=corpus,
        split_name=split,
        languages=languages,
        read=total("read"),
        sentences=total("sentences"),
        tokens=total("tokens"),
        dropped=by_reason("dropped"),
        truncated=by_reason("truncated"),
        split=total("split"),
      )
    )
  return out


def _chunk_path(part: _Part, number: int) -> Path:
  return part.folder / f"{number:06d}.chunk"


def _records_path(chunk: Path) -> Path:
  return chunk.with_suffix(".records")


def _read_json(path: Path) -> Any:
  return json.loads(path.read_text("utf-8"))


def _size(part: _Part) -> int | None:
  size = getattr(part.corpus, "size", None)
  return size(part.split) if size else None


def _bar(desc: str, unit: str, total: int | None, progress: bool) -> Any:
  return tqdm.tqdm(
    desc=desc,
    unit=unit,
    unit_scale=True,
    total=total,
    dynamic_ncols=True,
    disable=None if progress else True,
  )
