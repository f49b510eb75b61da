"""Input that is larger than it looks, that has no end, or that is noise."""

import json
import lzma
import os
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from test_open_files import PACK
from test_tmx import HEAD, TAIL, unit

from infoxlm_jax.data.corpora import fairseq, open_files, sources
from infoxlm_jax.data.corpora.documents import Documents
from infoxlm_jax.errors import InputError

MEGABYTE = 1 << 20


def corpora(path: str):
  """A corpus of each format that reads this file."""
  return {
    "text": sources.TextFiles(path, "en", "lines"),
    "jsonl": sources.TextFiles(path, "en", "jsonl"),
    "tsv": sources.Tsv(path, languages=("en", "de")),
    "tmx": sources.Tmx(path),
    "documents": Documents(path, "en"),
  }


def refused(corpus, message: str, seconds=20.0, megabytes=150.0) -> None:
  """It fails in these words, within this time and memory."""
  tracemalloc.start()
  start = time.monotonic()
  try:
    with pytest.raises(InputError, match=message) as caught:
      for _ in corpus.examples("train"):
        pass
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert time.monotonic() - start < seconds
  assert peak < megabytes * MEGABYTE
  assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.fixture(scope="module")
def gigabyte(tmp_path_factory):
  """One line of a gigabyte in some 100 KB."""
  path = tmp_path_factory.mktemp("bomb") / "en.txt.zst"
  packer = zstandard.ZstdCompressor(1).compressobj()
  with path.open("wb") as file:
    for _ in range(64):
      file.write(packer.compress(b"a" * (16 * MEGABYTE)))
    file.write(packer.flush())
  assert path.stat().st_size < 200_000
  return path


@pytest.mark.parametrize("name", ["text", "jsonl", "tsv", "documents"])
def test_a_line_of_a_gigabyte(gigabyte, name):
  refused(
    corpora(str(gigabyte))[name],
    "en.txt.zst, line 1: more than 16,777,216 bytes in a line.*"
    "INFOXLM_MAX_LINE_BYTES",
  )


@pytest.mark.parametrize("ending", [".bz2", ".gz", ".xz", ".zst"])
def test_little_is_unpacked_at_a_time(tmp_path, ending, monkeypatch):
  monkeypatch.setenv("INFOXLM_MAX_LINE_BYTES", "1000000")
  path = tmp_path / f"en.txt{ending}"
  pack = PACK | {".xz": lambda data: lzma.compress(data, preset=0)}
  path.write_bytes(pack[ending](bytes(100 * MEGABYTE)))
  refused(corpora(str(path))["text"], "line 1: more than", megabytes=50)


def test_a_window_above_the_limit(tmp_path, monkeypatch):
  """As `zstd --long=31` and `xz -9` make them: the limit can be raised."""
  parameters = zstandard.ZstdCompressionParameters(
    window_log=28, write_content_size=0
  )
  packed = {
    ".zst": zstandard.ZstdCompressor(
      compression_params=parameters
    ).compressobj(),
    ".xz": lzma.LZMACompressor(
      filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 28}]
    ),
  }
  for ending, packer in packed.items():
    path = tmp_path / f"en.txt{ending}"
    path.write_bytes(packer.compress(b"one\ntwo\n") + packer.flush())
    monkeypatch.delenv("INFOXLM_MAX_WINDOW_BYTES", raising=False)
    refused(corpora(str(path))["text"], "INFOXLM_MAX_WINDOW_BYTES")
    monkeypatch.setenv("INFOXLM_MAX_WINDOW_BYTES", str(1 << 30))
    assert [text for _, text in open_files.read_lines(path)] == ["one", "two"]


@pytest.mark.parametrize("name", ["text", "jsonl", "tsv", "tmx", "documents"])
def test_no_regular_file(tmp_path, name):
  fifo = tmp_path / "fifo"
  os.mkfifo(fifo)  # opening it would wait for a writer
  for path in ("/dev/zero", str(fifo)):
    refused(corpora(path)[name], f"{path} is a device, FIFO", 5)


def test_moses_of_a_fifo(tmp_path):
  os.mkfifo(tmp_path / "a.en-fr.en")
  (tmp_path / "a.en-fr.fr").write_text("un\n")
  refused(sources.Moses(f"{tmp_path}/a.en-fr"), "is a device, FIFO", 5)


def test_a_document_without_an_end(tmp_path, monkeypatch):
  monkeypatch.setenv("INFOXLM_MAX_DOCUMENT_BYTES", "1000")
  path = tmp_path / "en.txt"
  path.write_text("a sentence\n" * 1000)
  refused(Documents(str(path)), "line 101: more than 1,000 bytes in a document")


def test_binary_rows_that_are_no_file(tmp_path):
  header = fairseq.MAGIC + (1).to_bytes(8, "little") + b"\4"
  index = header + (1).to_bytes(8, "little") + bytes(4) + bytes(8)
  (tmp_path / "train.idx").write_bytes(index)
  (tmp_path / "train.bin").write_bytes(b"")
  with pytest.raises(InputError, match="train.bin is empty"):
    fairseq.Rows(tmp_path / "train.idx")
  (tmp_path / "train.bin").unlink()
  os.mkfifo(tmp_path / "train.bin")
  with pytest.raises(InputError, match="train.bin is a device, FIFO"):
    fairseq.Rows(tmp_path / "train.idx")
  (tmp_path / "train.idx").unlink()
  os.mkfifo(tmp_path / "train.idx")
  with pytest.raises(InputError, match="train.idx is a device, FIFO"):
    fairseq.Rows(tmp_path / "train.idx")


MANY = unit(*[(("en", "de")[n % 2], str(n)) for n in range(3000)])


@pytest.mark.parametrize(
  ("content", "message"),
  [
    # All pairs of the texts would be 9 million for the 330 KB of two units.
    (HEAD + MANY * 2 + TAIL, "more than 256 texts in a translation"),
    (HEAD + MANY.replace("tu>", "x>") + TAIL, "more than 256 texts in"),
    (HEAD + f'<tu tuid="{"a" * 20 * MEGABYTE}">', "INFOXLM_MAX_TAG_BYTES"),
    (HEAD + f"<!--{'a' * 20 * MEGABYTE}-->", "INFOXLM_MAX_TAG_BYTES"),
    (HEAD + f"<{'a' * 20 * MEGABYTE}", "INFOXLM_MAX_TAG_BYTES"),
    (
      HEAD.replace('"tmx14.dtd"', f'"a" [<!ELEMENT a ({"b|" * 4 * MEGABYTE}'),
      "INFOXLM_MAX_TAG_BYTES",
    ),
    (
      HEAD + unit(("en", "a" * 17 * MEGABYTE), ("de", "x")) + TAIL,
      "more than 16,777,216 bytes in a line or text",
    ),
    (HEAD + "<a>" * 100_000, "more than 64 levels of nesting"),
    (
      HEAD.replace(
        'SYSTEM "tmx14.dtd"', f'[<!ATTLIST tu a CDATA "{"x" * 500_000}">]'
      )
      + "<tu></tu>" * 20_000
      + TAIL,
      "the attributes are longer than the file",
    ),
    (HEAD.replace("UTF-8", "nonsense"), "names an encoding.*nonsense"),
    (HEAD.replace("UTF-8", "UTF-7"), "names an encoding"),
    (HEAD.replace("UTF-8", "rot13"), "names an encoding"),
  ],
)
def test_tmx(tmp_path, content, message):
  path = tmp_path / "a.tmx"
  path.write_text(content)
  refused(sources.Tmx(str(path)), f"a.tmx, line .*({message})")


def test_time_grows_with_the_file(tmp_path):
  """Units of as many texts as allowed: a pair is read in constant time."""
  path = tmp_path / "a.tmx"
  one = unit(*[(("en", "de")[n % 2], str(n)) for n in range(200)])
  path.write_text(HEAD + one * 20 + TAIL)
  start = time.monotonic()
  assert sum(1 for _ in sources.Tmx(str(path)).examples("train")) == 200_000
  assert time.monotonic() - start < 10


SAMPLES = {
  "text": b"one\ntwo \xc3\xa4\n",
  "jsonl": b'{"text": "one"}\n{"text": "tw\\u00e4"}\n',
  "tsv": b"en\tde\none\teins\ntwo\tzwei\n",
  "tmx": (HEAD + unit(("en", "one"), ("de", "eins")) + TAIL).encode(),
  "documents": b"one\ntwo\n\nthree\n",
}


@settings(max_examples=60)
@given(
  st.sampled_from(sorted(SAMPLES)),
  st.sampled_from(list(PACK)),
  st.lists(st.tuples(st.floats(0, 0.999), st.binary(max_size=4)), max_size=4),
  st.booleans(),
)
def test_noise(tmp_path_factory, name, ending, changes, packed_first):
  """Changed bytes, before or after packing: examples, or an InputError."""
  data = SAMPLES[name]
  data = PACK[ending](data) if packed_first else data
  for place, new in changes:
    at = int(place * len(data))
    data = data[:at] + new + data[at + 1 :]
  data = data if packed_first else PACK[ending](data)
  path = tmp_path_factory.mktemp("noise") / f"en-de.{ending}"
  path.write_bytes(data)
  try:
    for example in corpora(str(path))[name].examples("train"):
      assert isinstance(example, dict)
  except InputError as error:
    assert "\n" not in str(error)


@settings(max_examples=60)
@given(
  st.lists(st.integers(0, 6), min_size=1, max_size=5),
  st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=3),
)
def test_noise_in_binary_rows(tmp_path_factory, lengths, changes):
  sizes = np.array(lengths, "<i4")
  offsets = 4 * (np.cumsum(sizes) - sizes).astype("<i8")
  content = bytearray(
    fairseq.MAGIC
    + (1).to_bytes(8, "little")
    + b"\4"
    + len(sizes).to_bytes(8, "little")
    + sizes.tobytes()
    + offsets.tobytes()
  )
  for place, value in changes:
    content[place % len(content)] = value
  index = tmp_path_factory.mktemp("rows") / "train.idx"
  index.write_bytes(content)
  ids = np.full(int(sizes.sum()), 2, "<i4")
  index.with_suffix(".bin").write_bytes(ids.tobytes())
  try:
    rows = fairseq.Rows(index)
    for layout in ("xlco", "tlm"):
      list(fairseq.read_pairs(rows, layout))
    list(fairseq.read_sentences(rows))
  except InputError:
    pass


READ = """
import resource, sys
from infoxlm_jax.data.corpora import sources, tmx
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError

def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

before, (bomb, tag, ids) = peak(), sys.argv[1:]
for read in (
  lambda: list(sources.TextFiles(bomb, "en").examples("train")),
  lambda: list(sources.Tsv(bomb, languages=("en", "de")).examples("train")),
  lambda: list(sources.Tmx(tag).examples("train")),
  lambda: load_tokenizer(ids),
):
  try:
    read()
  except InputError as error:
    print(error)
  else:
    sys.exit("not refused")
print(peak() - before)
"""


def test_memory_of_the_process(gigabyte, tmp_path, root):
  """What the libraries take outside of Python counts, too."""
  (tmp_path / "a.tmx").write_text(HEAD + f'<tu a="{"a" * 50 * MEGABYTE}"/>')
  vocab = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 3_000_000_000}
  model = {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
  ids = json.dumps({"version": "1.0", "added_tokens": [], "model": model})
  (tmp_path / "tokenizer.json").write_text(ids)
  files = [gigabyte, tmp_path / "a.tmx", tmp_path / "tokenizer.json"]
  done = subprocess.run(
    [sys.executable, "-c", READ, *map(str, files)],
    cwd=root,
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert not done.returncode, done.stderr
  *messages, more = done.stdout.splitlines()
  assert [m.count("INFOXLM_MAX_") for m in messages] == [1] * 4
  assert int(more) < 250 * MEGABYTE
