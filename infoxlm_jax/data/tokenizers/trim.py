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
from typing import Any, NamedTuple

import numpy as np

from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.data.tokenizers.file_names import (
  CONFIG,
  JSON,
  SENTENCEPIECE,
  VOCAB_JSON,
  VOCAB_TXT,
  checked_ids,
)
from infoxlm_jax.data.tokenizers.huggingface import JsonTokenizer
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
    InputError: an id that is not in the vocabulary.
  """
  keep = set(checked_ids(keep_ids, tokenizer.vocab_size, tokenizer.path))
  keep |= tokenizer.special_ids
  if isinstance(tokenizer, SentencePieceTokenizer):
    return _trim_sentencepiece(tokenizer, keep)
  if isinstance(tokenizer, XlmTokenizer):
    return _trim_xlm(tokenizer, keep)
  assert isinstance(tokenizer, JsonTokenizer), type(tokenizer)
  if JSON in tokenizer.files:
    return _trim_json(tokenizer, keep)
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


def _trim_json(tokenizer: JsonTokenizer, keep: set[int]) -> Trimmed:
  described = json.loads(tokenizer.files[JSON])
  model = described["model"]
  kind = tokenizer.kind
  added = described.get("added_tokens") or []
  keep |= {token["id"] for token in added}
  vocabulary: dict[str, int]
  if kind == "Unigram":
    vocabulary = {p: i for i, (p, _) in enumerate(model["vocab"])}
    keep |= _unigram_needs(model, vocabulary, keep)
  else:
    vocabulary = model["vocab"]
  if kind == "BPE":
    keep |= _bpe_needs(described, vocabulary, keep)
  names = {token["id"]: token["content"] for token in added}
  names |= {i: piece for piece, i in vocabulary.items()}
  kept = _as_kept(keep & names.keys())
  new = {old: i for i, old in enumerate(kept.tolist())}
  if kind == "Unigram":
    # The index in the list is the id: added tokens after it leave no gap.
    model["vocab"] = [pair for i, pair in enumerate(model["vocab"]) if i in new]
    if model.get("unk_id") is not None:
      model["unk_id"] = new[model["unk_id"]]
  else:
    model["vocab"] = {p: new[i] for p, i in vocabulary.items() if i in new}
  if kind == "BPE":
    model["merges"] = [
      merge
      for merge in model["merges"]
      if _merge_stays(merge, model, model["vocab"])
    ]
  for token in added:
    token["id"] = new[token["id"]]
  _renumber(described, new)
  files = {JSON: json.dumps(described, ensure_ascii=False).encode()}
  return Trimmed(files, kept)


def _unigram_needs(
  model: dict[str, Any], vocabulary: dict[str, int], keep: set[int]
) -> set[int]:
  entries = model["vocab"]
  needed = {min(range(len(entries)), key=lambda i: entries[i][1])}
  kept = [entries[i][0] for i in keep | needed if i < len(entries)]
  needed |= {vocabulary[c] for p in kept for c in p if c in vocabulary}
  if model.get("byte_fallback"):
    needed |= _byte_pieces(vocabulary)
  return needed


def _byte_pieces(vocabulary: dict[str, int]) -> set[int]:
  names = (f"<0x{byte:02X}>" for byte in range(256))
  return {vocabulary[name] for name in names if name in vocabulary}


def _pair(merge: str | list[str]) -> tuple[str, str]:
  """The parts of a merge: tokenizer.json has had "a b", and ["a", "b"]."""
  first, second = merge.split(" ") if isinstance(merge, str) else merge
  return first, second


def _merged(first: str, second: str, model: dict[str, Any]) -> str:
  prefix = model.get("continuing_subword_prefix") or ""
  return first + second.removeprefix(prefix)


def _merge_stays(
  merge: str | list[str], model: dict[str, Any], vocabulary: dict[str, int]
) -> bool:
  first, second = _pair(merge)
  merged = _merged(first, second, model)
  return all(piece in vocabulary for piece in (first, second, merged))


def _bpe_needs(
  described: dict[str, Any], vocabulary: dict[str, int], keep: set[int]
) -> set[int]:
  """Ids of the pieces from which kept ones may be merged, and of bytes."""
  from tokenizers.pre_tokenizers import ByteLevel

  model = described["model"]
  needed = _byte_pieces(vocabulary) if model.get("byte_fallback") else set()
  steps = (described.get("pre_tokenizer"), described.get("normalizer"))
  if "ByteLevel" in json.dumps(steps):
    needed |= {vocabulary[c] for c in ByteLevel.alphabet() if c in vocabulary}
  sources: dict[str, list[tuple[str, str]]] = {}
  for merge in model["merges"]:
    first, second = _pair(merge)
    merged = _merged(first, second, model)
    sources.setdefault(merged, []).append((first, second))
  names = {i: piece for piece, i in vocabulary.items()}
  pending = [names[i] for i in keep if i in names]
  while pending:
    for parts in sources.get(pending.pop(), ()):
      new = {vocabulary[part] for part in parts} - needed
      needed |= new
      pending += [names[i] for i in new]
  return needed


def _renumber(described: dict[str, Any], new: dict[int, int]) -> None:
  """Replaces the ids in padding and post-processor of a tokenizer.json."""
  if padding := described.get("padding"):
    padding["pad_id"] = new[padding["pad_id"]]
  pending = [described.get("post_processor")]
  while pending:
    processor = pending.pop()
    if not processor:
      continue
    pending += processor.get("processors", [])
    for name in ("sep", "cls"):  # BertProcessing, RobertaProcessing
      if name in processor:
        processor[name][1] = new[processor[name][1]]
    if processor["type"] == "TemplateProcessing":
      for token in processor["special_tokens"].values():
        token["ids"] = [new[i] for i in token["ids"]]


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
