"""The ids that transformers gives in a folder with more than a vocabulary.

A vocabulary alone does not say which id a piece has. In a Hugging Face folder
the class of the tokenizer decides (CamemBERT numbers the pieces of its
SentencePiece model otherwise than XLM-R), and people add tokens of their own.
What XLM-R's and BERT's own files cannot say becomes a tokenizer.json here; a
folder that says nothing besides is read from the files that it has.
"""

from collections.abc import Mapping

from infoxlm_jax.data.tokenizers.added_tokens import (
  RESAVE,
  added_tokens,
  parsed,
  with_added,
)
from infoxlm_jax.data.tokenizers.fairseq_dict import names_of
from infoxlm_jax.data.tokenizers.file_names import (
  ADDED_TOKENS,
  CONFIG,
  DICT,
  JSON,
  MODEL_CONFIG,
  SENTENCEPIECE,
  SENTENCEPIECE_NAMES,
  SPECIALS_MAP,
  VOCAB_JSON,
  VOCAB_TXT,
)
from infoxlm_jax.data.tokenizers.huggingface import (
  option,
  parse_json,
  read_json,
)
from infoxlm_jax.data.tokenizers.sentencepiece_json import (
  as_json,
  camembert_pieces,
)
from infoxlm_jax.data.tokenizers.xlmr import SentencePieceTokenizer
from infoxlm_jax.errors import InputError

BESIDE = (CONFIG, MODEL_CONFIG, SPECIALS_MAP, ADDED_TOKENS)

_CAMEMBERT = "CamembertTokenizer"
# model_type of config.json -> class, where no file names the class. Of "bert"
# and "roberta" SentencePiece models are known (multilingual-e5), all of which
# have XLM-R's ids.
_CLASSES = {
  "bert": None,
  "camembert": _CAMEMBERT,
  "roberta": None,
  "xlm": None,
  "xlm-roberta": None,
}
# Which classes give the ids that we give, by the file that is read.
_SAME_IDS = {
  SENTENCEPIECE: ("XLMRobertaTokenizer", "LayoutXLMTokenizer", _CAMEMBERT),
  VOCAB_TXT: ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"),
  # Those of others are refused for what is in them.
  VOCAB_JSON: ("XLMTokenizer", "RobertaTokenizer"),
}
# It cuts words before it looks them up, which no file of the folder says.
_JAPANESE = "BertJapaneseTokenizer"


def files_to_read(
  kind: str, files: Mapping[str, bytes], where: str
) -> dict[str, bytes]:
  """The files of one kind that give the ids that transformers gives.

  Args:
    kind: name of the first file of the kind that was found.
    files: contents by name: those of that kind, of `BESIDE` and, beside a
      SentencePiece model, a tokenizer.json and a dict.txt, as far as they are
      there.
    where: the folder or file, for messages.

  Returns:
    The files of the kind as they are, or a tokenizer.json in their place.

  Raises:
    InputError: a class of tokenizer that is not known; files that contradict
      each other; or a broken one.
  """
  name = _class_name(files, where)
  first = SENTENCEPIECE if kind in SENTENCEPIECE_NAMES else kind
  own = {k: v for k, v in files.items() if k not in BESIDE}
  if first in (VOCAB_TXT, VOCAB_JSON) and CONFIG in files:
    own[CONFIG] = files[CONFIG]  # their options
  if first == SENTENCEPIECE:
    own = _of_sentencepiece(kind, files, name, where)
    first = next(iter(own))
  else:
    _check_class(first, name, where)
  if first == JSON:
    _check_options(own[JSON], files, where)
  if DICT not in own and (added := added_tokens(files, where)):
    return with_added(first, own, added, where)
  return own


def _class_name(files: Mapping[str, bytes], where: str) -> str | None:
  """transformers' class, without "Fast", as AutoTokenizer chooses it."""
  for file in (CONFIG, MODEL_CONFIG):
    stated = parsed(files, file, where).get("tokenizer_class")
    if isinstance(stated, str):
      return stated.removesuffix("Fast")
  kind = parsed(files, MODEL_CONFIG, where).get("model_type")
  if kind is None:
    return None
  return _CLASSES.get(str(kind), f"that of the model_type {kind!r}")


def _check_class(first: str, name: str | None, where: str) -> None:
  if name == _JAPANESE:
    raise InputError(
      f"{where}: the tokenizer is {_JAPANESE}, which cuts words with MeCab or"
      " Sudachi before it looks them up: not supported, and no file says how."
      " Use a model with a SentencePiece model or a tokenizer.json; XLM-R and"
      " multilingual-e5 read Japanese."
    )
  known = _SAME_IDS.get(first)  # a tokenizer.json says everything itself
  if known is None or name is None or name in known:
    return
  raise InputError(
    f"{where}: the tokenizer is {name}, whose ids for {first} are not known"
    f" here. Known are {', '.join(known)}.{RESAVE}"
  )


def _check_options(
  content: bytes, files: Mapping[str, bytes], where: str
) -> None:
  """BERT's class in transformers puts its options above the tokenizer.json.

  Raises:
    InputError: the two state different ones.
  """
  normalizer = parse_json(content, where).get("normalizer")
  if not isinstance(normalizer, dict):
    return
  for name, theirs in (
    ("do_lower_case", "lowercase"),
    ("tokenize_chinese_chars", "handle_chinese_chars"),
  ):
    stated = option(parsed(files, CONFIG, where), name, where)
    if stated is not None and normalizer.get(theirs, stated) != stated:
      raise InputError(
        f"{where}: {CONFIG} says {name} = {str(stated).lower()}, and {JSON}"
        f" says {theirs} = {str(normalizer[theirs]).lower()}: transformers"
        f" follows the first. Make them equal.{RESAVE}"
      )


def _of_sentencepiece(
  kind: str, files: Mapping[str, bytes], name: str | None, where: str
) -> dict[str, bytes]:
  """The model itself, or the tokenizer.json that has transformers' ids."""
  model = SentencePieceTokenizer(files[kind], where)
  if JSON in files:
    _check_class(JSON, name, where)
    return _of_both(model, files[JSON], where)
  if DICT in files:  # of fairseq: its own numbers, whatever else is there
    return _of_fairseq(model, files, where)
  _check_class(SENTENCEPIECE, name, where)
  if name == _CAMEMBERT:
    return {JSON: as_json(model, camembert_pieces(model))}
  return dict(model.files)


def _ids_in(content: bytes, where: str) -> dict[str, int]:
  """The id of each piece of a tokenizer.json.

  The package takes seconds to make a tokenizer of XLM-R's, so the usual form
  is read here.
  """
  described = parse_json(content, where)
  try:
    pieces = described["model"]["vocab"]
    if isinstance(pieces, list):  # unigram, with scores
      pieces = {piece: i for i, (piece, _) in enumerate(pieces)}
    added = {t["content"]: t["id"] for t in described["added_tokens"]}
    return {**pieces, **added}
  except (KeyError, TypeError, ValueError):
    return read_json({JSON: content}, where).get_vocab()


def _of_fairseq(
  model: SentencePieceTokenizer, files: Mapping[str, bytes], where: str
) -> dict[str, bytes]:
  """The model alone where its order is that of the dict.txt."""
  if ADDED_TOKENS in files:
    raise InputError(
      f"{where}: {DICT} and {ADDED_TOKENS} stand beside each other, and only"
      " one can number the pieces. Remove the one that is not the model's own."
    )
  names = names_of(files[DICT], f"{where}, {DICT}")
  if names == model.pieces(range(model.vocab_size)):
    return dict(model.files)
  return {**model.files, DICT: files[DICT]}


def _of_both(
  model: SentencePieceTokenizer, content: bytes, where: str
) -> dict[str, bytes]:
  """The model if its ids are those of the tokenizer.json, else the latter.

  transformers reads the tokenizer.json. The model is the faster of two that
  give the same ids.
  """
  theirs = _ids_in(content, f"{where}, {JSON}")
  pieces = model.pieces(range(model.vocab_size))
  ours = {piece: i for i, piece in enumerate(pieces)}
  if ours == theirs:
    return dict(model.files)
  lacking = [piece for piece in ours if piece not in theirs]
  if lacking:
    raise InputError(
      f"{where}: {JSON} lacks {len(lacking)} pieces of the SentencePiece model"
      f" beside it, {lacking[0]!r} first: they are of different models."
      " Remove the one that is not the model's own."
    )
  return {JSON: content}
