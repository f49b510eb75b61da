"""Trains tokenizers on text of many languages, reproducibly."""

import io
from collections import Counter
from collections.abc import Iterable

import sentencepiece
import tokenizers
from tokenizers import (
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

from infoxlm_jax.errors import InputError

_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_XLMR = ["<s>", "<pad>", "</s>", "<unk>"]


def train_unigram(
  texts: Iterable[str],
  vocab_size: int,
  character_coverage: float,
  normalizer: str,
) -> bytes:
  """The bytes of a SentencePiece model with `vocab_size` pieces.

  Raises:
    InputError: SentencePiece cannot train on these texts.
  """
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(texts),
      model_writer=model,
      model_type="unigram",
      vocab_size=vocab_size,
      character_coverage=character_coverage,
      normalization_rule_name=normalizer,
      max_sentence_length=1 << 20,
      # The number of threads is in the model's bytes and decides the order of
      # sums, so it must not be the machine's number of cores.
      num_threads=2,
      minloglevel=2,
    )
  except (RuntimeError, OSError) as error:
    raise InputError(f"SentencePiece could not train: {error}") from error
  return model.getvalue()


def train_wordpiece(
  texts: list[str],
  vocab_size: int,
  character_coverage: float,
  show_progress: bool = False,
) -> bytes:
  """A tokenizer.json like mBERT's, cased: [PAD] 0, [UNK], [CLS], [SEP], [MASK].

  Args:
    texts: sentences.
    vocab_size: number of ids, with the special ones.
    character_coverage: share of all characters that have pieces; rarer
      characters become [UNK].
    show_progress: on standard error.

  Raises:
    InputError: the vocabulary is too small for single characters.
  """
  alphabet = _alphabet(texts, character_coverage)
  # A character has two pieces, one at the start of a word and one inside.
  _check_size(vocab_size, len(_BERT) + 2 * len(alphabet))
  trainer = trainers.WordPieceTrainer(
    vocab_size=vocab_size,
    # Listed here, characters inside a word have fixed ids. The trainer would
    # number them, and so break ties, in the order of a hash table.
    special_tokens=_BERT + [f"##{character}" for character in alphabet],
    limit_alphabet=len(alphabet),
    initial_alphabet=alphabet,
    show_progress=show_progress,
  )
  trained = _bert({token: i for i, token in enumerate(_BERT)})
  trained.train_from_iterator(texts, trainer, len(texts))
  model = _bert(trained.get_vocab())
  model.add_special_tokens(_BERT)
  model.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]",
    pair="[CLS] $A [SEP] $B:1 [SEP]:1",
    special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
  )
  return model.to_str().encode()


def _bert(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
  model = tokenizers.Tokenizer(
    models.WordPiece(
      vocabulary, unk_token="[UNK]", max_input_chars_per_word=100
    )
  )
  model.normalizer = normalizers.BertNormalizer(
    lowercase=False, strip_accents=False
  )
  model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  model.decoder = decoders.WordPiece()
  return model


def train_bpe(
  texts: list[str], vocab_size: int, show_progress: bool = False
) -> bytes:
  """A tokenizer.json of byte-level BPE with XLM-R's layout, <mask> last.

  No text has an unknown piece, and decoding gives every text unchanged.

  Raises:
    InputError: the vocabulary is too small for single bytes.
  """
  model = tokenizers.Tokenizer(models.BPE())
  model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  model.decoder = decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  _check_size(vocab_size, len(_XLMR) + len(alphabet) + 1)
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size - 1,
    special_tokens=_XLMR,
    initial_alphabet=alphabet,
    show_progress=show_progress,
  )
  model.train_from_iterator(texts, trainer, len(texts))
  model.add_special_tokens(["<mask>"])
  model.post_processor = processors.TemplateProcessing(
    single="<s> $A </s>",
    pair="<s> $A </s> </s> $B </s>",
    special_tokens=[("<s>", 0), ("</s>", 2)],
  )
  return model.to_str().encode()


def _alphabet(texts: Iterable[str], coverage: float) -> list[str]:
  """The fewest most frequent characters that cover this share of the text."""
  counts: Counter[str] = Counter()
  for text in texts:
    counts.update(text)
  for space in [c for c in counts if c.isspace()]:
    del counts[space]
  needed = coverage * counts.total()
  chosen = []
  for character, count in sorted(counts.items(), key=lambda x: (-x[1], x[0])):
    if needed <= 0:
      break
    chosen.append(character)
    needed -= count
  return chosen


def _check_size(vocab_size: int, least: int) -> None:
  if vocab_size < least:
    raise InputError(
      f"vocab_size = {vocab_size} is too small: special tokens and single "
      f"characters alone take {least}. Raise it, or lower character_coverage."
    )
