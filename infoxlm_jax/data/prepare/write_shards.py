"""Writes the shards and the manifest of a store: the last phase of prepare.

Records are in the order of their keys, which are hashes (make_records.py).
Training does not read them in this order: data/sampler.py draws another one in
every epoch. The order of keys lets prepare work in parallel and in little
memory: a shard is a range of keys, whatever chunk its records come from, so
the same input gives the same bytes with any number of processes. It also makes
the records with the smallest keys a random sample, which is held out for dev,
and a reader who starts at the first record of a shard finds the input files
mixed.
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infoxlm_jax.data.manifest import (
  MANIFEST,
  Corpus,
  Counts,
  Manifest,
  Shard,
  versions,
)
from infoxlm_jax.data.prepare.plan import File, Plan, read_json
from infoxlm_jax.data.prepare.process_pool import Pool, Task
from infoxlm_jax.data.prepare.shuffle import Source, make_shard
from infoxlm_jax.runtime.progress import Progress


def write_store(
  plan: Plan,
  store: str,
  made: Mapping[str, Sequence[File]],
  pool: Pool,
  progress: bool,
) -> Manifest | None:
  """Phase 4: the shards and the manifest; None if the store would be empty.

  Args:
    plan: the work of prepare.
    store: to write.
    made: files of records of each store, from phase 3.
    pool: runs make_shard.
    progress: whether progress is shown.
  """
  files = made[store]
  groups = {tuple(g["languages"]) for file in files for g in file.groups}
  if store != "train":
    groups |= {
      tuple(g["languages"])
      for file in made.get("train", ())
      for g in file.groups
      if g["part"] == store
    }
  if not groups:
    return None
  entries = plan.folder / store / "shards"
  entries.mkdir(parents=True, exist_ok=True)
  names: dict[tuple[str, ...], list[str]] = {}
  todo: list[Task] = []
  for languages in sorted(groups):
    sources = _sources(store, languages, made)
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
  with Progress(
    len(missing), name=f"{store} 4/4 shards", phase=True, enabled=progress
  ) as phase:
    for done, tokens in enumerate(pool.run(make_shard, missing), 1):
      phase.update(done, tokens=tokens)
  manifest = _manifest(plan, store, files, names, entries)
  folder = plan.output / store
  folder.mkdir()
  for corpus in manifest.corpora:
    for shard in corpus.shards:
      (folder / shard.name).parent.mkdir(exist_ok=True)
      _link(plan.folder / store / "finished" / shard.name, folder / shard.name)
  (folder / MANIFEST).write_text(manifest.to_json(), "utf-8")
  return manifest


def _link(source: Path, target: Path) -> None:
  """The same file under another name; a copy where links are not to be had."""
  try:
    target.hardlink_to(source)
  except OSError:
    shutil.copyfile(source, target)


def _sources(
  store: str,
  languages: tuple[str, ...],
  made: Mapping[str, Sequence[File]],
) -> list[Source]:
  """A store's own records, and those that training holds out for it."""
  parts = [(file, "") for file in made[store]]
  if store != "train":
    parts += [(file, store) for file in made.get("train", ())]
  return [
    Source(file.path, part)
    for file, part in parts
    if any(
      (tuple(g["languages"]), g["part"]) == (languages, part)
      for g in file.groups
    )
  ]


def _manifest(
  plan: Plan,
  store: str,
  files: Sequence[File],
  names: Mapping[tuple[str, ...], Sequence[str]],
  entries: Path,
) -> Manifest:
  counts = _counts(files)
  corpora = []
  for languages, shards in names.items():
    results = [
      read_json(entries / (name.replace("/", "-") + ".json")) for name in shards
    ]
    own = [c for c in counts if c.languages == languages]
    kept = [result["shard"] for result in results if result["shard"]]
    corpora.append(
      Corpus(
        languages=languages,
        records=sum(shard["records"] for shard in kept),
        sentences=sum(result["sentences"] for result in results),
        tokens=sum(result["tokens"] for result in results),
        dropped=dict(sum((Counter(c.dropped) for c in own), Counter())),
        truncated=dict(sum((Counter(c.truncated) for c in own), Counter())),
        shards=tuple(Shard(**shard) for shard in kept),
      )
    )
  model = plan.tokenizer
  return Manifest(
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
    versions=versions(),
  )


def _counts(files: Sequence[File]) -> list[Counts]:
  """Sums over chunks, by corpus and language(s), in the order of reading."""
  by_corpus: dict[tuple[str, str, tuple[str, ...]], list[dict[str, Any]]] = {}
  for file in files:
    for group in file.groups:
      key = (file.part.corpus.name, file.part.split, tuple(group["languages"]))
      if group["counts"] is not None:
        by_corpus.setdefault(key, []).append(group["counts"])
  out = []
  for (corpus, split, languages), groups in by_corpus.items():

    def total(name: str, groups: list[dict[str, Any]] = groups) -> int:
      return sum(counts[name] for counts in groups)

    def by_reason(
      name: str, groups: list[dict[str, Any]] = groups
    ) -> dict[str, int]:
      return dict(sum((Counter(c[name]) for c in groups), Counter()))

    out.append(
      Counts(
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
