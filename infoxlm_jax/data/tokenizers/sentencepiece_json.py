"""A SentencePiece model as a tokenizer.json, in a given order of ids.

Unigram and BPE. The ids follow from the order of the pieces alone, so another
numbering than XLM-R's needs nothing else than another order.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from infoxlm_jax.data.tokenizers.xlmr import (
  BPE,
  BYTE,
  NORMAL,
  UNIGRAM,
  SentencePieceTokenizer,
  read_proto,
)
from infoxlm_jax.errors import InputError

# A piece and its score, each at the place of its id.
Pieces = Sequence[tuple[str, float]]

_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
_SPACE = "▁"
# Not `WhitespaceSplit`: to SentencePiece a tab that its normalizer leaves is an
# ordinary character.
_AT_SPACES = {
  "type": "Split",
  "pattern": {"String": " "},
  "behavior": "Removed",
  "invert": False,
}


def xlmr_pieces(tokenizer: SentencePieceTokenizer) -> Pieces:
  """XLM-R's order: `<s> <pad> </s> <unk>`, piece i at i + 1, `<mask>`."""
  pieces = [(p.piece, p.score) for p in read_proto(tokenizer).pieces[3:]]
  return [*((name, 0.0) for name in _SPECIALS), *pieces, ("<mask>", 0.0)]


def camembert_pieces(tokenizer: SentencePieceTokenizer) -> Pieces:
  """CamemBERT's order: four names that are not used, piece i at i + 4.

  As CamembertConverter of transformers (convert_slow_tokenizer.py) has it:
  `<pad>` 1, `<unk>` 3, `<s>` 5, `</s>` 6, first ordinary piece 7, `<mask>`
  last. The score of -100 is theirs, too: it sets the cost of unknown pieces.
  """
  first = [("<s>NOTUSED", 0.0), ("<pad>", 0.0), ("</s>NOTUSED", 0.0)]
  first += [("<unk>", 0.0), ("<unk>NOTUSED", -100.0)]
  pieces = [(p.piece, p.score) for p in read_proto(tokenizer).pieces[1:]]
  return [*first, *pieces, ("<mask>", 0.0)]


def inexpressible(tokenizer: SentencePieceTokenizer) -> str | None:
  """Why no tokenizer.json cuts text as this model does; None: ours does."""
  proto = read_proto(tokenizer)
  spec = proto.normalizer_spec
  others = [p.piece for p in proto.pieces[3:] if p.type not in (NORMAL, BYTE)]
  if proto.trainer_spec.model_type not in (UNIGRAM, BPE):
    return "it is neither a unigram nor a BPE model"
  if others:
    return f"it has pieces that are user-defined or unused ({others[0]!r})"
  if not (spec.remove_extra_whitespaces and spec.escape_whitespaces):
    return "it keeps repeated spaces"
  if proto.trainer_spec.treat_whitespace_as_suffix:
    return "it writes spaces at the end of words"
  return None


def as_json(tokenizer: SentencePieceTokenizer, pieces: Pieces) -> bytes:
  """The tokenizer.json of a model with its pieces in this order.

  The hash of data and checkpoints is that of these bytes where a folder's ids
  are not XLM-R's, so their form must stay.

  Args:
    tokenizer: the model.
    pieces: all of its pieces; `<s>`, `<pad>`, `</s>`, `<unk>` and `<mask>`
      among them, and names ending in NOTUSED, become special tokens.

  Raises:
    InputError: the model cannot be expressed so, see `inexpressible`.
  """
  if problem := inexpressible(tokenizer):
    raise refusal(tokenizer.path, problem)
  described = _described(read_proto(tokenizer), pieces)
  return json.dumps(described, ensure_ascii=False, indent=2).encode()


def refusal(path: str, problem: str) -> InputError:
  """The error of a tokenizer that no tokenizer.json expresses."""
  return InputError(
    f"{path} cannot be written as a tokenizer.json that gives the same ids:"
    f" {problem}. infoxlm-train-tokenizer trains models that can."
  )


def _described(proto: Any, pieces: Pieces) -> dict[str, Any]:
  spec = proto.normalizer_spec
  space = {
    "type": "Metaspace",
    "replacement": _SPACE,
    "prepend_scheme": "always" if spec.add_dummy_prefix else "never",
    "split": True,
  }
  known = {*_SPECIALS, "<mask>"}
  specials = {
    name: i
    for i, (name, _) in enumerate(pieces)
    if name in known or name.endswith(">NOTUSED")
  }
  byte_fallback = proto.trainer_spec.byte_fallback
  model = _bpe if proto.trainer_spec.model_type == BPE else _unigram
  bytes_back = [{"type": "ByteFallback"}] if byte_fallback else []
  return {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
      {
        "id": i,
        "content": name,
        "single_word": False,
        # As in XLM-R's file: "a <mask>" has no piece for the space.
        "lstrip": name == "<mask>",
        "rstrip": False,
        "normalized": False,
        "special": True,
      }
      for name, i in specials.items()
    ],
    "normalizer": _normalizer(spec),
    "pre_tokenizer": {
      "type": "Sequence",
      "pretokenizers": [_AT_SPACES, space],
    },
    "post_processor": _template(specials),
    "decoder": {"type": "Sequence", "decoders": [*bytes_back, space]},
    "model": model(pieces, specials) | {"byte_fallback": byte_fallback},
  }


def _unigram(pieces: Pieces, specials: Mapping[str, int]) -> dict[str, Any]:
  return {"type": "Unigram", "unk_id": specials["<unk>"], "vocab": pieces}


def _bpe(pieces: Pieces, specials: Mapping[str, int]) -> dict[str, Any]:
  """Merges in the order in which SentencePiece makes them.

  It joins the two neighbours that make the piece of the best score. Its file
  has no merges: every way to cut a piece into two pieces is one.
  """
  ids = {piece: i for i, (piece, _) in enumerate(pieces)}
  scores = {piece: s for piece, s in pieces if piece not in specials}
  merges = [
    (-score, ids[piece[:cut]], ids[piece[cut:]])
    for piece, score in scores.items()
    for cut in range(1, len(piece))
    if piece[:cut] in scores and piece[cut:] in scores
  ]
  names = [piece for piece, _ in pieces]
  return {
    "type": "BPE",
    "unk_token": "<unk>",
    "fuse_unk": True,
    "vocab": ids,
    "merges": [[names[a], names[b]] for _, a, b in sorted(merges)],
  }


def _normalizer(spec: Any) -> dict[str, Any] | None:
  if not spec.precompiled_charsmap:
    return None
  charsmap = base64.b64encode(spec.precompiled_charsmap).decode()
  return {"type": "Precompiled", "precompiled_charsmap": charsmap}


def _template(ids: Mapping[str, int]) -> dict[str, Any]:
  """XLM-R's post-processor: `<s> A </s>` and `<s> A </s></s> B </s>`."""
  begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
  end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
  a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
  return {
    "type": "TemplateProcessing",
    "single": [begin, a, end],
    "pair": [begin, a, end, end, b, end],
    "special_tokens": {
      name: {"id": name, "ids": [ids[name]], "tokens": [name]}
      for name in ("<s>", "</s>")
    },
  }
