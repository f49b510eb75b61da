"""A smaller vocabulary: only the pieces that a corpus uses.

In a multilingual model of base size two thirds of the weights are the
embedding table; text in a few languages uses a part of its rows.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.checkpoint.exporters.source import Source
from infoxlm_jax.checkpoint.importers.find_tokenizer import with_ids_of
from infoxlm_jax.data.corpora.open_files import read_lines
from infoxlm_jax.data.tokenizers.base import tokenizer_from_files
from infoxlm_jax.data.tokenizers.trim import trim, used_ids
from infoxlm_jax.errors import InputError
from infoxlm_jax.model.config import EncoderConfig

# Arrays with a row for every id.
_TABLES = (
  ("embed", "token"),
  ("heads", "masked_lm", "bias"),
  ("heads", "masked_lm", "decoder"),
)


@dataclasses.dataclass(frozen=True)
class Saved:
  """What trimming removed.

  Attributes:
    before, after: rows of the embedding table.
    bytes: of all arrays together, in float32.
  """

  before: int
  after: int
  bytes: int

  def __str__(self) -> str:
    return (
      f"vocabulary: {self.after:,} of {self.before:,} rows kept,"
      f" {self.bytes / 1e6:.1f} MB less in float32"
    )


def trim_vocabulary(
  source: Source, corpus: Sequence[Path], prefix: str = ""
) -> tuple[Source, Saved]:
  """The model with the pieces that a corpus uses, and the special ones.

  Text of the corpus gets the same vectors as before. Other text is cut into
  the pieces that are left, or becomes <unk>.

  Args:
    source: with a tokenizer.
    corpus: files of text, a line a text; the cells of .tsv files are texts
      of their own. .gz and .xz are unpacked.
    prefix: what encode puts before a text; each is read with and without it.

  Raises:
    InputError: no tokenizer, or a file that cannot be read.
  """
  if source.tokenizer is None:
    raise InputError(
      f"{source.path}: holds no tokenizer, and trimming needs one: give its"
      " file or folder"
    )
  used = used_ids(source.tokenizer, texts_of(corpus, prefix))
  files, kept = trim(source.tokenizer, used)
  tokenizer = tokenizer_from_files(files, f"{source.tokenizer.path}, trimmed")
  old = source.config
  config = dataclasses.replace(
    old, vocab_size=len(kept), num_ids=None, mask_id=None
  )
  config = with_ids_of(config, tokenizer, source.path)
  params = _with_rows(source.params, np.asarray(kept), config)
  saved = Saved(
    old.vocab_size,
    len(kept),
    4
    * (old.vocab_size - len(kept))
    * sum(_width(source.params, path) for path in _TABLES),
  )
  note = (
    f"The vocabulary was cut to the {len(kept):,} of {old.vocab_size:,} pieces"
    " that a corpus uses."
  )
  trimmed = dataclasses.replace(
    source,
    config=config,
    params=params,
    tokenizer=tokenizer,
    notes=(*source.notes, note),
    imported_from=None,  # its ids are others now
  )
  return trimmed, saved


def texts_of(corpus: Sequence[Path], prefix: str = "") -> Iterator[str]:
  """The texts of a corpus; see trim_vocabulary."""
  for text in itertools.chain.from_iterable(map(_texts, corpus)):
    yield text
    if prefix:
      yield prefix + text


def _texts(path: Path) -> Iterator[str]:
  cells = ".tsv" in path.suffixes
  for _, line in read_lines(path):
    if cells:
      yield from line.split("\t")
    else:
      yield line


def _with_rows(
  params: Mapping[str, Any], kept: np.ndarray, config: EncoderConfig
) -> dict[str, Any]:
  def replaced(tree: Any, at: tuple[str, ...]) -> Any:
    if isinstance(tree, Mapping):
      return {name: replaced(x, (*at, name)) for name, x in tree.items()}
    if at not in _TABLES:
      return tree
    rows = np.asarray(tree)[kept]
    extra = config.padded_vocab - len(rows)
    return np.pad(rows, [(0, extra)] + [(0, 0)] * (rows.ndim - 1))

  trimmed: dict[str, Any] = replaced(params, ())
  return trimmed


def _width(params: Mapping[str, Any], path: tuple[str, ...]) -> int:
  """Numbers of a row; 0 where there is no such array."""
  value: Any = params
  for name in path:
    if name not in value:
      return 0
    value = value[name]
  return int(np.prod(value.shape[1:], dtype=np.int64))
