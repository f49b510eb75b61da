"""XLM's tokenizer: Moses, lower case, BPE; vocab.json and merges.txt.

    text -> Moses punctuation and words -> lower case without accents
         -> pieces of each word, the last one ending in </w>

The ids are those of `transformers` without a language: Moses' English rules
for all text. (The authors segmented Chinese, Japanese and Thai with other
programs first; put spaces between the words of such text.) Special ids are
found by name: <s>, </s>, <pad>, <unk>, and <special1>, which is XLM's <mask>.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers

from infoxlm_jax.data.tokenizers.file_names import (
  CONFIG,
  MERGES,
  VOCAB_JSON,
  check_vocabulary,
  checked_ids,
  library_errors,
  lines_of,
  sha256_of,
)
from infoxlm_jax.data.tokenizers.huggingface import (
  has_capitals,
  option,
  parse_json,
)
from infoxlm_jax.errors import InputError

END = "</w>"
SPECIALS = {
  "bos": "<s>",
  "pad": "<pad>",
  "eos": "</s>",
  "unk": "<unk>",
  "mask": "<special1>",
}
_SPECIAL = re.compile(r"</?s>|<pad>|<unk>|<special\d+>")

# Full-width and typographic punctuation, replaced as by Moses' script
# replace-unicode-punctuation.perl.
_PUNCTUATION = str.maketrans(
  {
    "，": ",",
    "、": ",",
    "”": '"',
    "“": '"',
    "∶": ":",
    "：": ":",
    "？": "?",
    "《": '"',
    "》": '"',
    "）": ")",
    "！": "!",
    "（": "(",
    "；": ";",
    "」": '"',
    "「": '"',
    "～": "~",
    "’": "'",
    "…": "...",
    "━": "-",
    "〈": "<",
    "〉": ">",
    "【": "[",
    "】": "]",
    "％": "%",
    **{chr(ord("０") + digit): str(digit) for digit in range(10)},
  }
)
_STOPS = re.compile(r"[。．]\s*")


class XlmTokenizer:
  """A tokenizer (see base.py) of vocab.json and merges.txt.

  Raises:
    InputError: broken files, or a special token or the package sacremoses is
      missing.
  """

  def __init__(self, files: Mapping[str, bytes], path: str):
    self.path = path
    self.files = dict(files)
    self.sha256 = sha256_of(files)
    vocabulary = read_vocabulary(files[VOCAB_JSON], path)
    merges = read_merges(files[MERGES], path)
    config = (
      parse_json(files[CONFIG], f"{path}, {CONFIG}") if CONFIG in files else {}
    )
    lower = option(config, "do_lowercase_and_remove_accent", path)
    self.lower_case = not has_capitals(vocabulary) if lower is None else lower
    ids = {what: vocabulary[name] for what, name in SPECIALS.items()}
    self.bos_id, self.pad_id = ids["bos"], ids["pad"]
    self.eos_id, self.unk_id = ids["eos"], ids["unk"]
    self.mask_id = ids["mask"]
    self.vocab_size = 1 + max(vocabulary.values())
    self._pieces = {i: piece for piece, i in vocabulary.items()}
    self.special_ids = frozenset(
      i for piece, i in vocabulary.items() if _SPECIAL.fullmatch(piece)
    )
    with library_errors(path):
      self._bpe, self._from_bpe_ids = _bpe(vocabulary, merges, self.unk_id)
    self._normalizer, self._moses = _moses()

  def __reduce__(self) -> tuple[Any, ...]:
    return type(self), (self.files, self.path)

  def encode(self, text: str) -> np.ndarray:
    """Ids of one text, int32 [length], without <s> and </s>."""
    words = self._words(text)
    with library_errors(self.path):
      encoded = self._bpe.encode(
        words, is_pretokenized=True, add_special_tokens=False
      )
    return self._from_bpe_ids[np.array(encoded.ids, np.int32)]

  def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Ids of each text, int32 [length], without <s> and </s>."""
    return [self.encode(text) for text in texts]

  def encode_with_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Raises InputError: Moses changes text without saying where."""
    raise InputError(
      f"{self.path}: XLM's tokenizer does not say which characters a piece"
      " stands for, which answers in a text are found by. Use a model with a"
      " SentencePiece model, tokenizer.json or vocab.txt."
    )

  def decode(self, ids: Iterable[int]) -> str:
    """The words of ids, with spaces between; of special ids only <unk>."""
    left_out = self.special_ids - {self.unk_id}
    kept = [i for i in self._checked(ids) if i not in left_out]
    return "".join(self.pieces(kept)).replace(END, " ").strip()

  def pieces(self, ids: Iterable[int]) -> list[str]:
    """The piece of each id; "" for an id without a piece."""
    return [self._pieces.get(i, "") for i in self._checked(ids)]

  def _checked(self, ids: Iterable[int]) -> list[int]:
    return checked_ids(ids, self.vocab_size, self.path)

  def _words(self, text: str) -> list[str]:
    text = _STOPS.sub(". ", text.translate(_PUNCTUATION))
    text = self._normalizer.normalize(text)
    text = "".join(c for c in text if unicodedata.category(c)[0] != "C")
    words = self._moses.tokenize(text, return_str=False, escape=False)
    if self.lower_case:
      words = [_without_accents(word) for word in words]
    return [word for word in words if word]


def _without_accents(word: str) -> str:
  decomposed = unicodedata.normalize("NFD", word.lower())
  marks_off = (c for c in decomposed if unicodedata.category(c) != "Mn")
  return "".join(marks_off).lower()


def _moses() -> tuple[Any, Any]:
  try:
    import sacremoses
  except ImportError as error:
    raise InputError(
      "XLM's tokenizer (vocab.json and merges.txt) needs the package "
      "sacremoses: pip install 'infoxlm-jax[xlm]'."
    ) from error
  return sacremoses.MosesPunctNormalizer("en"), sacremoses.MosesTokenizer("en")


def read_vocabulary(content: bytes, path: str) -> dict[str, int]:
  """Ids by piece of XLM's vocab.json.

  Raises:
    InputError: broken, or another tokenizer's.
  """
  vocabulary = parse_json(content, f"{path}, {VOCAB_JSON}")
  check_vocabulary(vocabulary.items(), f"{path}, {VOCAB_JSON}")
  missing = [name for name in SPECIALS.values() if name not in vocabulary]
  if missing or not any(piece.endswith(END) for piece in vocabulary):
    reason = (
      f"no {', '.join(missing)}" if missing else f"no piece ends in {END}"
    )
    raise InputError(
      f"{path}, {VOCAB_JSON} is not XLM's vocabulary ({reason}). For RoBERTa "
      "and others whose vocab.json is a byte-level BPE give tokenizer.json."
    )
  return vocabulary


def read_merges(content: bytes, path: str) -> list[tuple[str, str]]:
  """Pairs to merge, in the file's order; counts after them are ignored.

  Raises:
    InputError: a line without a pair.
  """
  where = f"{path}, {MERGES}"
  merges = []
  for number, line in enumerate(lines_of(content, where), 1):
    parts = line.split()
    if not parts or (number == 1 and line.startswith("#version")):
      continue
    if len(parts) not in (2, 3):
      raise InputError(
        f"{where}, line {number}: {line[:80]!r} is not two pieces (and maybe "
        "their count): truncated, or another kind of file?"
      )
    merges.append((parts[0], parts[1]))
  if not merges:
    raise InputError(f"{where} holds no merges: truncated?")
  return merges


def _bpe(
  vocabulary: Mapping[str, int], merges: list[tuple[str, str]], unk_id: int
) -> tuple[tokenizers.Tokenizer, np.ndarray]:
  """A model of all symbols in the merges, and our id of each of its ids.

  It has more symbols than the vocabulary: a merge may pass through a piece
  that was too rare to be kept. A text that ends in such a piece is unknown.
  """
  symbols = dict.fromkeys(vocabulary)
  for first, second in merges:
    symbols |= dict.fromkeys((first, second, first + second))
  inner = {symbol: number for number, symbol in enumerate(symbols)}
  model = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      vocab=inner,
      merges=merges,
      unk_token=SPECIALS["unk"],
      end_of_word_suffix=END,
      fuse_unk=False,
    )
  )
  ids = [vocabulary.get(symbol, unk_id) for symbol in inner]
  return model, np.array(ids, np.int32)
