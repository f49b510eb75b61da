"""BERT's older vocab.txt: a piece on each line."""

from collections.abc import Mapping

import tokenizers

from infoxlm_jax.data.tokenizers.file_names import (
  CONFIG,
  VOCAB_TXT,
  check_vocabulary,
  lines_of,
)
from infoxlm_jax.data.tokenizers.huggingface import (
  has_capitals,
  option,
  parse_json,
  special_ids,
)
from infoxlm_jax.errors import InputError


def read_vocab_txt(
  files: Mapping[str, bytes], path: str
) -> tokenizers.Tokenizer:
  """Builds BERT's tokenizer of a vocab.txt, which has a piece on each line.

  Options come from tokenizer_config.json if there is one. Without
  `do_lower_case`, text is converted to lower case if no piece has a capital
  letter.

  Raises:
    InputError: the file is broken, or an option has a wrong type.
  """
  vocabulary = _vocab_txt(files[VOCAB_TXT], path)
  config = (
    parse_json(files[CONFIG], f"{path}, {CONFIG}") if (CONFIG in files) else {}
  )
  lower = option(config, "do_lower_case", path)
  if lower is None:
    lower = not has_capitals(vocabulary)
  chinese = option(config, "tokenize_chinese_chars", path)
  unknown = special_ids(vocabulary, path)["unk"]
  check_vocabulary(vocabulary.items(), path)
  names = {i: piece for piece, i in vocabulary.items()}
  model = tokenizers.Tokenizer(
    tokenizers.models.WordPiece(
      vocabulary, unk_token=names[unknown], max_input_chars_per_word=100
    )
  )
  model.normalizer = tokenizers.normalizers.BertNormalizer(
    clean_text=True,
    handle_chinese_chars=True if chinese is None else chinese,
    strip_accents=option(config, "strip_accents", path),
    lowercase=lower,
  )
  model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
  model.decoder = tokenizers.decoders.WordPiece(prefix="##")
  return model


def _vocab_txt(content: bytes, path: str) -> dict[str, int]:
  lines = lines_of(content, path, "not a vocab.txt")
  if lines and not lines[-1]:
    lines.pop()
  vocabulary: dict[str, int] = {}
  for number, line in enumerate(lines):
    piece = line.removesuffix("\r")
    if piece in vocabulary:
      raise InputError(
        f"{path}, line {number + 1}: the piece {piece!r} is also in line "
        f"{vocabulary[piece] + 1}: not a vocab.txt."
      )
    vocabulary[piece] = number
  return vocabulary
