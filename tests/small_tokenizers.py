"""Small tokenizers of other kinds, trained here by the tokenizers package."""

import functools
import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from small_corpus import table
from tokenizers import (
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
XLM = ["<s>", "</s>", "<pad>", "<unk>", *(f"<special{i}>" for i in range(10))]


@functools.cache
def texts() -> tuple[str, ...]:
  """Verses of six languages."""
  rows = table()
  return tuple(
    row[language]
    for language in ("en", "ar", "de", "fr", "ja", "ru")
    for row in rows
    if row[language]
  )


@functools.cache
def wordpiece() -> bytes:
  """A tokenizer.json as mBERT's: cased, accents kept."""
  out = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
  out.normalizer = normalizers.BertNormalizer(
    lowercase=False, strip_accents=False
  )
  out.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  out.decoder = decoders.WordPiece()
  out.train_from_iterator(
    texts(),
    trainers.WordPieceTrainer(
      vocab_size=1500, special_tokens=BERT, show_progress=False
    ),
  )
  out.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]",
    pair="[CLS] $A [SEP] $B:1 [SEP]:1",
    special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
  )
  # As a file from a hub may have them; neither may change what we read.
  out.enable_truncation(8)
  out.enable_padding(pad_id=0, pad_token="[PAD]", length=8)
  return out.to_str().encode()


@functools.cache
def byte_bpe() -> bytes:
  """A tokenizer.json as RoBERTa's: BPE of bytes."""
  out = tokenizers.Tokenizer(models.BPE())
  out.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  out.decoder = decoders.ByteLevel()
  out.train_from_iterator(
    texts(),
    trainers.BpeTrainer(
      vocab_size=1500,
      special_tokens=ROBERTA,
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    ),
  )
  return out.to_str().encode()


@functools.cache
def unigram() -> bytes:
  """A tokenizer.json as XLM-R's, but trained by the tokenizers package."""
  out = tokenizers.Tokenizer(models.Unigram())
  out.normalizer = normalizers.NFKC()
  out.pre_tokenizer = pre_tokenizers.Metaspace()
  out.decoder = decoders.Metaspace()
  out.train_from_iterator(
    texts(),
    trainers.UnigramTrainer(
      vocab_size=1500,
      special_tokens=ROBERTA,
      unk_token="<unk>",
      show_progress=False,
    ),
  )
  return out.to_str().encode()


@functools.cache
def vocab_txt() -> bytes:
  """The same pieces as `wordpiece`, as BERT's first releases had them."""
  vocabulary = json.loads(wordpiece())["model"]["vocab"]
  return "".join(
    f"{p}\n" for p in sorted(vocabulary, key=vocabulary.get)
  ).encode()


def sentencepiece_files(**options: Any) -> dict[str, bytes]:
  """A SentencePiece model of 1,200 pieces, or as the options say."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts()),
    model_writer=model,
    minloglevel=2,
    num_threads=1,
    **({"vocab_size": 1200, "character_coverage": 0.999} | options),
  )
  return {"tokenizer.model": model.getvalue()}


def xlm_folder(folder: Path, lower_case: bool = True) -> Path:
  """XLM's vocab.json and merges.txt; needs sacremoses to train.

  A tenth of the merged pieces is not in the vocabulary, as in a vocabulary
  that keeps only what the corpus ends in.
  """
  from infoxlm_jax.data.tokenizers import xlm

  normalizer, moses = xlm._moses()
  words = []
  for text in texts():
    text = text.lower() if lower_case else text
    words += moses.tokenize(normalizer.normalize(text), escape=False)
  out = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>"))
  out.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  out.train_from_iterator(
    words,
    trainers.BpeTrainer(
      vocab_size=1500,
      special_tokens=XLM,
      end_of_word_suffix="</w>",
      show_progress=False,
    ),
  )
  model = json.loads(out.to_str())["model"]
  pieces = sorted(model["vocab"], key=model["vocab"].get)
  kept = [p for i, p in enumerate(pieces) if p in XLM or i % 10]
  folder.mkdir(exist_ok=True)
  (folder / "vocab.json").write_text(
    json.dumps({piece: i for i, piece in enumerate(kept)}, ensure_ascii=False),
    "utf-8",
  )
  merges = [f"{a} {b} {1000 - i}\n" for i, (a, b) in enumerate(model["merges"])]
  (folder / "merges.txt").write_text("".join(merges), "utf-8")
  (folder / "tokenizer_config.json").write_text(
    json.dumps({"do_lowercase_and_remove_accent": lower_case}), "utf-8"
  )
  return folder
