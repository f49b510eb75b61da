"""Hugging Face tokenizer.json; the class also serves vocab_txt.py.

The `tokenizers` package encodes text, so WordPiece (mBERT), unigram (XLM-R,
multilingual-e5) and BPE give the ids that `transformers` gives. Special ids
are found by their names, `<s>` or `[CLS]` and so on.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers

from infoxlm_jax.data.tokenizers.file_names import (
  CONFIG,
  JSON,
  check_vocabulary,
  checked_ids,
  library_errors,
  sha256_of,
)
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import limits, read_files

# Names of the special tokens: XLM-R's, BERT's.
SPECIALS = {
  "bos": ("<s>", "[CLS]"),
  "pad": ("<pad>", "[PAD]"),
  "eos": ("</s>", "[SEP]"),
  "unk": ("<unk>", "[UNK]"),
  "mask": ("<mask>", "[MASK]"),
}


class JsonTokenizer:
  """A tokenizer (see base.py) of the `tokenizers` package.

  Args:
    files: contents of its files by name.
    path: where the files are, for messages.
    read: builds it from (files, path); also used to unpickle.

  Raises:
    InputError: broken files, or a special token is missing.
  """

  def __init__(
    self,
    files: Mapping[str, bytes],
    path: str,
    read: Callable[[Mapping[str, bytes], str], tokenizers.Tokenizer],
  ):
    self.path = path
    self.files = dict(files)
    self.sha256 = sha256_of(files)
    self._read = read
    with library_errors(path):
      self._model = read(files, path)
      # A file may ask for either, but the caller decides about lengths.
      self._model.no_truncation()
      self._model.no_padding()
      # "<mask>" in a text is text.
      self._model.encode_special_tokens = True
      vocabulary = self._model.get_vocab(with_added_tokens=True)
      added = self._model.get_added_tokens_decoder()
    check_vocabulary(vocabulary.items(), path)
    self.vocab_size = 1 + max(vocabulary.values())
    ids = special_ids(vocabulary, path)
    self.bos_id, self.pad_id = ids["bos"], ids["pad"]
    self.eos_id, self.unk_id = ids["eos"], ids["unk"]
    self.mask_id = ids["mask"]
    self.special_ids = frozenset(ids.values()) | {
      i for i, token in added.items() if token.special
    }
    # A unigram model may still encode "<s>" as its piece of that name.
    self._from_model_ids = np.arange(self.vocab_size, dtype=np.int32)
    self._from_model_ids[list(self.special_ids)] = self.unk_id

  def __reduce__(self) -> tuple[Any, ...]:
    return type(self), (self.files, self.path, self._read)

  def encode(self, text: str) -> np.ndarray:
    """Ids of one text, int32 [length], without <s> and </s>."""
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Ids of each text, int32 [length], without <s> and </s>."""
    with library_errors(self.path):
      encoded = self._model.encode_batch_fast(
        list(texts), add_special_tokens=False
      )
    return [self._from_model_ids[np.array(e.ids, np.int32)] for e in encoded]

  def encode_with_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """The ids of `encode`, and the characters of each; see base.py."""
    encoded = self._model.encode(text, add_special_tokens=False)
    ids = self._from_model_ids[np.array(encoded.ids, np.int32)]
    return ids, np.array(encoded.offsets, np.int64).reshape(-1, 2)

  def decode(self, ids: Iterable[int]) -> str:
    """The text of ids; special ids are left out, unknown pieces are shown."""
    left_out = self.special_ids - {self.unk_id}
    kept = [i for i in self._checked(ids) if i not in left_out]
    with library_errors(self.path):
      return self._model.decode(kept, skip_special_tokens=False)

  def pieces(self, ids: Iterable[int]) -> list[str]:
    """The piece of each id; "" for an id without a piece."""
    return [self._model.id_to_token(i) or "" for i in self._checked(ids)]

  @property
  def kind(self) -> str:
    """The model that cuts words: "WordPiece", "Unigram", "BPE", "WordLevel"."""
    return type(self._model.model).__name__

  @property
  def lower_case(self) -> bool:
    """Whether BERT's normalizer converts text to lower case."""
    return bool(getattr(self._model.normalizer, "lowercase", False))

  def given_up(self, text: str) -> list[int]:
    """Ids that WordPiece matched in words that became unknown after all."""
    if self.kind != "WordPiece":
      return []
    if self._model.normalizer is not None:
      text = self._model.normalizer.normalize_str(text)
    words = [text]
    if self._model.pre_tokenizer is not None:
      split = self._model.pre_tokenizer.pre_tokenize_str(text)
      words = [word for word, _ in split]
    prefix = getattr(self._model.model, "continuing_subword_prefix", "##")
    return [i for word in words for i in self._matched(word, prefix)]

  def _matched(self, word: str, prefix: str) -> list[int]:
    """Ids matched before no piece matched; none if the whole word matches."""
    matched: list[int] = []
    start = 0
    while start < len(word):
      begin = prefix if start else ""
      for end in range(len(word), start, -1):
        i = self._model.token_to_id(begin + word[start:end])
        if i is not None:
          break
      else:
        return matched
      matched.append(i)
      start = end
    return []

  def to_json(self) -> bytes:
    """A tokenizer.json whose post-processor adds special tokens to a text.

    The file itself if it has a post-processor; else one for `<s> A </s>` and
    `<s> A </s> B </s>`, with the special tokens marked as such.
    """
    if JSON in self.files:
      described = parse_json(self.files[JSON], self.path)
      if described.get("post_processor"):
        return self.files[JSON]
    whole = tokenizers.Tokenizer.from_str(self._model.to_str())
    bos, eos = self.pieces([self.bos_id, self.eos_id])
    whole.add_special_tokens(self.pieces(sorted(self.special_ids)))
    types = (0, 1) if bos == "[CLS]" else (0, 0)
    whole.post_processor = tokenizers.processors.TemplateProcessing(
      single=f"{bos} $A {eos}",
      pair=f"{bos} $A {eos} $B:{types[1]} {eos}:{types[1]}",
      special_tokens=[(bos, self.bos_id), (eos, self.eos_id)],
    )
    return whole.to_str(pretty=True).encode()

  def _checked(self, ids: Iterable[int]) -> list[int]:
    return checked_ids(ids, self.vocab_size, self.path)


def special_ids(vocabulary: Mapping[str, int], path: str) -> dict[str, int]:
  """Ids of the special tokens of `SPECIALS`, found by their names.

  Raises:
    InputError: a special token is missing.
  """
  ids = {}
  for what, names in SPECIALS.items():
    present = [vocabulary[name] for name in names if name in vocabulary]
    if not present:
      raise InputError(
        f"{path} has no token {' or '.join(names)}: an encoder's tokenizer "
        "needs tokens for begin, end, padding, mask and unknown pieces. "
        "Give the tokenizer of a masked language model."
      )
    ids[what] = present[0]
  return ids


def read_json(files: Mapping[str, bytes], path: str) -> tokenizers.Tokenizer:
  """Builds the tokenizer of a tokenizer.json.

  Raises:
    InputError: the file is not JSON, or not a tokenizer.json, or has more ids
      than limits.IDS.
  """
  content = files[JSON]
  described = parse_json(content, path)
  if "model" not in described:
    raise InputError(
      f'{path} is not a tokenizer.json (it has no "model"): give the file '
      "that the tokenizers package or `save_pretrained` wrote."
    )
  _check_described(described, path)
  with library_errors(path):
    return tokenizers.Tokenizer.from_buffer(content)


def _check_described(described: Mapping[str, Any], path: str) -> None:
  """Checks the ids of a tokenizer.json before the package makes tables of it.

  What is of an unexpected type is left for the package to refuse.

  Raises:
    InputError: see `check_vocabulary`.
  """
  model, added = described["model"], described.get("added_tokens")
  pieces = model.get("vocab") if isinstance(model, dict) else None
  ids: list[tuple[Any, Any]] = []
  if isinstance(pieces, dict):
    ids += pieces.items()
  elif isinstance(pieces, list):
    limits.IDS.check(len(pieces), path)
  if isinstance(added, list):
    ids += [
      (token.get("content"), token["id"])
      for token in added
      if isinstance(token, dict) and "id" in token
    ]
  if ids:
    check_vocabulary(ids, path)


def parse_json(content: bytes, path: str) -> dict[str, Any]:
  """The object in a JSON file; InputError if it is none."""
  limits.JSON.check(len(content), path)
  return read_files.check_object(read_files.parse_json(content, path), path, {})


def option(config: Mapping[str, Any], name: str, path: str) -> bool | None:
  """A boolean option of tokenizer_config.json; None if it is missing."""
  value = config.get(name)
  if value is not None and not isinstance(value, bool):
    raise InputError(
      f"{path}, {CONFIG}: {name} = {value!r} must be true or false."
    )
  return value


def has_capitals(vocabulary: Iterable[str]) -> bool:
  """Whether a piece that is not special has a Latin capital letter."""
  capital = re.compile("[A-Z]")
  special = re.compile(r"\[.*\]|<.*>")
  return any(
    capital.search(piece) and not special.fullmatch(piece)
    for piece in vocabulary
  )
