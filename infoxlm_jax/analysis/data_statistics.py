"""Statistics of prepared data by language and pair, and how it is sampled."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from infoxlm_jax.data.records import Store
from infoxlm_jax.data.streams import PairStream, TextStream
from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.report.figures import BLUE, ORANGE, canvas

TABLE, PICTURE = "statistics.txt", "languages.png"
_BAR = 40
_HEADER = (
  "corpus",
  "records",
  "sentences",
  "tokens",
  "share %",
  "drawn %",
  "repeats",
  "dropped",
  "truncated",
)


class Corpus(NamedTuple):
  """A language or pair, as a stream draws it.

  Attributes:
    name: en, or en-fr.
    records, sentences, tokens: of the manifest.
    share: its part of the mixture by n (tokens of a text, pairs).
    drawn: its part of the samples, by n^alpha within max_repeats.
    repeats: how often it is gone through while as many samples are drawn as
      the mixture has records.
    dropped, truncated: sentences by reason.
  """

  name: str
  records: int
  sentences: int
  tokens: int
  share: float
  drawn: float
  repeats: float
  dropped: Mapping[str, int]
  truncated: Mapping[str, int]


def streams_for(store: Store) -> dict[str, Any]:
  """Streams with default options, of what a folder holds."""
  streams: dict[str, Any] = {}
  if store.text_counts:
    streams["texts"] = TextStream(batch=1, row_length=store.manifest.row_length)
  if store.pair_counts:
    streams["pairs"] = PairStream(batch=1, row_length=store.manifest.row_length)
  return streams


def corpora(stream: Any, store: Store) -> list[Corpus]:
  """The languages or pairs that a stream draws from, in its order."""
  mixture = stream.mixture(store, 0)
  by_name = {corpus.languages: corpus for corpus in store.manifest.corpora}
  total = sum(mixture.weights)
  return [
    Corpus(
      corpus.name,
      corpus.records,
      corpus.sentences,
      corpus.tokens,
      weight / total,
      float(drawn),
      float(repeats),
      corpus.dropped,
      corpus.truncated,
    )
    for corpus, weight, drawn, repeats in zip(
      (by_name[languages] for languages in mixture.corpora),
      mixture.weights,
      mixture.sampler.shares,
      mixture.sampler.repeats,
      strict=True,
    )
  ]


def lines(name: str, stream: Any, corpora: Sequence[Corpus]) -> Iterator[str]:
  """A table with a line a corpus, and bars below it."""
  limit = stream.max_repeats
  yield (
    f"{name}: {type(stream).__name__}, alpha = {stream.alpha:g}, max_repeats ="
    f" {'none' if limit is None else f'{limit:g}'}"
  )
  table = [_HEADER, *(_cells(corpus) for corpus in corpora), _total(corpora)]
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  for cells in table:
    line = "  ".join(
      cell.ljust(width) if place in (0, 7, 8) else cell.rjust(width)
      for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    yield f"  {line}".rstrip()
  yield ""
  yield "  # share of the data, = share of what is drawn"
  most = max(max(c.share, c.drawn) for c in corpora)
  for corpus in corpora:
    for label, sign, part in (
      (corpus.name, "#", corpus.share),
      ("", "=", corpus.drawn),
    ):
      bar = sign * max(1, round(_BAR * part / most))
      yield f"  {label.ljust(widths[0])} {bar} {100 * part:.2f} %"


def plot(path: Path, parts: Mapping[str, Sequence[Corpus]]) -> Path:
  """Bars of the share of the data and of what is drawn, a panel a stream."""
  longest = max(len(corpora) for corpora in parts.values())
  height = 1.2 + 0.3 * longest
  title = "Share of the data, and of what is drawn"
  with canvas(path, title, 5.0 * len(parts), height) as figure:
    axes = figure.subplots(1, len(parts), squeeze=False)[0]
    for ax, (name, corpora) in zip(axes, parts.items(), strict=True):
      places = range(len(corpora))
      for offset, color, label, values in (
        (-0.2, BLUE, "of the data", [100 * c.share for c in corpora]),
        (0.2, ORANGE, "drawn (n^alpha)", [100 * c.drawn for c in corpora]),
      ):
        ax.barh(
          [p + offset for p in places], values, 0.4, color=color, label=label
        )
      ax.set_yticks(places, [corpus.name for corpus in corpora])
      ax.invert_yaxis()
      ax.grid(axis="y", visible=False)
      ax.set_xlabel("per cent")
      ax.set_title(name)
      ax.margins(y=0.01)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
  return path


def write(
  folder: Path, text: str, parts: Mapping[str, Sequence[Corpus]]
) -> list[Path]:
  """Writes the table and the picture into a folder that has neither.

  Raises:
    InputError: one is there already; nothing is written.
    StorageError: writing failed.
  """
  from infoxlm_jax.runtime.files import write_atomically

  for name in (TABLE, PICTURE):
    if (folder / name).exists():
      raise InputError(
        f"{folder / name} exists and is not overwritten: give another --output"
      )
  picture = plot(folder / PICTURE, parts)
  write_atomically(folder / TABLE, text)
  return [folder / TABLE, picture]


def _cells(corpus: Corpus) -> tuple[str, ...]:
  return (
    corpus.name,
    f"{corpus.records:,}",
    f"{corpus.sentences:,}",
    f"{corpus.tokens:,}",
    f"{100 * corpus.share:.2f}",
    f"{100 * corpus.drawn:.2f}",
    f"{corpus.repeats:.2f}",
    _reasons(corpus.dropped),
    _reasons(corpus.truncated),
  )


def _total(corpora: Sequence[Corpus]) -> tuple[str, ...]:
  return (
    "all",
    f"{sum(c.records for c in corpora):,}",
    f"{sum(c.sentences for c in corpora):,}",
    f"{sum(c.tokens for c in corpora):,}",
    "100.00",
    "100.00",
    "1.00",
    f"{sum(sum(c.dropped.values()) for c in corpora):,}",
    f"{sum(sum(c.truncated.values()) for c in corpora):,}",
  )


def _reasons(counts: Mapping[str, int]) -> str:
  parts = [f"{reason} {n:,}" for reason, n in counts.items() if n]
  return ", ".join(parts) or "0"
