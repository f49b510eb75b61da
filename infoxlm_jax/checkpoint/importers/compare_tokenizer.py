"""Compares our ids with those of transformers, in the folder of a tokenizer.

transformers is optional. What stands in such a folder may be read otherwise
there than here, and wrong ids raise no error by themselves.
"""

import importlib.util
from pathlib import Path
from typing import Any

from infoxlm_jax.data.tokenizers.base import Tokenizer, framed
from infoxlm_jax.data.tokenizers.file_names import CONFIG, MODEL_CONFIG
from infoxlm_jax.errors import InputError

SENTENCES = (
  "The cat sleeps on the sofa.",
  "Im Anfang war das Wort, und das Wort war bei Gott.",
  "Hier soir, nous avons regardé un vieux film ensemble.",
  "Завтра будет дождь.",
  "元始に言あり。",
  "الثعلب البني السريع",
  "12 + 30 = 42",
)
_FEWEST = 20
_REPORT = (
  " Please report this with the folder's tokenizer_config.json. If you know"
  " that transformers is wrong here, add --skip_comparison."
)


def compare_with_folder(tokenizer: Tokenizer, folder: Path | None) -> str:
  """Compares ids with `AutoTokenizer.from_pretrained(folder)`.

  Besides the sentences, it compares the id of every piece that transformers
  has under the same name.

  Args:
    tokenizer: ours.
    folder: the Hugging Face folder that it comes from; None: not known.

  Returns:
    What was compared, or why nothing was, as a line for the user.

  Raises:
    InputError: the ids differ.
  """
  if folder is None or not _says_its_class(folder):
    return "ids: not compared with an imported folder, none is known"
  if not importlib.util.find_spec("transformers"):
    return "ids: not compared, transformers is not installed"
  try:
    theirs = _automatic(folder)
  except Exception as error:  # of a folder that it cannot read: of any kind
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"ids: not compared, transformers cannot read {folder}: {reason}"
  name, vocabulary = type(theirs).__name__, theirs.get_vocab()
  # Where transformers misses a file, it makes a tokenizer of special tokens.
  if len(vocabulary) < min(_FEWEST, tokenizer.vocab_size):
    return f"ids: not compared, transformers finds no vocabulary in {folder}"
  own = tokenizer.pieces(range(tokenizer.vocab_size))
  for piece in sorted(vocabulary, key=vocabulary.__getitem__):
    i = vocabulary[piece]
    ours = own[i] if i < len(own) else "no piece"
    if ours != piece:
      raise InputError(
        f"{folder}: id {i} is {piece!r} for transformers' {name}, and {ours!r}"
        " here: the model would read other words than it was trained on."
        f"{_REPORT}"
      )
  for sentence, pieces in zip(
    SENTENCES, tokenizer.encode_batch(SENTENCES), strict=True
  ):
    ids = framed(tokenizer, pieces).tolist()
    if (their_ids := theirs(sentence)["input_ids"]) != ids:
      raise InputError(
        f"{folder}: transformers' {name} makes {their_ids} of {sentence!r},"
        f" ours {ids}.{_REPORT}"
      )
  return f"ids: equal to those of transformers' {name} in {folder}"


def _says_its_class(folder: Path) -> bool:
  return any((folder / name).is_file() for name in (CONFIG, MODEL_CONFIG))


def _automatic(folder: Path) -> Any:
  import transformers

  # Code that stands in the folder is not run.
  return transformers.AutoTokenizer.from_pretrained(
    str(folder), trust_remote_code=False
  )
