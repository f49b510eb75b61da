"""Chooses what is held out of training: a phase between duplicates and records.

A sentence that is held out is in no record of training, whichever corpus,
language or side it stands in: corpora are often translations of one text, and
the other side of such a pair, or the same sentence in a third language, would
tell the model what it is tested on.

Of each pair of languages HELD_OUT pairs go to dev, and HELD_OUT_TEST of those
with English to test. Pairs are taken that share a sentence with those that
another pair of languages holds out, and then those with the smallest keys
(make_records.py), which are a random sample. So corpora of many languages give
the same sentences in all of them, and little else is lost. Texts come last:
those that pairs hold out go to dev, and blocks with the smallest keys until
there are enough. held_sentences.py describes the file that is written.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from infoxlm_jax.data.prepare.array_files import read_arrays, write_arrays
from infoxlm_jax.data.prepare.deduplicate import dropped_of
from infoxlm_jax.data.prepare.held_sentences import Held, write_held
from infoxlm_jax.data.prepare.layout import Examples, Layout
from infoxlm_jax.data.prepare.make_records import pair_keys
from infoxlm_jax.data.prepare.sentences import contains
from infoxlm_jax.data.prepare.text_blocks import make_blocks

# At most one record in so many is held out of a language or pair, for a part.
_SHARE = 20
# The language that evaluation/retrieval.py compares all others with.
PIVOT = "en"

Run = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterator[Any]]
Languages = tuple[str, ...]
_NONE = np.empty(0, np.uint64)


class Source(NamedTuple):
  """A chunk of training whose own examples may be held out.

  Attributes:
    path: its file.
    place: among the store's chunks.
  """

  path: Path
  place: int


class Candidates(NamedTuple):
  """Records that may be held out.

  Attributes:
    shares: whether the record shares a sentence with those held out before.
    keys: uint64 [records].
    places: chunk << 32 | example, or block, uint64 [records].
    sentences: hashes of the sentences in each record, uint64 arrays.
  """

  shares: np.ndarray
  keys: np.ndarray
  places: np.ndarray
  sentences: list[np.ndarray]

  def first(self, count: int) -> "Candidates":
    """The first `count`, see _first."""
    order = _first(self.shares, self.keys, self.places, count)
    arrays = (self.shares[order], self.keys[order], self.places[order])
    return Candidates(*arrays, [self.sentences[n] for n in order.tolist()])

  def with_more(self, more: "Candidates") -> "Candidates":
    """These candidates and others."""
    return Candidates(
      np.concatenate([self.shares, more.shares]),
      np.concatenate([self.keys, more.keys]),
      np.concatenate([self.places, more.places]),
      self.sentences + more.sentences,
    )


_NO_CANDIDATES = Candidates(np.empty(0, bool), _NONE, _NONE, [])


def write_hold_out(
  path: Path,
  sources: Sequence[Source],
  passes: Sequence[Path],
  layout: Layout,
  counts: Mapping[str, int],
  outside: np.ndarray,
  run: Run,
) -> None:
  """Chooses what is held out, and writes the file (held_sentences.py).

  Args:
    path: file to write; another beside it is written and removed.
    sources: chunks of training whose own examples may be held out.
    passes: files of find_duplicates.
    layout: of the records.
    counts: the most pairs of two languages that go to "dev" and "test", and
      the most blocks of a language that go to dev ("texts").
    outside: sentences that are held out already, uint64, in any order.
    run: runs a function on the tasks, see Pool.run.
  """
  by_group: dict[Languages, list[Source]] = {}
  totals: Counter[Languages] = Counter()
  if any(counts.values()):
    for source, own in run(_count, [(s, passes) for s in sources]):
      totals += own
      for group in own:
        by_group.setdefault(group, []).append(source)
  # The largest first: then the others find their sentences among its own.
  groups = sorted(totals, key=lambda group: (-totals[group], group))
  dev, test = _NO_CANDIDATES, _NO_CANDIDATES
  beside = path.with_suffix(".beside")
  for part in ("dev", "test"):
    for group in groups:
      count = min(counts[part], totals[group] // _SHARE)
      if not count or len(group) == 1 or (part == "test" and not _tests(group)):
        continue
      blocked, shared = [outside], dev
      if part == "test":
        blocked, shared = [outside, *dev.sentences], test
      write_arrays(
        beside,
        {},
        blocked=np.unique(np.concatenate(blocked)),
        shared=np.unique(np.concatenate([_NONE, *shared.sentences])),
      )
      best = _NO_CANDIDATES
      tasks = [
        (s, passes, layout, group, count, beside) for s in by_group[group]
      ]
      for more in run(_pair_candidates, tasks):
        best = best.with_more(more).first(count)
      if part == "dev":
        dev = dev.with_more(best)
      else:
        test = test.with_more(best)
  limits: dict[str, int] = {}
  pieces = [_NONE]
  arrays = {
    "dev": dev.places,
    "test": test.places,
    "sentences": np.concatenate([outside, *dev.sentences, *test.sentences]),
    "dev_sentences": np.concatenate([_NONE, *dev.sentences]),
  }
  write_held(beside, {}, **arrays, pieces=_NONE)
  for group in groups:
    if len(group) == 1 and counts["texts"]:
      best, blocks, own_blocks = _NO_CANDIDATES, 0, 0
      tasks = [
        (s, passes, layout, group, counts["texts"], beside)
        for s in by_group[group]
      ]
      for more, ordinary, own in run(_block_candidates, tasks):
        best = best.with_more(more).first(counts["texts"])
        blocks, own_blocks = blocks + ordinary + own, own_blocks + own
      count = min(counts["texts"], blocks // _SHARE) - own_blocks
      if count > 0:
        best = best.first(count)
        limits[group[0]] = int(best.keys[-1])
        pieces += best.sentences
  write_held(path, limits, **arrays, pieces=np.concatenate(pieces))
  beside.unlink()


def _tests(group: Languages) -> bool:
  """Whether retrieval is measured between these languages."""
  return PIVOT in group and len(set(group)) == 2


def _examples(
  source: Source, passes: Sequence[Path], group: Languages | None
) -> tuple[np.ndarray, Examples, list[Any], np.ndarray]:
  """Of a chunk, without duplicates and tokens.

  Args:
    source: the chunk.
    passes: files of find_duplicates.
    group: language(s) of the examples; None: all.

  Returns:
    Numbers of the examples, the examples, the chunk's groups, and the group of
    each example.
  """
  meta, arrays = read_arrays(source.path)
  lengths = arrays["lengths"].astype(np.int64)
  hashes = np.empty(len(lengths), np.uint64)
  hashes[arrays["order"]] = arrays["hashes"]
  stays = np.ones(len(lengths), bool)
  stays[dropped_of(passes, source.place)] = False
  if group is not None:
    stays &= arrays["group"] == meta["groups"].index(list(group))
  numbers = np.flatnonzero(stays)
  examples = Examples(
    lengths[numbers],
    np.zeros_like(lengths[numbers]),
    hashes[numbers],
    arrays["sentences"][numbers],
  )
  return numbers, examples, meta["groups"], arrays["group"][numbers]


def _count(
  source: Source, passes: Sequence[Path]
) -> tuple[Source, Counter[Languages]]:
  """Examples of each group in a chunk, without duplicates; in a worker."""
  _, _, names, group = _examples(source, passes, None)
  counts = np.bincount(group, minlength=len(names)).tolist()
  return source, Counter(
    {tuple(n): c for n, c in zip(names, counts, strict=True) if c}
  )


def _pair_candidates(
  source: Source,
  passes: Sequence[Path],
  layout: Layout,
  group: Languages,
  count: int,
  beside: Path,
) -> Candidates:
  """The first candidates among a chunk's pairs, in a worker.

  Args:
    source, passes, layout: see write_hold_out.
    group: the pairs' languages.
    count: of pairs.
    beside: a file with "blocked", sentences that no candidate may have, and
      "shared", those that are held out already.
  """
  numbers, pairs, _, _ = _examples(source, passes, group)
  assert pairs.sentences is not None
  _, arrays = read_arrays(beside)
  free = ~_any(contains(arrays["blocked"], pairs.sentences))
  shares = _any(contains(arrays["shared"], pairs.sentences))
  places = np.uint64(source.place << 32) | numbers.astype(np.uint64)
  keys = pair_keys(pairs.hashes, layout)
  able = np.flatnonzero(free)
  first = able[_first(shares[able], keys[able], places[able], count)]
  return Candidates(
    shares[first], keys[first], places[first], list(pairs.sentences[first])
  )


def _first(
  shares: np.ndarray, keys: np.ndarray, places: np.ndarray, count: int
) -> np.ndarray:
  """The first `count` of some candidates: those that share, then by key."""
  return np.lexsort((places, keys, ~shares))[:count]


def _any(sides: np.ndarray) -> np.ndarray:
  """Whether it holds for any side, bool [pairs]."""
  return np.asarray(sides.any(axis=1))


def _block_candidates(
  source: Source,
  passes: Sequence[Path],
  layout: Layout,
  group: Languages,
  count: int,
  beside: Path,
) -> tuple[Candidates, int, int]:
  """The first candidates among a chunk's blocks of text, in a worker.

  Args:
    source, passes, layout, group, count: see _pair_candidates.
    beside: a file of what pairs and other corpora hold out.

  Returns:
    Candidates; the number of blocks that nothing holds out yet; the number of
    those with texts that pairs hold out for dev.
  """
  _, texts, _, _ = _examples(source, passes, group)
  dev, ordinary = Held.read(beside, source.place).split(texts, gives=True)
  own = make_blocks(dev, layout)
  made = make_blocks(ordinary, layout)
  order = np.argsort(made.keys, kind="stable")[:count]
  bounds = np.searchsorted(made.block, np.stack([order, order + 1]))
  candidates = Candidates(
    np.zeros(len(order), bool),
    made.keys[order],
    np.uint64(source.place << 32) | order.astype(np.uint64),
    [made.pieces[a:b] for a, b in bounds.T.tolist()],
  )
  return candidates, len(made.keys), len(own.keys)
