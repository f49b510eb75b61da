"""XLM-R's ids, and the shipped tokenizer."""

import pickle
import unicodedata

import numpy as np
import pytest
import sentencepiece
from small_corpus import TOKENIZER, table

from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError


@pytest.fixture(scope="module")
def xlmr(shared):
  return load_tokenizer(
    shared / "data" / "tokenizer" / "xlmr.sentencepiece.bpe.model"
  )


@pytest.fixture(scope="module")
def shipped():
  return load_tokenizer(TOKENIZER)


# Published ids of XLM-R, with <s> and </s>.
@pytest.mark.parametrize(
  ("text", "ids"),
  [
    ("Hello world!", [0, 35378, 8999, 38, 2]),
    ("你好，世界", [0, 6, 124084, 4, 3221, 2]),
    ("Bonjour le monde", [0, 84602, 95, 11146, 2]),
  ],
)
def test_published_ids(xlmr, text, ids):
  assert xlmr.encode(text).tolist() == ids[1:-1]
  assert xlmr.encode(text).dtype == np.int32
  assert xlmr.decode(ids) == unicodedata.normalize("NFKC", text)


def test_xlmr_layout(xlmr):
  assert (xlmr.vocab_size, xlmr.mask_id) == (250_002, 250_001)
  specials = (xlmr.bos_id, xlmr.pad_id, xlmr.eos_id, xlmr.unk_id)
  assert specials == (0, 1, 2, 3)
  names = xlmr.pieces([0, 1, 2, 3, 250_001, 35378])
  assert names == ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "▁Hello"]


def test_shipped_layout(shipped):
  spm = sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER))
  assert spm.get_piece_size() == 8000
  assert (shipped.vocab_size, shipped.mask_id) == (8002, 8001)
  assert shipped.pieces([4]) == [spm.id_to_piece(3)]
  assert shipped.pieces([8000]) == [spm.id_to_piece(7999)]
  ids = shipped.encode("In the beginning ☃ <s> <pad>")
  assert shipped.unk_id in ids
  # Text never makes special tokens, whatever it says.
  assert not np.isin(ids, [0, 1, 2, shipped.mask_id]).any()


def test_decode_gives_the_text(shipped):
  for row in table()[:40]:
    for language in ("en", "ar", "fa", "ru", "tl"):
      text = " ".join(unicodedata.normalize("NFKC", row[language]).split())
      ids = [0, *shipped.encode(row[language]), 2, 1, shipped.mask_id]
      assert shipped.decode(ids) == text


def test_batch_is_one_by_one_and_pickles(shipped):
  texts = [row["ja"] for row in table()[:5]] + [""]
  batch = pickle.loads(pickle.dumps(shipped)).encode_batch(texts)
  for text, ids in zip(texts, batch, strict=True):
    assert ids.dtype == np.int32 and ids.ndim == 1
    assert ids.tolist() == shipped.encode(text).tolist()
  assert not len(batch[-1])


def test_ids_of_another_vocabulary(shipped):
  with pytest.raises(InputError, match="8002 ids"):
    shipped.decode([5, 8002])


def test_bad_files(tmp_path):
  with pytest.raises(InputError, match="cannot read.*nowhere.model"):
    load_tokenizer(tmp_path / "nowhere.model")
  for content in (b"", b"no model", TOKENIZER.read_bytes()[:5000]):
    path = tmp_path / "broken.model"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a SentencePiece model"):
      load_tokenizer(path)


def test_other_special_ids(tmp_path):
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter([row["en"] for row in table()]),
    model_prefix=str(tmp_path / "t5"),
    vocab_size=150,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    minloglevel=2,
  )
  with pytest.raises(InputError, match=r"\(2, -1, 1\)"):
    load_tokenizer(tmp_path / "t5.model")
