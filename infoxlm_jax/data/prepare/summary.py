"""Tables of the sentences that prepare read, dropped and kept."""

from collections.abc import Mapping, Sequence

from infoxlm_jax.data.manifest import Manifest

_COLUMNS = ("corpus", "language", "read", "kept", "tokens", "dropped", "cut")


def markdown(manifests: Mapping[str, Manifest]) -> str:
  """The content of report.md: tables of the corpora and of the records."""
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
  out.append(
    "Numbers of sentences; a pair has two. Tokens are those of the records. "
    "`filled` is the share of row_length that a block of text has."
  )
  return "\n".join(out) + "\n"


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
