"""Ids of ours and of transformers: XLM's tokenizer, exports, BERT's files."""

import itertools
import json
import lzma

import pytest
import small_corpus
import small_tokenizers
from hypothesis import assume, given
from hypothesis import strategies as st
from small_tokenizers import sentencepiece_files

from infoxlm_jax.data.corpora.tsv import read_table
from infoxlm_jax.data.tokenizers.base import (
  load_tokenizer,
  save_tokenizer,
  tokenizer_from_files,
)
from infoxlm_jax.data.tokenizers.export import hugging_face_files
from infoxlm_jax.data.tokenizers.trim import trim, used_ids

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def sentences(shared):
  """Both sides of 120 pairs of each of the 17 corpora."""
  found = []
  files = sorted((shared / "data" / "parallel").glob("en-*.tsv.xz"))
  assert len(files) == 17
  for path in files:
    with lzma.open(path, "rt", encoding="utf-8", newline="\n") as file:
      for line in itertools.islice(file, 120):
        found += line.rstrip("\n").split("\t")
  return found


@pytest.fixture(scope="module")
def verses():
  path = small_corpus.DATA / "verses.test.tsv.gz"
  return [
    cell
    for _, cells in itertools.islice(read_table(path, ["id"]), 60)
    for cell in cells[1:]
    if cell
  ]


@pytest.fixture(scope="module")
def xlmr(shared):
  return load_tokenizer(
    shared / "data" / "tokenizer" / "xlmr.sentencepiece.bpe.model"
  )


@pytest.fixture(scope="module", params=[True, False])
def xlm(request, tmp_path_factory):
  """A folder with XLM's files: lower case (XLM-15), and not (XLM-100)."""
  folder = tmp_path_factory.mktemp("xlm")
  return small_tokenizers.xlm_folder(folder, request.param)


def exported(tokenizer, folder, **options):
  """The tokenizer as transformers reads it from our export."""
  import transformers

  folder.mkdir(exist_ok=True)
  for name, content in hugging_face_files(tokenizer, **options).items():
    (folder / name).write_bytes(content)
  return transformers.AutoTokenizer.from_pretrained(folder)


def assert_same(ours, theirs, texts):
  framed = [
    [ours.bos_id, *ids.tolist(), ours.eos_id]
    for ids in ours.encode_batch(texts)
  ]
  assert theirs(texts)["input_ids"] == framed


def test_xlm(xlm, sentences):
  import transformers

  twin = transformers.XLMTokenizer.from_pretrained(xlm)
  ours = load_tokenizer(xlm)
  assert ours.vocab_size == len(twin.get_vocab())
  five = (ours.bos_id, ours.eos_id, ours.pad_id, ours.unk_id, ours.mask_id)
  assert five == (0, 1, 2, 3, 5)
  assert ours.special_ids == set(range(14))
  texts = [
    *sentences[::2],
    "",
    " ",
    "a\nb",
    "Don't… (０.5％)。Ｂ ﬁ İstanbul Σίσυφος",
  ]
  found = ours.encode_batch(texts)
  unknown = 0
  for text, ids in zip(texts, found, strict=True):
    pieces = twin.tokenize(text)
    assert ids.tolist() == twin.convert_tokens_to_ids(pieces), text
    unknown += int((ids == ours.unk_id).sum())
    if ours.unk_id not in ids:
      assert ours.pieces(ids) == pieces
      assert ours.decode(ids) == twin.convert_tokens_to_string(pieces)
  # Some pieces that merges lead to are not in the vocabulary.
  assert unknown
  assert not found[-4].size


@st.composite
def _merges(draw):
  """Pairs of parts that were made before, no piece twice, as training's."""
  made = list("abc") + [f"{c}</w>" for c in "abc"]
  merges = []
  for _ in range(draw(st.integers(1, 9))):
    inside = [piece for piece in made if not piece.endswith("</w>")]
    pair = draw(st.sampled_from(inside)), draw(st.sampled_from(made))
    if "".join(pair) not in made:
      merges.append(pair)
      made.append("".join(pair))
  return merges, made


@given(data=st.data(), trained=_merges())
def test_xlm_merges(data, trained, tmp_path_factory):
  """Vocabularies with holes in any place, against the twin."""
  import transformers

  merges, made = trained
  assume(merges)
  kept = data.draw(st.lists(st.sampled_from(made), unique=True))
  names = dict.fromkeys([*small_tokenizers.XLM, "z</w>", *kept])
  folder = tmp_path_factory.mktemp("merges")
  vocabulary = {piece: i for i, piece in enumerate(names)}
  (folder / "vocab.json").write_text(json.dumps(vocabulary))
  lines = [f"{first} {second}\n" for first, second in merges]
  (folder / "merges.txt").write_text("".join(lines))
  twin = transformers.XLMTokenizer.from_pretrained(folder)
  ours = load_tokenizer(folder)
  for word in data.draw(st.lists(st.text("abcd", min_size=1, max_size=9))):
    expected = twin.convert_tokens_to_ids(twin.tokenize(word))
    assert ours.encode(word).tolist() == expected, word


def test_xlm_exported_and_trimmed(xlm, sentences, tmp_path):
  import transformers

  ours = load_tokenizer(xlm)
  texts = sentences[::9]
  theirs = exported(ours, tmp_path / "whole", model_max_length=256)
  assert type(theirs) is transformers.XLMTokenizer
  assert theirs.model_max_length == 256
  assert_same(ours, theirs, texts)
  texts = texts[:40]
  trimmed = trim(ours, used_ids(ours, texts))
  small = tokenizer_from_files(trimmed.files, "trimmed")
  assert 14 < small.vocab_size < 0.8 * ours.vocab_size
  for before, after in zip(
    ours.encode_batch(texts), small.encode_batch(texts), strict=True
  ):
    assert trimmed.kept[after].tolist() == before.tolist()
  assert_same(small, exported(small, tmp_path / "small"), texts)
  # Stored and read again, as in prepared data.
  (tmp_path / "data").mkdir()
  save_tokenizer(small, tmp_path / "data")
  assert load_tokenizer(tmp_path / "data").sha256 == small.sha256


@pytest.mark.parametrize("lower", [True, False])
def test_bert_folder_with_vocab_txt(lower, verses, tmp_path):
  import transformers

  (tmp_path / "vocab.txt").write_bytes(small_tokenizers.vocab_txt())
  config = {"do_lower_case": lower, "tokenizer_class": "BertTokenizer"}
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
  twin = transformers.BertTokenizer.from_pretrained(tmp_path)
  ours = load_tokenizer(tmp_path)
  assert ours.mask_id == twin.mask_token_id
  assert_same(ours, twin, verses)


@pytest.mark.parametrize(
  "kind", ["wordpiece", "byte_bpe", "unigram", "vocab_txt"]
)
def test_exported_json(kind, verses, tmp_path):
  content = getattr(small_tokenizers, kind)()
  name = "vocab.txt" if kind == "vocab_txt" else "tokenizer.json"
  ours = tokenizer_from_files({name: content}, kind)
  theirs = exported(ours, tmp_path, model_max_length=77)
  assert theirs.model_max_length == 77
  assert len(theirs) == ours.vocab_size
  assert_same(ours, theirs, verses)
  for what, i in (
    ("cls", ours.bos_id),
    ("bos", ours.bos_id),
    ("sep", ours.eos_id),
    ("eos", ours.eos_id),
    ("pad", ours.pad_id),
    ("unk", ours.unk_id),
    ("mask", ours.mask_id),
  ):
    assert getattr(theirs, f"{what}_token_id") == i
  marked = theirs(f"a {theirs.mask_token} b")["input_ids"]
  assert marked.count(ours.mask_id) == 1
  has_types = "token_type_ids" in theirs("a", "b")
  assert has_types == (kind in ("wordpiece", "vocab_txt"))


def test_exported_verses(verses, sentences, tmp_path):
  ours = load_tokenizer(small_corpus.TOKENIZER)
  theirs = exported(ours, tmp_path)
  assert_same(ours, theirs, [*verses, *sentences])
  assert_same(
    ours, theirs, ["", " ", " a  b ", "a\tb\n", "世界　☃☃ ﬁ", "a\u00a0b"]
  )
  a, b = ours.encode("In").tolist(), ours.encode("the").tolist()
  assert theirs("In", "the")["input_ids"] == [0, *a, 2, 2, *b, 2]
  ids = theirs("In <mask>")["input_ids"]
  assert ids == [0, *a, ours.mask_id, 2]
  assert theirs.decode(ours.encode(verses[0])) == ours.decode(
    ours.encode(verses[0])
  )
  small = trim(ours, used_ids(ours, verses))
  trimmed = tokenizer_from_files(small.files, "trimmed")
  assert_same(trimmed, exported(trimmed, tmp_path / "small"), verses)


@pytest.mark.parametrize("bytes_too", [False, True])
def test_exported_bpe(bytes_too, sentences, tmp_path):
  """A BPE model of SentencePiece, whose file has no merges."""
  files = sentencepiece_files(model_type="bpe", byte_fallback=bytes_too)
  ours = tokenizer_from_files(files, "bpe")
  assert_same(ours, exported(ours, tmp_path), [*sentences, "", " a  b ", "☃☃"])


def test_exported_xlmr(xlmr, sentences, tmp_path):
  """XLM-R's own vocabulary: equal but for ties.

  SentencePiece adds the scores of a whole sentence in float32, tokenizers
  those of each word in float64: where two paths are as good, either may win.
  """
  theirs = exported(xlmr, tmp_path, model_max_length=512)
  assert type(theirs).__name__ == "XLMRobertaTokenizer"
  odd = ["", " ", " a  b ", "a\tb\n", "世界　☃☃ ﬁ", "a\u00a0b", "e\u0301"]
  assert_same(xlmr, theirs, odd)
  read_back = tokenizer_from_files(
    {"tokenizer.json": (tmp_path / "tokenizer.json").read_bytes()}, "x"
  )
  assert read_back.vocab_size == xlmr.vocab_size == len(theirs)
  described = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
  scores = [score for _, score in described["model"]["vocab"]]
  ties = 0
  for ours, mine, back in zip(
    theirs(sentences, add_special_tokens=False)["input_ids"],
    xlmr.encode_batch(sentences),
    read_back.encode_batch(sentences),
    strict=True,
  ):
    assert back.tolist() == ours
    if mine.tolist() != ours:
      ties += 1
      difference = sum(scores[i] for i in mine) - sum(scores[i] for i in ours)
      assert abs(difference) < 1e-3
  assert ties <= len(sentences) / 1000
