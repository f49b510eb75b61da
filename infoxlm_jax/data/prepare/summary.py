"""Tables of the sentences that prepare read, dropped and kept."""

from collections import Counter
from collections.abc import Mapping, Sequence

from infoxlm_jax.data.dropped import MUCH, in_words, share
from infoxlm_jax.data.manifest import Manifest
from infoxlm_jax.data.prepare.plan import File

REPORT = "report.md"

_WARNINGS = 10
_COLUMNS = ("corpus", "language", "read", "kept", "tokens", "dropped", "cut")


def markdown(
  manifests: Mapping[str, Manifest], unused: Sequence[str] = ()
) -> str:
  """The content of report.md: tables of the corpora and of the records.

  Args:
    manifests: of the stores.
    unused: lines on files that were found and not read.
  """
  out = ["# Prepared data", ""]
  for store, manifest in manifests.items():
    out += [f"## {store}", ""]
    if manifest.counts:  # a store of held-out records has none
      out += [*_table(_COLUMNS, _read_rows(manifest)), ""]
    rows = [
      (
        corpus.name,
        f"{corpus.records:,}",
        f"{corpus.tokens:,}",
        f"{len(corpus.shards):,}",
        _fill(manifest, len(corpus.languages), corpus.records, corpus.tokens),
      )
      for corpus in manifest.corpora
    ]
    columns = ("records of", "records", "tokens", "shards", "filled")
    out += [*_table(columns, rows), ""]
  if unused:
    out += ["## Not used", "", *(f"- {line}" for line in unused), ""]
  out.append(
    "Numbers of sentences; a pair has two. Tokens are those of the records. "
    "`filled` is the share of row_length that a block of text has."
  )
  return "\n".join(out) + "\n"


def in_lines(manifests: Mapping[str, Manifest]) -> list[str]:
  """What was kept and dropped, a line for each store, and warnings.

  There is a warning for each corpus and language of which much was dropped,
  for at most _WARNINGS of them, the worst first.
  """
  lines = []
  worst = []
  for store, manifest in manifests.items():
    if not manifest.counts:
      records = sum(corpus.records for corpus in manifest.corpora)
      lines.append(f"{store}: {records:,} records are held out of train")
      continue
    read = sum(counts.read for counts in manifest.counts)
    dropped: Counter[str] = Counter()
    for counts in manifest.counts:
      dropped.update(counts.dropped)
      if share(counts) > MUCH:
        worst.append((share(counts), counts))
    lost = sum(dropped.values())
    why = f"; dropped {lost:,}: {_reasons(dropped)}" if lost else ""
    lines.append(f"{store}: kept {read - lost:,} of {read:,} sentences{why}")
  worst.sort(key=lambda item: -item[0])
  for _, counts in worst[:_WARNINGS]:
    lines.append(f"WARNING: {counts.corpus}, {in_words(counts)}")
  if more := worst[_WARNINGS:]:
    lines.append(
      f"WARNING: so it is for {len(more)} more, see {REPORT}: each lost over"
      f" {100 * MUCH:.0f} % of its sentences"
    )
  return lines


def why_none(files: Sequence[File]) -> str:
  """Why files of records have none: what was dropped, by reason."""
  dropped: Counter[str] = Counter()
  for file in files:
    for group in file.groups:
      dropped.update((group["counts"] or {}).get("dropped", {}))
  return f": all were dropped ({_reasons(dropped)})" if dropped else ""


def _read_rows(manifest: Manifest) -> list[tuple[str, ...]]:
  rows: list[tuple[str, ...]] = []
  for counts in manifest.counts:
    cut = dict(counts.truncated)
    if counts.split:
      cut["split"] = counts.split
    rows.append(
      (
        counts.corpus,
        "-".join(counts.languages),
        f"{counts.read:,}",
        f"{counts.sentences:,}",
        f"{counts.tokens:,}",
        _reasons(counts.dropped),
        _reasons(cut),
      )
    )
  return rows


def _reasons(counts: Mapping[str, int]) -> str:
  return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _fill(manifest: Manifest, languages: int, records: int, tokens: int) -> str:
  if languages > 1 or not records:
    return ""
  return f"{100 * tokens / (records * manifest.row_length):.1f} %"


def _table(
  columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> list[str]:
  widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]

  def line(cells: tuple[str, ...]) -> str:
    padded = [
      cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
      for cell, width in zip(cells, widths, strict=True)
    ]
    return f"| {' | '.join(padded)} |"

  rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
  return [line(columns), rule, *map(line, rows)]
