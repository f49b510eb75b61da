"""A trimmed tokenizer cuts the corpus it was trimmed for as before."""

import json

import numpy as np
import pytest
import small_corpus
import small_tokenizers
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import sentencepiece_files

from infoxlm_jax.data.tokenizers.base import tokenizer_from_files
from infoxlm_jax.data.tokenizers.trim import trim, used_ids
from infoxlm_jax.errors import InputError


def _unigram_with_bytes():
  """Falls back to bytes; a character without a piece has several tokens."""
  described = json.loads(small_tokenizers.unigram())
  described["model"]["byte_fallback"] = True
  described["model"]["vocab"] += [[f"<0x{i:02X}>", -20.0] for i in range(256)]
  return json.dumps(described).encode()


MAKE = {
  "shipped": lambda: {"tokenizer.model": small_corpus.TOKENIZER.read_bytes()},
  "spm bytes": lambda: sentencepiece_files(byte_fallback=True),
  "spm user-defined": lambda: sentencepiece_files(
    user_defined_symbols=["God", "und"]
  ),
  "spm bpe": lambda: sentencepiece_files(model_type="bpe"),
  "spm char": lambda: sentencepiece_files(model_type="char", vocab_size=200),
  "wordpiece": lambda: {"tokenizer.json": small_tokenizers.wordpiece()},
  "bpe": lambda: {"tokenizer.json": small_tokenizers.byte_bpe()},
  "unigram": lambda: {"tokenizer.json": small_tokenizers.unigram()},
  "unigram bytes": lambda: {"tokenizer.json": _unigram_with_bytes()},
  "vocab.txt": lambda: {"vocab.txt": small_tokenizers.vocab_txt()},
}


@pytest.fixture(scope="module", params=list(MAKE))
def tokenizer(request):
  return tokenizer_from_files(MAKE[request.param](), request.param)


def assert_same_pieces(tokenizer, trimmed, texts):
  small = tokenizer_from_files(trimmed.files, "trimmed")
  assert small.vocab_size == len(trimmed.kept)
  old = tokenizer.encode_batch(texts)
  assert len(old) == len(texts)
  for before, after in zip(old, small.encode_batch(texts), strict=True):
    assert trimmed.kept[after].tolist() == before.tolist()
  return small


@settings(max_examples=40)
@given(data=st.data())
def test_the_corpus_keeps_its_pieces(tokenizer, data):
  texts = data.draw(
    st.lists(st.sampled_from(small_tokenizers.texts()), max_size=12)
  )
  texts += data.draw(st.lists(st.text(max_size=20), max_size=3))
  used = used_ids(tokenizer, texts)
  trimmed = trim(tokenizer, used)
  small = assert_same_pieces(tokenizer, trimmed, texts)
  kept = trimmed.kept
  assert (np.diff(kept) > 0).all() and set(used.tolist()) <= set(kept.tolist())
  # Each new id has the piece of its old one; the special ones are there.
  assert small.pieces(range(small.vocab_size)) == tokenizer.pieces(kept)
  for name in ("bos_id", "pad_id", "eos_id", "unk_id", "mask_id"):
    assert kept[getattr(small, name)] == getattr(tokenizer, name)
  assert {int(kept[i]) for i in small.special_ids} == tokenizer.special_ids
  for ids in small.encode_batch(texts):
    assert small.decode(ids) == tokenizer.decode(kept[ids])


def test_trims(tokenizer):
  """Most pieces go: it is no copy."""
  texts = small_tokenizers.texts()[:3]
  trimmed = trim(tokenizer, used_ids(tokenizer, texts))
  everything = tokenizer_from_files(tokenizer.files, "x").vocab_size
  assert len(trimmed.kept) < 0.6 * everything
  again = trim(tokenizer, used_ids(tokenizer, texts))
  assert again.files == trimmed.files


def test_all_ids_change_nothing(tokenizer):
  trimmed = trim(tokenizer, range(tokenizer.vocab_size))
  assert trimmed.kept.tolist() == list(range(tokenizer.vocab_size))
  assert_same_pieces(tokenizer, trimmed, small_tokenizers.texts()[::5])


def test_trimmed_twice(tokenizer):
  texts = list(small_tokenizers.texts()[:40])
  first = trim(tokenizer, used_ids(tokenizer, texts))
  middle = tokenizer_from_files(first.files, "x")
  second = trim(middle, used_ids(middle, texts[:5]))
  small = tokenizer_from_files(second.files, "x")
  ids = small.encode(texts[2])
  expected = tokenizer.encode(texts[2]).tolist()
  assert first.kept[second.kept[ids]].tolist() == expected


def test_ids_of_another_vocabulary(tokenizer):
  with pytest.raises(InputError, match="is not in the vocabulary"):
    trim(tokenizer, [5, tokenizer.vocab_size])
  with pytest.raises(InputError, match="token id -1"):
    trim(tokenizer, [-1])


def test_bytes_and_symbols_stay():
  """What stands for all other text: also text of no corpus comes back."""
  for kind in ("spm bytes", "bpe"):
    tokenizer = tokenizer_from_files(MAKE[kind](), kind)
    trimmed = trim(tokenizer, used_ids(tokenizer, ["a"]))
    small = tokenizer_from_files(trimmed.files, kind)
    text = "Ünfaßbar ☃ 世界"
    assert small.decode(small.encode(text)) == text
  tokenizer = tokenizer_from_files(MAKE["spm user-defined"](), "x")
  trimmed = trim(tokenizer, [])
  small = tokenizer_from_files(trimmed.files, "x")
  assert {"God", "und"} <= set(small.pieces(range(small.vocab_size)))


@pytest.mark.parametrize("kind", ["shipped", "unigram"])
def test_other_text_in_the_same_letters(kind):
  """Is not unknown: the characters of kept pieces stay."""
  tokenizer = tokenizer_from_files(MAKE[kind](), kind)
  text = "In the beginning was the Word"
  trimmed = trim(tokenizer, used_ids(tokenizer, [text]))
  small = tokenizer_from_files(trimmed.files, "x")
  assert small.unk_id not in small.encode(text[::-1])
  assert small.unk_id in small.encode("z") and "z" not in text


def test_the_price_of_the_unknown_stays():
  """The worst score decides whether a gap is bridged by an unknown."""
  proto_of = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
  tokenizer = tokenizer_from_files(MAKE["shipped"](), "x")

  def worst(files):
    proto = proto_of.ModelProto.FromString(files["tokenizer.model"])
    return min(piece.score for piece in proto.pieces)

  used = used_ids(tokenizer, ["In the beginning"])
  assert worst(trim(tokenizer, used).files) == worst(tokenizer.files)


def test_word_without_pieces_stays_without():
  """A trap: "ab" is matched, then nothing; without "ab" there is a way."""
  pieces = [*small_tokenizers.BERT, "a", "ab", "c", "##bx"]
  files = {"vocab.txt": "".join(f"{p}\n" for p in pieces).encode()}
  tokenizer = tokenizer_from_files(files, "x")
  texts = ["abx", "cbx", "a"]
  assert [i.tolist() for i in tokenizer.encode_batch(texts)] == [
    [1],
    [7, 8],
    [5],
  ]
  used = used_ids(tokenizer, texts)
  assert used.tolist() == [1, 5, 6, 7, 8]
  assert_same_pieces(tokenizer, trim(tokenizer, used), texts)
  naive = tokenizer_from_files(trim(tokenizer, [5, 7, 8]).files, "x")
  assert naive.pieces(naive.encode("abx")) == ["a", "##bx"]


# Both forms that the format has had.
@pytest.mark.parametrize("form", [list, " ".join])
def test_merges_on_the_way_stay(form):
  """The piece abcd is used, ab and cd only on the way to it, bc is not."""
  vocabulary = [*small_tokenizers.ROBERTA, *"abcd", "ab", "bc", "cd", "abcd"]
  merges = [["a", "b"], ["b", "c"], ["c", "d"], ["ab", "cd"]]
  model = {
    "type": "BPE",
    "vocab": {piece: i for i, piece in enumerate(vocabulary)},
    "merges": [form(merge) for merge in merges],
  }
  content = json.dumps({"version": "1.0", "added_tokens": [], "model": model})
  files = {"tokenizer.json": content.encode()}
  tokenizer = tokenizer_from_files(files, "x")
  trimmed = trim(tokenizer, tokenizer.encode("abcd"))
  small = assert_same_pieces(tokenizer, trimmed, ["abcd"])
  names = small.pieces(range(5, small.vocab_size))
  assert names == ["a", "b", "c", "d", "ab", "cd", "abcd"]


def test_case_is_written_down():
  """Without its capitals the vocabulary no longer says that it is cased."""
  pieces = [*small_tokenizers.BERT, "Un", "un"]
  files = {"vocab.txt": "".join(f"{p}\n" for p in pieces).encode()}
  tokenizer = tokenizer_from_files(files, "x")
  trimmed = trim(tokenizer, [6])
  assert_same_pieces(tokenizer, trimmed, ["un", "UN"])


def test_ids_around_a_text_move_along():
  """What a tokenizer.json says of special ids elsewhere is renumbered."""
  tokenizer = tokenizer_from_files(MAKE["wordpiece"](), "x")
  described = json.loads(tokenizer.files["tokenizer.json"])
  # Special ids at the end, so that they move.
  vocabulary = described["model"]["vocab"]
  last = len(vocabulary) - 1
  swap = {0: last, last: 0}
  described["model"]["vocab"] = {
    p: swap.get(i, i) for p, i in vocabulary.items()
  }
  described["added_tokens"][0]["id"] = last
  described["padding"]["pad_id"] = last
  bert = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
  for processor in (
    described["post_processor"],
    bert,
    {"type": "Sequence", "processors": [bert]},
  ):
    described["post_processor"] = processor
    content = json.dumps(described).encode()
    moved = tokenizer_from_files({"tokenizer.json": content}, "x")
    assert moved.pad_id == last
    trimmed = trim(moved, used_ids(moved, ["In the beginning"]))
    files = json.loads(trimmed.files["tokenizer.json"])
    assert trimmed.kept[files["padding"]["pad_id"]] == last
    small = tokenizer_from_files(trimmed.files, "x")
    assert small.pad_id == small.vocab_size - 1
    # The package itself frames a text with the new ids.
    package = tokenizers.Tokenizer.from_str(json.dumps(files))
    package.no_padding()
    framed = package.encode("a").ids
    assert (framed[0], framed[-1]) == (small.bos_id, small.eos_id)
