"""Classes of tokenizers, and tokens that people added to a vocabulary.

Ids by hand: CamemBERT's table is piece + 4 (CamembertConverter of
transformers). The tests marked parity ask transformers itself.
"""

import json

import numpy as np
import pytest
import sentencepiece
import small_corpus
import small_tokenizers

from infoxlm_jax.data.tokenizers.base import (
  load_tokenizer,
  tokenizer_from_files,
)
from infoxlm_jax.data.tokenizers.trim import trim, used_ids
from infoxlm_jax.errors import InputError

TEXT = "In the beginning [ENT] God [ENT]. Im Anfang x[ENT]y"
PLAIN = "In the beginning God created the heavens and the earth."
MODEL = small_corpus.TOKENIZER.read_bytes()
PIECES = 8000  # of MODEL
NAMES = {0: "<s>", 1: "<pad>", 2: "</s>", 3: "<unk>", PIECES + 1: "<mask>"}
ENT = PIECES + 2  # the first id after <mask>


def token(content, special=False):
  """As added_tokens_decoder and tokenizer.json have it."""
  return {
    "content": content,
    "lstrip": content == "<mask>",
    "normalized": not special,
    "rstrip": False,
    "single_word": False,
    "special": special,
  }


def write(folder, **files):
  """Files by name, with _ for the first dot; objects become JSON."""
  folder.mkdir(exist_ok=True)
  for name, content in files.items():
    if not isinstance(content, bytes):
      content = json.dumps(content).encode()
    (folder / name).write_bytes(content)
  return folder


def xlmr_json(*added):
  """tokenizer.json of MODEL with tokens that a user added."""
  import tokenizers

  from infoxlm_jax.data.tokenizers import sentencepiece_json

  model = load_tokenizer(small_corpus.TOKENIZER)
  content = sentencepiece_json.as_json(
    model, sentencepiece_json.xlmr_pieces(model)
  )
  whole = tokenizers.Tokenizer.from_buffer(content)
  whole.add_tokens(list(added))
  return whole.to_str().encode()


SP, CONFIG, TOKENIZER = (
  "sentencepiece.bpe.model",
  "config.json",
  "tokenizer_config.json",
)
ADDED = "added_tokens.json"
DECODER = {str(i): token(name, True) for i, name in NAMES.items()}
CAMEMBERT = {
  "by its class": {TOKENIZER: {"tokenizer_class": "CamembertTokenizer"}},
  "by the fast class": {
    TOKENIZER: {"tokenizer_class": "CamembertTokenizerFast"}
  },
  "by config.json's class": {
    CONFIG: {"model_type": "bert", "tokenizer_class": "CamembertTokenizer"}
  },
  "by the model": {CONFIG: {"model_type": "camembert"}},
}
# Every place in which transformers keeps a token that was added.
EXTENDED = {
  "tokenizer.json": {SP: MODEL, "tokenizer.json": xlmr_json("[ENT]")},
  "tokenizer.json alone": {"tokenizer.json": xlmr_json("[ENT]")},
  "beside tokenizer.json": {
    "tokenizer.json": xlmr_json(),
    ADDED: {"[ENT]": ENT},
  },
  "added_tokens.json": {SP: MODEL, ADDED: {"[ENT]": ENT}},
  "added_tokens_decoder": {
    SP: MODEL,
    TOKENIZER: {
      "tokenizer_class": "XLMRobertaTokenizer",
      "added_tokens_decoder": {**DECODER, str(ENT): token("[ENT]")},
    },
  },
}


def file_ids(text):
  """The ids of the file itself, as SentencePiece gives them."""
  spm = sentencepiece.SentencePieceProcessor(model_proto=MODEL)
  return np.array(spm.encode(text))


@pytest.mark.parametrize("said", CAMEMBERT)
def test_camembert(tmp_path, said):
  folder = write(tmp_path, **{SP: MODEL}, **CAMEMBERT[said])
  for path in (folder, folder / SP):
    ours = load_tokenizer(path)
    five = (ours.bos_id, ours.pad_id, ours.eos_id, ours.unk_id, ours.mask_id)
    assert five == (5, 1, 6, 3, PIECES + 4)
    assert ours.vocab_size == PIECES + 5
    expected = file_ids(PLAIN) + 4
    assert expected.min() > 6  # no unknown piece among them
    assert ours.encode(PLAIN).tolist() == expected.tolist()
    assert ours.pieces([0, 4, 7, PIECES + 3])[2] == ","
    # Names that are not used never come out of a text.
    assert {0, 2, 4} <= ours.special_ids
    assert not {0, 2, 4} & set(ours.encode("<s>NOTUSED").tolist())


@pytest.mark.parametrize("place", EXTENDED)
def test_added_tokens_are_kept(tmp_path, place):
  ours = load_tokenizer(write(tmp_path, **EXTENDED[place]))
  assert ours.vocab_size == ENT + 1
  assert ours.mask_id == PIECES + 1
  assert ours.pieces([ENT]) == ["[ENT]"]
  expected = [*(file_ids("In the beginning") + 1), ENT, *(file_ids("God") + 1)]
  assert ours.encode("In the beginning [ENT] God").tolist() == expected
  assert "[ENT]" in ours.decode(ours.encode(TEXT))


def test_added_tokens_of_vocab_txt(tmp_path):
  vocabulary = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n[\nent\n]\n"
  cased = {"do_lower_case": False, "tokenizer_class": "BertTokenizer"}
  decoder = {
    "added_tokens_decoder": {"10": token("[ENT]"), "4": token("[MASK]")}
  }
  for number, added in enumerate(
    ({TOKENIZER: cased, ADDED: {"[ENT]": 10}}, {TOKENIZER: cased | decoder})
  ):
    folder = write(tmp_path / str(number), **{"vocab.txt": vocabulary}, **added)
    ours = load_tokenizer(folder)
    assert ours.encode("a [ENT]b[ENT] c").tolist() == [5, 10, 6, 10, 1]
    assert ours.vocab_size == 11


def test_a_special_token_of_a_user_stays_text(tmp_path):
  """As <mask> does: see infoxlm_jax/data/tokenizers/base.py."""
  files = {SP: MODEL, ADDED: {"[ENT]": ENT}}
  named = {"additional_special_tokens": ["[ENT]"], "mask_token": "<mask>"}
  files["special_tokens_map.json"] = named
  ours = load_tokenizer(write(tmp_path, **files))
  assert ENT in ours.special_ids
  assert ENT not in ours.encode(TEXT)


def test_plain_folders_keep_their_hash(tmp_path):
  """Data and checkpoints are known by it: XLM-R's folders read as before."""
  wanted = load_tokenizer(small_corpus.TOKENIZER)
  said = {"tokenizer_class": "XLMRobertaTokenizerFast"}
  for number, files in enumerate(
    (
      {},
      {CONFIG: {"model_type": "xlm-roberta"}},
      {CONFIG: {"model_type": "bert"}, TOKENIZER: said},  # multilingual-e5
      {TOKENIZER: said | {"added_tokens_decoder": DECODER}},
      {"tokenizer.json": xlmr_json(), TOKENIZER: said},
    )
  ):
    folder = write(tmp_path / str(number), **{SP: MODEL}, **files)
    found = load_tokenizer(folder)
    assert found.sha256 == wanted.sha256
    assert found.files == {"tokenizer.model": MODEL}


@pytest.mark.parametrize(
  "files",
  [
    {SP: MODEL} | CAMEMBERT["by the model"],
    EXTENDED["added_tokens.json"],
    {
      "vocab.txt": small_tokenizers.vocab_txt(),
      TOKENIZER: {"added_tokens_decoder": {"4": token("[MASK]", True)}},
    },
  ],
)
def test_trimmed(tmp_path, files):
  ours = load_tokenizer(write(tmp_path, **files))
  trimmed = trim(ours, used_ids(ours, [PLAIN]))
  small = tokenizer_from_files(trimmed.files, "trimmed")
  assert small.vocab_size < 300
  after = small.encode(PLAIN)
  assert trimmed.kept[after].tolist() == ours.encode(PLAIN).tolist()
  assert trimmed.kept[small.mask_id] == ours.mask_id


VOCAB_TXT = {"vocab.txt": small_tokenizers.vocab_txt()}


@pytest.mark.parametrize(
  ("files", "message"),
  [
    (
      VOCAB_TXT | {TOKENIZER: {"tokenizer_class": "BertJapaneseTokenizer"}},
      "BertJapaneseTokenizer, which cuts words with MeCab",
    ),
    (
      VOCAB_TXT | {TOKENIZER: {"tokenizer_class": "RoFormerTokenizer"}},
      "RoFormerTokenizer, whose ids for vocab.txt are not known here."
      " Known are BertTokenizer.*save_pretrained",
    ),
    (
      {
        "tokenizer.json": small_tokenizers.wordpiece(),
        TOKENIZER: {"do_lower_case": True},
      },
      "says do_lower_case = true, and tokenizer.json says lowercase = false",
    ),
    (
      {SP: MODEL, TOKENIZER: {"tokenizer_class": "XLNetTokenizer"}},
      "XLNetTokenizer, whose ids for tokenizer.model are not known",
    ),
    ({SP: MODEL, CONFIG: {"model_type": "albert"}}, "the model_type 'albert'"),
    (
      {SP: MODEL, ADDED: {"[ENT]": ENT + 7}},
      f"has the id {ENT + 7}, but would be {ENT}",
    ),
    ({SP: MODEL, ADDED: {"[ENT]": 7}}, "the id 7 is .* and '.ENT.' among"),
    ({SP: MODEL, ADDED: {"[ENT]": "x"}}, "'x' is no token id"),
    (
      {SP: MODEL, TOKENIZER: {"added_tokens_decoder": {str(ENT): "[ENT]"}}},
      "holds '.ENT.', which is no token",
    ),
    (
      {SP: MODEL, "tokenizer.json": small_tokenizers.unigram()},
      "tokenizer.json lacks .* pieces of the SentencePiece model",
    ),
    (
      {
        "vocab.json": {
          n: i for i, n in enumerate(["a</w>", *small_tokenizers.XLM])
        },
        "merges.txt": b"a b\n",
        ADDED: {"[ENT]": 15},
      },
      "tokens were added to XLM's vocabulary .*ENT",
    ),
  ],
)
def test_what_is_refused(tmp_path, files, message):
  with pytest.raises(InputError, match=message):
    load_tokenizer(write(tmp_path, **files))


@pytest.mark.parity
@pytest.mark.parametrize("case", [*CAMEMBERT, *EXTENDED])
def test_as_transformers(tmp_path, case):
  import transformers

  files = EXTENDED.get(case) or {SP: MODEL} | CAMEMBERT[case]
  model = {"model_type": "xlm-roberta"} | (CAMEMBERT.get(case) or {}).get(
    CONFIG, {}
  )
  folder = write(tmp_path, **(files | {CONFIG: model}))
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  ours = load_tokenizer(folder)
  for text in (TEXT, PLAIN, "", "  a  b ", "世界　☃☃ ﬁ"):
    framed = [ours.bos_id, *ours.encode(text).tolist(), ours.eos_id]
    assert theirs(text)["input_ids"] == framed, text
  assert len(theirs) == ours.vocab_size
  assert theirs.mask_token_id == ours.mask_id


@pytest.mark.parity
def test_added_tokens_of_vocab_txt_as_transformers(tmp_path):
  import transformers

  options = {"do_lower_case": False, "tokenizer_class": "BertTokenizer"}
  size = VOCAB_TXT["vocab.txt"].count(b"\n")
  folder = write(
    tmp_path,
    **VOCAB_TXT,
    **{
      TOKENIZER: options,
      ADDED: {"[ENT]": size},
      CONFIG: {"model_type": "bert"},
    },
  )
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  ours = load_tokenizer(folder)
  framed = [ours.bos_id, *ours.encode(TEXT).tolist(), ours.eos_id]
  assert theirs(TEXT)["input_ids"] == framed
  assert size in framed


@pytest.mark.parity
def test_mask_is_text_here_and_special_in_transformers(tmp_path):
  """docs/export.md says so; every other text has the same ids."""
  import transformers

  folder = write(tmp_path, **EXTENDED["tokenizer.json"])
  (folder / CONFIG).write_text('{"model_type": "xlm-roberta"}')
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  ours = load_tokenizer(folder)
  text = "In the <mask> God"
  assert ours.mask_id in theirs(text)["input_ids"]
  assert ours.mask_id not in ours.encode(text)
