"""Trims a vocabulary to the pieces that a corpus uses.

Besides the given ids, `trim` keeps the pieces that make the smaller tokenizer
cut the corpus into the same pieces:

  unigram    The best path remains the best, as long as an unknown piece costs
             the same. The worst score decides that, so its piece is kept.
             Characters of kept pieces are kept for other text in the letters.
  BPE        All pieces from which a kept piece may be merged are kept, with
             their merges.
  WordPiece  The longest match remains the longest. A word that is unknown must
             remain so: `used_ids` counts the pieces that were matched before
             no piece matched.
  XLM        All merges are kept; only ids go.
"""

import json
from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np

from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.data.tokenizers.fairseq_dict import (
  FairseqTokenizer,
  fairseq_json,
)
from infoxlm_jax.data.tokenizers.file_names import (
  CONFIG,
  JSON,
  SENTENCEPIECE,
  VOCAB_JSON,
  VOCAB_TXT,
  checked_ids,
)
from infoxlm_jax.data.tokenizers.huggingface import JsonTokenizer
from infoxlm_jax.data.tokenizers.trim_json import trim_json
from infoxlm_jax.data.tokenizers.xlm import XlmTokenizer
from infoxlm_jax.data.tokenizers.xlmr import (
  BPE,
  BYTE,
  NORMAL,
  USER_DEFINED,
  SentencePieceTokenizer,
  read_proto,
)

_BATCH = 1024


class Trimmed(NamedTuple):
  """The files of a smaller tokenizer, and the old ids of its ids.

  Attributes:
    files: by name, for `tokenizer_from_files` and `save_tokenizer`.
    kept: int64 [new vocabulary], the old id of each new id, ascending. A
      trimmed embedding table is `table[kept]`.
  """

  files: dict[str, bytes]
  kept: np.ndarray


def used_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> np.ndarray:
  """The ids that `trim` must keep for these texts, ascending, int64."""
  used = np.zeros(tokenizer.vocab_size, bool)
  batch: list[str] = []

  def count() -> None:
    for text, ids in zip(batch, tokenizer.encode_batch(batch), strict=True):
      used[ids] = True
      if isinstance(tokenizer, JsonTokenizer) and tokenizer.unk_id in ids:
        used[tokenizer.given_up(text)] = True
    batch.clear()

  for text in texts:
    batch.append(text)
    if len(batch) == _BATCH:
      count()
  count()
  return np.flatnonzero(used)


def trim(tokenizer: Tokenizer, keep_ids: Iterable[int]) -> Trimmed:
  """Removes pieces from a tokenizer; special tokens and the order are kept.

  Args:
    tokenizer: of any of our kinds.
    keep_ids: ids to keep, in any order; `used_ids` computes those of a corpus.

  Raises:
    InputError: an id that is not in the vocabulary; or a dict.txt that no
      tokenizer.json expresses.
  """
  keep = set(checked_ids(keep_ids, tokenizer.vocab_size, tokenizer.path))
  keep |= tokenizer.special_ids
  if isinstance(tokenizer, SentencePieceTokenizer):
    return _trim_sentencepiece(tokenizer, keep)
  if isinstance(tokenizer, FairseqTokenizer):
    content, kept = trim_json(fairseq_json(tokenizer), "Unigram", keep)
    return Trimmed({JSON: content}, kept)
  if isinstance(tokenizer, XlmTokenizer):
    return _trim_xlm(tokenizer, keep)
  assert isinstance(tokenizer, JsonTokenizer), type(tokenizer)
  if JSON in tokenizer.files:
    content, kept = trim_json(tokenizer.files[JSON], tokenizer.kind, keep)
    return Trimmed({JSON: content}, kept)
  return _trim_vocab_txt(tokenizer, keep)


def _as_kept(ids: Iterable[int]) -> np.ndarray:
  return np.array(sorted(ids), np.int64)


def _trim_sentencepiece(
  tokenizer: SentencePieceTokenizer, keep: set[int]
) -> Trimmed:
  proto = read_proto(tokenizer)
  ids = {piece.piece: i for i, piece in enumerate(proto.pieces, 1) if i > 3}
  wanted = [
    proto.pieces[i - 1].piece
    for i in keep
    if i - 1 in range(3, len(proto.pieces))
  ]
  # Bytes encode any character, and user-defined pieces were asked for.
  wanted += [p.piece for p in proto.pieces if p.type in (BYTE, USER_DEFINED)]
  if proto.trainer_spec.model_type == BPE:
    wanted += _parts_of_any_split(wanted, ids)
  scores = {p.piece: p.score for p in proto.pieces if p.type == NORMAL}
  if scores:
    # They decide the cost of an unknown and of a user-defined piece.
    wanted += [min(scores, key=scores.__getitem__)]
    wanted += [max(scores, key=scores.__getitem__)]
  wanted += [c for piece in wanted for c in piece if c in ids]
  keep |= {ids[piece] for piece in wanted}
  kept = _as_kept(keep)
  pieces = [proto.pieces[i] for i in range(3)]
  pieces += [proto.pieces[i - 1] for i in kept[4:-1].tolist()]
  copies = [
    type(piece).FromString(piece.SerializeToString()) for piece in pieces
  ]
  del proto.pieces[:]
  proto.pieces.extend(copies)
  proto.trainer_spec.vocab_size = len(copies)
  # Older files have samples to test themselves, which would now fail; newer
  # releases of the format do not have the field.
  proto.DiscardUnknownFields()
  if "self_test_data" in proto.DESCRIPTOR.fields_by_name:
    proto.ClearField("self_test_data")
  return Trimmed({SENTENCEPIECE: proto.SerializeToString()}, kept)


def _parts_of_any_split(
  wanted: Iterable[str], known: Collection[str]
) -> list[str]:
  """Parts of wanted pieces, and of such parts, wherever both are known."""
  all_parts: set[str] = set()
  pending = list(wanted)
  while pending:
    piece = pending.pop()
    for cut in range(1, len(piece)):
      parts = piece[:cut], piece[cut:]
      if all(part in known for part in parts):
        new = set(parts) - all_parts
        all_parts |= new
        pending += new
  return list(all_parts)


def _trim_vocab_txt(tokenizer: JsonTokenizer, keep: set[int]) -> Trimmed:
  kept = _as_kept(keep)
  lines = "".join(f"{piece}\n" for piece in tokenizer.pieces(kept))
  # Written, since the pieces with capitals may be gone.
  config = _config(tokenizer, do_lower_case=tokenizer.lower_case)
  return Trimmed({VOCAB_TXT: lines.encode(), CONFIG: config}, kept)


def _trim_xlm(tokenizer: XlmTokenizer, keep: set[int]) -> Trimmed:
  vocabulary = json.loads(tokenizer.files[VOCAB_JSON])
  kept = _as_kept(keep & set(vocabulary.values()))
  pieces = dict(zip(tokenizer.pieces(kept), range(len(kept)), strict=True))
  files = {VOCAB_JSON: json.dumps(pieces, ensure_ascii=False).encode()}
  lower = {"do_lowercase_and_remove_accent": tokenizer.lower_case}
  files[CONFIG] = _config(tokenizer, **lower)
  return Trimmed({**tokenizer.files, **files}, kept)


def _config(tokenizer: Tokenizer, **options: bool) -> bytes:
  config = json.loads(tokenizer.files.get(CONFIG, b"{}")) | options
  config.pop("added_tokens_decoder", None)  # it has the ids of before
  return json.dumps(config).encode()
