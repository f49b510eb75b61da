"""Sentence pairs a second on real text, packed and padded; see bench_step.py.

An update has as many pairs in TLM as in XlCo. Packed: rows of --row_length
tokens that several pairs share. Padded: the same pairs one a row, as long.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench_common import Batch, Bench, Preset
from infoxlm_jax.data import loader, row_budget
from infoxlm_jax.data.corpora.sources import Tsv
from infoxlm_jax.data.prepare.pipeline import prepare
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.streams import ContrastStream, PairStream
from infoxlm_jax.runtime import resources

_SPECIAL = 4  # <s> <pad> </s> <unk>; <mask> is the last id


def measure(preset: Preset, options: argparse.Namespace) -> Batch:
  """Pairs a second of both forms, and how full their rows are."""
  tokenizer = options.tokenizer or resources.find("tasks/data/verses.spm.model")
  found: Batch = {"batch": options.batch, "row_length": options.row_length}
  total = options.warm + options.steps
  with tempfile.TemporaryDirectory() as folder:
    prepare(
      folder,
      tokenizer=tokenizer,
      row_length=options.row_length,
      corpora=[Tsv(options.pairs)],
      progress=False,
    )
    store = Store(Path(folder) / "train")
    for form in ("packed", "padded"):
      streams = _streams(options, store, padded=form == "padded")
      made = list(_batches(streams, store, preset.vocab, total))
      bench = Bench(preset, made[0][0], options.batch, options)
      batches = (batch for batch, _ in made)
      taken = bench.seconds(batches, options.warm, options.steps)
      counts = [c for _, stats in made for c in stats.values()]
      fill = sum(c["tokens"] for c in counts) / sum(c["slots"] for c in counts)
      rate = 2 * options.batch / statistics.median(taken)
      found[form] = {
        "pairs_per_second": round(rate, 2),
        "seconds_per_step": round(statistics.median(taken), 5),
        "fill": round(fill, 4),
        "rows": {name: stream.rows for name, stream in streams.items()},
      }
      if form == "packed" and options.keep_batches:
        _keep([batch for batch, _ in made], options.keep_batches, preset.vocab)
  return found | {"pairs_per_second": found["packed"]["pairs_per_second"]}


def _streams(
  options: argparse.Namespace, store: Store, padded: bool
) -> dict[str, Any]:
  shape: Any = {
    "batch": options.batch,
    "row_length": options.row_length,
    "rows": options.batch if padded else None,
    "padded": padded,
  }
  streams: dict[str, Any] = {
    "tlm": PairStream(**shape),
    "xlco": ContrastStream(**shape, mixup="none"),
  }
  return {
    name: row_budget.with_rows(s, store, 1) for name, s in streams.items()
  }


def _batches(
  streams: Mapping[str, Any], store: Store, vocab: int, steps: int
) -> Iterator[tuple[Batch, Mapping[str, Mapping[str, int]]]]:
  """Batches with ids folded into the preset's vocabulary: lengths stay."""

  def fold(ids: np.ndarray) -> np.ndarray:
    inside = _SPECIAL + ids % (vocab - 1 - _SPECIAL)
    return np.where(ids < _SPECIAL, ids, inside).astype(np.int32)

  def folded(arrays: Any) -> Any:
    return {
      name: folded(x)
      if isinstance(x, Mapping)
      else fold(x)
      if name == "tokens"
      else x
      for name, x in arrays.items()
    }

  drawn = loader.batches(
    streams,
    store,
    seed=1,
    positions=dict.fromkeys(streams, 0),
    groups=1,
    local_groups=range(1),
    steps=steps,
  )
  for arrays, counts in drawn:
    yield folded(arrays), counts


def _keep(batches: list[Batch], file: str, vocab: int) -> None:
  """The same sentences for another program, each batch padded to its longest.

  Named "NUMBER/tlm_ids", "NUMBER/tlm_labels" (1 where there is no target),
  "NUMBER/src_ids", "NUMBER/tgt_ids"; 15 % of TLM's tokens are targets.
  """
  random = np.random.default_rng(0)
  kept = {}
  for number, batch in enumerate(batches):
    tlm = _padded(_items(batch["tlm"]))
    target = (random.random(tlm.shape) < 0.15) & (tlm >= _SPECIAL)
    labels = np.where(target, tlm, 1)
    kept[f"{number}/tlm_ids"] = np.where(target, vocab - 1, tlm)
    kept[f"{number}/tlm_labels"] = labels
    for name, side in (("src_ids", "query"), ("tgt_ids", "key")):
      kept[f"{number}/{name}"] = _padded(_items(batch["xlco"][side]))
  np.savez(file, **kept)  # type: ignore[arg-type]


def _items(rows: Batch) -> list[np.ndarray]:
  """The items of one group, in their order."""
  tokens, segments = rows["tokens"][0], rows["segments"][0]
  return [tokens[segments == n] for n in range(1, segments.max() + 1)]


def _padded(items: list[np.ndarray]) -> np.ndarray:
  width = max(len(item) for item in items)
  out = np.full((len(items), width), 1, np.int64)
  for row, item in zip(out, items, strict=True):
    row[: len(item)] = item
  return out
