"""Tab-separated files, without quoting: a cell is the text between two tabs."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from infoxlm_jax.data.corpora.file_names import pair_of, stem
from infoxlm_jax.data.corpora.open_files import read_lines
from infoxlm_jax.data.languages import is_language
from infoxlm_jax.errors import InputError

Pair = tuple[str, str]


def read_table(
  path: str | os.PathLike[str], leading: Sequence[str] = ()
) -> Iterator[tuple[list[str], list[str]]]:
  """Yields (header, cells) of each row of a TSV with a header.

  Args:
    path: the file, plain or compressed.
    leading: names of the first columns; the names of all others are language
      codes.

  Raises:
    InputError: see `read_lines`; a first line that is no header, a row with
      another number of cells than the header, or no row.
  """
  header: list[str] | None = None
  rows = 0
  for number, line in read_lines(path):
    cells = line.split("\t")
    if header is None:
      header = _checked_header(path, cells, leading)
      continue
    if len(cells) != len(header):
      raise _wrong_cells(path, number, cells, header)
    rows += 1
    yield header, cells
  if not rows:
    raise InputError(f"{path} has a header and no rows.")


def read_pairs(
  path: Path,
  columns: Sequence[str] | Sequence[int] | None,
  languages: Sequence[str] | None,
) -> Iterator[tuple[Pair, str, str]]:
  """Yields (languages, text, text) of each row of a TSV.

  Args:
    path: the file, plain or compressed.
    columns: names of two columns, which are in the first line; or their
      numbers from 1, for a file without a header. None: the file has two
      columns, and a first line that holds only the languages is a header.
    languages: of the two columns; None takes the columns' names where they
      are languages, else those in the file's name, `en-fr.tsv.xz`.

  Raises:
    InputError: see `read_lines`; a missing column, a row with another number
      of cells than the first, no language, or no row.
  """
  pair: Pair | None = None
  first: list[str] = []
  rows = 0
  for number, line in read_lines(path):
    cells = line.split("\t")
    if pair is None:
      first = cells
      a, b = _places(path, cells, columns)
      header = columns is not None and isinstance(columns[0], str)
      if not header and _is_header(path, cells, columns, languages):
        header, languages = True, languages or cells
      pair = _languages(path, columns, languages)
      if header:
        continue
    if len(cells) != len(first):
      raise _wrong_cells(path, number, cells, first)
    rows += 1
    yield pair, cells[a], cells[b]
  if not rows:
    raise InputError(f"{path} has a header and no rows.")


def _places(
  path: Path,
  first: list[str],
  columns: Sequence[str] | Sequence[int] | None,
) -> tuple[int, int]:
  """Indices of the cells that hold the two texts."""
  if columns is None:
    if len(first) != 2:
      if first[0].startswith("{"):
        raise InputError(
          f"{path}, line 1: JSON lines, by the look of it, not tab-separated"
          f" text: rename it, for example to {stem(path)}.jsonl."
        )
      raise InputError(
        f"{path}, line 1: {len(first)} tab-separated cells where two are"
        " expected. Set columns (--gin.COLUMNS=...) to the two that hold text:"
        " by their names in the first line, \"('en', 'fr')\", or by their"
        ' numbers, "(1, 2)".'
      )
    return 0, 1
  places = []
  for column in columns:
    if isinstance(column, str):
      if column not in first:
        raise InputError(
          f"{path}, line 1: no column {column!r} among"
          f" {_shown(first)}. Set columns to the names of two of them, or to"
          " their numbers where the file has no header."
        )
      places.append(first.index(column))
    elif not 1 <= column <= len(first):
      raise InputError(
        f"{path}, line 1: {len(first)} tab-separated cells, no column"
        f" {column}: columns count from 1."
      )
    else:
      places.append(column - 1)
  return places[0], places[1]


def _is_header(
  path: Path,
  first: list[str],
  columns: Sequence[str] | Sequence[int] | None,
  languages: Sequence[str] | None,
) -> bool:
  """Whether the two cells of a first line are languages, not texts."""
  if columns is not None:
    return False
  known = languages or pair_of(stem(path))
  if known:
    return set(first) == set(known)
  return all(is_language(cell) for cell in first)


def _languages(
  path: Path,
  columns: Sequence[str] | Sequence[int] | None,
  languages: Sequence[str] | None,
) -> Pair:
  if languages:
    return languages[0], languages[1]
  names = [str(column) for column in columns or ()]
  if names and all(is_language(name) for name in names):
    return names[0], names[1]
  if pair := pair_of(stem(path)):
    return pair
  raise InputError(
    f"{path}: which languages? Its name has no pair such as en-fr; rename it,"
    f" for example to {stem(path)}.en-fr.tsv, or set languages"
    " (--gin.LANGUAGES=\"('en', 'fr')\")."
  )


def _wrong_cells(
  path: str | os.PathLike[str], number: int, cells: list[str], first: list[str]
) -> InputError:
  return InputError(
    f"{path}, line {number}: {len(cells)} tab-separated cells, but the first"
    f" line has {len(first)} ({_shown(first)}). Each row needs a cell for each"
    " column, an empty one where a text is missing."
  )


def _shown(cells: Sequence[str]) -> str:
  text = " | ".join(cells)
  return text if len(text) <= 60 else text[:60] + "..."


def _checked_header(
  path: str | os.PathLike[str], cells: list[str], leading: Sequence[str]
) -> list[str]:
  expected = " ".join([*leading, "en", "de", "..."])
  languages = cells[len(leading) :]
  bad = [name for name in languages if not is_language(name)]
  if cells[: len(leading)] != list(leading) or bad or not languages:
    line = " ".join(cells)
    raise InputError(
      f"{path}, line 1: not a header of column names such as '{expected}': "
      f"found {line[:60]!r}."
    )
  if len(set(cells)) < len(cells):
    raise InputError(f"{path}, line 1: two columns have one name: {cells}.")
  return cells
