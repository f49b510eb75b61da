"""Trims a tokenizer.json; see trim.py for what is kept and why."""

import json
from typing import Any

import numpy as np


def trim_json(
  content: bytes, kind: str, keep: set[int]
) -> tuple[bytes, np.ndarray]:
  """A tokenizer.json with fewer pieces, and the old id of each new one.

  Args:
    content: of a tokenizer.json that was read before.
    kind: of its model, as JsonTokenizer.kind; old files do not state it.
    keep: ids to keep; those that they need are kept, too.

  Returns:
    The new file, and as Trimmed.kept.
  """
  described = json.loads(content)
  model = described["model"]
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
  kept = np.array(sorted(keep & names.keys()), np.int64)
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
  return json.dumps(described, ensure_ascii=False).encode(), kept


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
