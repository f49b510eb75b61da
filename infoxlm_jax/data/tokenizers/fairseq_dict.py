"""A SentencePiece model whose pieces fairseq has numbered: with a dict.txt.

fairseq looks every piece up in its dictionary:

    <s> 0, <pad> 1, </s> 2, <unk> 3, line 1 of dict.txt 4, ..., <mask> last

XLM-R's dict.txt has the pieces in the order of the SentencePiece model. The
one that `fairseq-preprocess` makes of a corpus has them by frequency, lacks
those that the corpus lacks, and holds characters that the model does not know.
Names and rules: fairseq/data/dictionary.py (MIT), and the `<mask>` that
tasks/multilingual_masked_lm.py adds.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from infoxlm_jax.data.tokenizers.file_names import (
  DICT,
  SENTENCEPIECE,
  check_vocabulary,
  checked_ids,
  lines_of,
  sha256_of,
)
from infoxlm_jax.data.tokenizers.sentencepiece_json import (
  as_json,
  inexpressible,
  refusal,
  xlmr_pieces,
)
from infoxlm_jax.data.tokenizers.xlmr import SentencePieceTokenizer
from infoxlm_jax.errors import InputError

_FIRST = ("<s>", "<pad>", "</s>", "<unk>")
# fairseq knows them by their numbers, the others by their names.
_BY_NUMBER = ("<pad>", "<unk>")
_OVERWRITE = " #fairseq:overwrite"
# Rows that fairseq adds so that their number is a multiple of 8.
_FILLER = "madeupword"


def names_of(content: bytes, where: str) -> list[str]:
  """The piece of each id; one that a later line replaces ends in NOTUSED.

  Args:
    content: of the dict.txt.
    where: the file, for messages.

  Raises:
    InputError: a line that is no piece with its count, or a piece twice.
  """
  lines = lines_of(content, where, "no dict.txt")
  names = list(_FIRST)
  ids = {name: i for i, name in enumerate(names)}
  for number, line in enumerate(lines, 1):
    if not (line := line.rstrip()):
      continue
    replaces = line.endswith(_OVERWRITE)
    piece, _, count = line.removesuffix(_OVERWRITE).rpartition(" ")
    if not piece or not count.lstrip("-").isdecimal():
      raise InputError(
        f"{where}, line {number}: {line[:80]!r} is no piece and its count: no"
        " dict.txt of fairseq, or a damaged one."
      )
    if piece in ids:
      if not replaces:
        raise InputError(
          f"{where}, line {number}: the piece {piece!r} is there twice."
        )
      if piece in _BY_NUMBER:
        names.append(f"{piece}NOTUSED")
        continue
      names[ids[piece]] = f"{piece}NOTUSED"
    ids[piece] = len(names)
    names.append(piece)
  if "<mask>" not in ids:
    names.append("<mask>")
  check_vocabulary(((name, i) for i, name in enumerate(names)), where)
  return names


class FairseqTokenizer:
  """A tokenizer (see base.py) of a SentencePiece model and a dict.txt.

  Attributes:
    model: the SentencePiece model, with XLM-R's ids.

  Raises:
    InputError: one of the two files is broken.
  """

  pad_id = 1
  unk_id = 3

  def __init__(self, files: Mapping[str, bytes], path: str):
    self.path = path
    self.files = dict(files)
    self.sha256 = sha256_of(files)
    self.model = SentencePieceTokenizer(files[SENTENCEPIECE], path)
    self._names = names_of(files[DICT], f"{path}, {DICT}")
    ids = {name: i for i, name in enumerate(self._names)}
    self.vocab_size = len(self._names)
    self.bos_id, self.eos_id = ids["<s>"], ids["</s>"]
    self.mask_id = ids["<mask>"]
    self.special_ids = frozenset(
      i
      for i, name in enumerate(self._names)
      if name.removesuffix("NOTUSED") in (*_FIRST, "<mask>")
    )
    known = self.model.pieces(range(self.model.vocab_size))
    ids = {n: i for n, i in ids.items() if i not in self.special_ids}
    self._from_xlmr = np.array(
      [ids.get(piece, self.unk_id) for piece in known], np.int32
    )
    self._lacking = [p for p in known[4:-1] if p not in ids]
    # Text that the model does not know, and fairseq does.
    strangers = ids.keys() - set(known)
    self._strangers = {n: ids[n] for n in strangers if _FILLER not in n}

  def __reduce__(self) -> tuple[Any, ...]:
    return type(self), (self.files, self.path)

  def encode(self, text: str) -> np.ndarray:
    """Ids of one text, int32 [length], without <s> and </s>."""
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Ids of each text, int32 [length], without <s> and </s>."""
    encoded = self.model.encode_batch(texts)
    return [
      self._fairseq_ids(text, ids)
      for text, ids in zip(texts, encoded, strict=True)
    ]

  def encode_with_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """The ids of `encode`, and the characters of each; see base.py."""
    ids, places = self.model.encode_with_offsets(text)
    return self._fairseq_ids(text, ids), places

  def decode(self, ids: Iterable[int]) -> str:
    """The text of ids; special ids are left out, <unk> is shown."""
    left_out = self.special_ids - {self.unk_id}
    kept = [i for i in self._checked(ids) if i not in left_out]
    pieces = [" ⁇ " if i == self.unk_id else self._names[i] for i in kept]
    return "".join(pieces).replace("▁", " ").removeprefix(" ")

  def pieces(self, ids: Iterable[int]) -> list[str]:
    """The piece of each id, special ones by their names."""
    return [self._names[i] for i in self._checked(ids)]

  def inexpressible(self) -> str | None:
    """Why no tokenizer.json gives the same ids; None: one does."""
    if self._lacking:
      return (
        f"{DICT} lacks {len(self._lacking)} pieces of the SentencePiece model"
        f" ({self._lacking[0]!r} first)"
      )
    if self._strangers:
      return (
        f"{DICT} holds {len(self._strangers)} pieces that the SentencePiece"
        f" model does not know ({min(self._strangers)!r} among them)"
      )
    return inexpressible(self.model)

  def _fairseq_ids(self, text: str, xlmr: np.ndarray) -> np.ndarray:
    ids = self._from_xlmr[xlmr]
    if self._strangers and (xlmr == self.model.unk_id).any():
      surfaces = self.model.surfaces(text)
      for i in np.flatnonzero(xlmr == self.model.unk_id):
        ids[i] = self._strangers.get(surfaces[i], self.unk_id)
    return ids

  def _checked(self, ids: Iterable[int]) -> list[int]:
    return checked_ids(ids, self.vocab_size, self.path)


def fairseq_json(tokenizer: FairseqTokenizer) -> bytes:
  """The tokenizer.json that gives the same ids.

  Raises:
    InputError: there is none, see FairseqTokenizer.inexpressible.
  """
  if problem := tokenizer.inexpressible():
    raise refusal(tokenizer.path, problem)
  scores = dict(xlmr_pieces(tokenizer.model))
  least = min(scores.values())  # of what is in no text
  names = tokenizer.pieces(range(tokenizer.vocab_size))
  return as_json(tokenizer.model, [(n, scores.get(n, least)) for n in names])
