"""Tokens that people added to a vocabulary, as a Hugging Face folder has them.

They stand in added_tokens.json, or in tokenizer_config.json as
added_tokens_decoder, and follow the last id of the vocabulary. A vocabulary
with such tokens becomes a tokenizer.json, which can hold them.
"""

from collections.abc import Mapping
from typing import Any

import tokenizers

from infoxlm_jax.data.tokenizers.file_names import (
  ADDED_TOKENS,
  CONFIG,
  JSON,
  SENTENCEPIECE,
  SPECIALS_MAP,
  VOCAB_JSON,
  VOCAB_TXT,
)
from infoxlm_jax.data.tokenizers.huggingface import parse_json, read_json
from infoxlm_jax.data.tokenizers.sentencepiece_json import as_json, xlmr_pieces
from infoxlm_jax.data.tokenizers.vocab_txt import read_vocab_txt
from infoxlm_jax.data.tokenizers.xlm import read_vocabulary
from infoxlm_jax.data.tokenizers.xlmr import SentencePieceTokenizer
from infoxlm_jax.errors import InputError

RESAVE = (
  " If transformers reads the folder, let it write a tokenizer.json, which is"
  " read as it is: AutoTokenizer.from_pretrained(FOLDER).save_pretrained("
  "FOLDER)."
)


def added_tokens(
  files: Mapping[str, bytes], where: str
) -> dict[int, tokenizers.AddedToken]:
  """Added and special tokens by id, as the folder states them.

  Raises:
    InputError: a file that does not hold tokens and ids.
  """
  special = _special_names(parsed(files, SPECIALS_MAP, where))
  added = {}
  for content, i in parsed(files, ADDED_TOKENS, where).items():
    added[_id(i, ADDED_TOKENS, where)] = tokenizers.AddedToken(
      content, special=content in special, normalized=content not in special
    )
  decoder = parsed(files, CONFIG, where).get("added_tokens_decoder") or {}
  for i, token in decoder.items() if isinstance(decoder, dict) else ():
    try:
      options = dict(token)
      content = str(options.pop("content"))
      options = {k: v for k, v in options.items() if isinstance(v, bool)}
      added[_id(i, CONFIG, where)] = tokenizers.AddedToken(content, **options)
    except (KeyError, TypeError, ValueError):
      raise InputError(
        f"{where}, {CONFIG}: added_tokens_decoder holds {str(token)[:80]!r},"
        " which is no token."
      ) from None
  return added


def _id(value: Any, file: str, where: str) -> int:
  if str(value).isascii() and str(value).isdecimal():
    return int(value)
  raise InputError(f"{where}, {file}: {str(value)[:40]!r} is no token id.")


def _special_names(described: Mapping[str, Any]) -> set[str]:
  names = set()
  for value in described.values():
    for token in value if isinstance(value, list) else [value]:
      names.add(token.get("content") if isinstance(token, dict) else token)
  return {name for name in names if isinstance(name, str)}


def with_added(
  first: str,
  own: dict[str, bytes],
  added: Mapping[int, tokenizers.AddedToken],
  where: str,
) -> dict[str, bytes]:
  """The files, or a tokenizer.json with tokens that they do not hold.

  Args:
    first: name of the first of the files.
    own: the tokenizer's files.
    added: as `added_tokens` gives it.
    where: the folder or file, for messages.

  Raises:
    InputError: an id that is another piece's, or that the token would not get.
  """
  names = _pieces(first, own, where)
  new = {}
  for i, token in sorted(added.items()):
    if i not in names:
      new[i] = token
    elif names[i] != token.content:
      raise InputError(
        f"{where}: the id {i} is {names[i]!r} in {first} and"
        f" {token.content!r} among the added tokens ({CONFIG},"
        f" {ADDED_TOKENS}): they do not belong together.{RESAVE}"
      )
  if not new:
    return own
  if first == VOCAB_JSON:
    raise InputError(
      f"{where}: tokens were added to XLM's vocabulary"
      f" ({', '.join(t.content for t in new.values())}), which is not"
      " supported: they would be cut into pieces. Remove them from the folder"
      " if no text holds them."
    )
  base = _without_added(first, own, where)
  base.add_tokens(list(new.values()))
  for i, token in new.items():
    if base.token_to_id(token.content) != i:
      raise InputError(
        f"{where}: the added token {token.content!r} has the id {i}, but"
        f" would be {base.token_to_id(token.content)} after the ids before"
        f" it: some are missing.{RESAVE}"
      )
  return {JSON: base.to_str().encode()}


def _pieces(first: str, own: Mapping[str, bytes], where: str) -> dict[int, str]:
  """The piece of each id."""
  if first == SENTENCEPIECE:
    model = SentencePieceTokenizer(own[first], where)
    return dict(enumerate(model.pieces(range(model.vocab_size))))
  if first == VOCAB_JSON:
    vocabulary = read_vocabulary(own[first], where)
  else:
    vocabulary = _without_added(first, own, where).get_vocab()
  return {i: piece for piece, i in vocabulary.items()}


def _without_added(
  first: str, own: Mapping[str, bytes], where: str
) -> tokenizers.Tokenizer:
  """What the files hold by themselves."""
  if first == VOCAB_TXT:
    return read_vocab_txt(own, where)
  content = own[first]
  if first == SENTENCEPIECE:
    model = SentencePieceTokenizer(content, where)
    content = as_json(model, xlmr_pieces(model))
  return read_json({JSON: content}, where)


def parsed(files: Mapping[str, bytes], name: str, where: str) -> dict[str, Any]:
  """The object in one of the files; {} where it is not there."""
  if name not in files:
    return {}
  return parse_json(files[name], f"{where}, {name}")
