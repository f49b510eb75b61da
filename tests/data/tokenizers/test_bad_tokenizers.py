"""Tokenizers' files that are damaged, or ask for more memory than they have."""

import json
import os
import tracemalloc

import pytest
import small_corpus
import small_tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from infoxlm_jax.data.tokenizers.base import (
  load_tokenizer,
  tokenizer_from_files,
)
from infoxlm_jax.data.tokenizers.file_names import library_errors
from infoxlm_jax.errors import InputError

SPECIALS = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}


def word_level(vocab, **added) -> bytes:
  """A tokenizer.json of a few hundred bytes."""
  return json.dumps(
    {
      "version": "1.0",
      "added_tokens": [
        {"id": i, "content": name, "special": True, "single_word": False}
        | {"lstrip": False, "rstrip": False, "normalized": False}
        for name, i in added.items()
      ],
      "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    }
  ).encode()


def loaded(content: bytes, name: str = "tokenizer.json"):
  return tokenizer_from_files({name: content}, name)


def test_a_good_one():
  tokenizer = loaded(word_level(SPECIALS | {"a": 7}))
  assert tokenizer.vocab_size == 8
  assert tokenizer.encode("a").tolist() == [7]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (word_level(SPECIALS | {"a": 3_000_000_000}), "INFOXLM_MAX_TOKEN_IDS"),
    (
      word_level(SPECIALS | {"a": 10_000_000}),
      "more than 10,000,000 token ids",
    ),
    (word_level(SPECIALS, b=4_294_967_295), "INFOXLM_MAX_TOKEN_IDS"),
    (word_level(SPECIALS | {"a": 1 << 70}), "INFOXLM_MAX_TOKEN_IDS"),
    (word_level(SPECIALS | {"a": -1}), "'a' has the id -1"),
    (word_level(SPECIALS | {"a": 1.5}), "'a' has the id 1.5"),
    (word_level(SPECIALS | {"a": None}), "'a' has the id None"),
    (word_level([]), "cannot be used|no token"),
    (b'{"model": []}', "cannot be used"),
    (b'{"model": {"vocab": {}}}', "cannot be used|no token"),
  ],
)
def test_ids(content, message):
  assert len(content) < 2000
  tracemalloc.start()
  with pytest.raises(InputError, match=f"tokenizer.json.*{message}"):
    loaded(content)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 20e6


def test_ids_of_other_kinds():
  vocab = {"<s>": 0, "</s>": 1, "<pad>": 2, "<unk>": 3, "<special1>": 5}
  files = {
    "vocab.json": json.dumps(vocab | {"a</w>": 3_000_000_000}).encode(),
    "merges.txt": b"a b</w>\n",
  }
  with pytest.raises(InputError, match="vocab.json.*INFOXLM_MAX_TOKEN_IDS"):
    tokenizer_from_files(files, "xlm")


def test_no_regular_file(tmp_path):
  os.mkfifo(tmp_path / "tokenizer.json")
  for path in (tmp_path, tmp_path / "tokenizer.json", "/dev/zero"):
    with pytest.raises(InputError, match="is a device, FIFO or socket"):
      load_tokenizer(path)


def test_panics_of_the_library():
  """They are no Exceptions; Ctrl-C, which is none either, passes."""

  class PanicException(BaseException):
    pass

  with (
    pytest.raises(InputError, match="a.json: .*'index out of bounds'"),
    library_errors("a.json"),
  ):
    raise PanicException("index\n out of bounds")
  for kind in (KeyboardInterrupt, SystemExit, GeneratorExit):
    with pytest.raises(kind), library_errors("a.json"):
      raise kind


@pytest.mark.parametrize(
  ("part", "described"),
  [
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": ""}),
    ("pre_tokenizer", {"type": "FixedLength", "length": 0}),
    ("decoder", {"type": "Strip", "content": "a", "start": 5, "stop": 9}),
  ],
)
def test_files_that_make_the_library_panic(part, described):
  """On loading, encoding and decoding; tokenizers 0.23 panics of each."""
  content = json.loads(word_level(SPECIALS | {"a": 5})) | {part: described}
  with pytest.raises(InputError, match="tokenizer.json.* cannot be used"):
    tokenizer = loaded(json.dumps(content).encode())
    tokenizer.encode("a")
    tokenizer.decode([5, 5])


ODD = st.sampled_from(
  [None, -1, 0, 3, 1 << 31, 1 << 33, 1.5, True, "", "<s>", [], {}, [[]], "\0"]
)
SAMPLES = ("wordpiece", "byte_bpe", "unigram")


@settings(max_examples=60)
@given(st.sampled_from(SAMPLES), st.data())
def test_noise_in_a_tokenizer(kind, data):
  """Any value in any place: it encodes, or an InputError says why not."""
  described = json.loads(getattr(small_tokenizers, kind)())
  model = described["model"]
  model["vocab"] = small(model["vocab"])
  model.pop("merges", None)
  if model["type"] == "BPE":
    model["merges"] = []
  place = described
  while True:
    keys = list(place) if isinstance(place, dict) else range(len(place))
    key = data.draw(st.sampled_from(list(keys)))
    inner = place[key]
    if not inner or not isinstance(inner, dict | list):
      break
    if data.draw(st.integers(0, 3)) == 0:
      break
    place = inner
  place[key] = data.draw(ODD)
  try:
    tokenizer = loaded(json.dumps(described).encode())
    ids = tokenizer.encode("In the beginning was the Word. \x00 äß 語 <s>")
    tokenizer.decode(ids)
    tokenizer.pieces(ids)
  except InputError as error:
    assert "\n" not in str(error)


def small(vocab):
  """The first pieces: noise should meet other places, too."""
  if isinstance(vocab, dict):
    return dict(sorted(vocab.items(), key=lambda item: item[1])[:60])
  return vocab[:60]


@settings(max_examples=40)
@given(
  st.sampled_from(["tokenizer.model", "vocab.txt"]),
  st.lists(
    st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=5
  ),
)
def test_noise_in_other_files(name, changes):
  content = bytearray(
    small_tokenizers.vocab_txt()
    if name == "vocab.txt"
    else small_corpus.TOKENIZER.read_bytes()
  )
  for place, value in changes:
    content[int(place * len(content))] = value
  try:
    tokenizer = loaded(bytes(content), name)
    tokenizer.pieces(tokenizer.encode("In the beginning was the Word"))
  except InputError as error:
    assert "\n" not in str(error)
