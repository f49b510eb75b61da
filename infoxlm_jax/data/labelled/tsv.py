"""Labelled texts in tab-separated files."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from infoxlm_jax.data.corpora.open_files import read_lines
from infoxlm_jax.errors import InputError


class Texts(NamedTuple):
  """Labelled texts, or pairs of texts, of one language.

  Attributes:
    where: the file, for messages.
    labels: of each.
    first: the texts.
    second: the other text of each pair; None where there are no pairs.
  """

  where: str
  labels: list[str]
  first: list[str]
  second: list[str] | None


def read(path: Path, columns: Sequence[int] | None = None) -> Texts:
  """Reads `label<TAB>text` or `label<TAB>text<TAB>text2`, without a header.

  Args:
    path: of the file; it may be compressed.
    columns: numbers of the cells that hold label, text and perhaps a second
      text, counted from 0. None: the cells in their order.

  Raises:
    InputError: a row has other cells than the first one, or an empty one.
  """
  labels: list[str] = []
  texts: list[list[str]] = []
  width = 0
  for number, line in read_lines(path):
    cells = line.split("\t")
    width = width or len(cells)
    if len(cells) != width or width < 2 or (columns is None and width > 3):
      raise InputError(
        f"{path}, line {number}: {len(cells)} tab-separated cells, where"
        f" {width if number > 1 else '2 or 3'} are expected: label, text and,"
        " in a task of pairs, a second text."
      )
    if columns is not None and width <= max(columns):
      raise InputError(
        f"{path}, line {number}: {width} tab-separated cells, where"
        f" {max(columns) + 1} are expected, label among them. XTREME's script"
        " writes test sets without labels: give the files of the task's authors"
      )
    chosen = cells if columns is None else [cells[n] for n in columns]
    if empty := [n for n, cell in enumerate(chosen) if not cell.strip()]:
      kind = ("label", "text", "second text")[empty[0]]
      raise InputError(f"{path}, line {number}: the {kind} is empty.")
    labels.append(chosen[0].strip())
    texts.append(chosen[1:])
  if not texts:
    raise InputError(f"{path} has no rows.")
  firsts, *seconds = zip(*texts, strict=True)
  return Texts(
    str(path), labels, list(firsts), list(seconds[0]) if seconds else None
  )
