"""fairseq's binary data, written here by its layout, byte for byte."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import small_corpus
from hypothesis import given
from hypothesis import strategies as st

from infoxlm_jax.data.corpora import fairseq
from infoxlm_jax.data.corpora.sources import FairseqBinary
from infoxlm_jax.data.corpora.unpacking import bytes_consumed
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError

Row = list[int]


def save(folder: Path, rows: list[Row], code=4, dtype="<i4", name="train.0"):
  """As fairseq's MMapIndexedDatasetBuilder does."""
  folder.mkdir(parents=True, exist_ok=True)
  sizes = [len(row) for row in rows]
  offsets = np.cumsum([0, *sizes])[:-1] * np.dtype(dtype).itemsize
  (folder / f"{name}.bin").write_bytes(
    b"".join(np.array(row, dtype).tobytes() for row in rows)
  )
  (folder / f"{name}.idx").write_bytes(
    b"MMIDIDX\x00\x00"
    + struct.pack("<QBQ", 1, code, len(rows))
    + np.array(sizes, "<i4").tobytes()
    + offsets.astype("<i8").tobytes()
  )


def texts(corpus: FairseqBinary) -> list[tuple[str, Row]]:
  return [(e["language"], e["ids"].tolist()) for e in corpus.examples("train")]


def pairs(corpus: FairseqBinary) -> list[tuple[Row, Row]]:
  examples = corpus.examples("train")
  return [(e["ids_a"].tolist(), e["ids_b"].tolist()) for e in examples]


def tlm_rows(found: list[tuple[Row, Row]], doubled: bool) -> list[Row]:
  """Rows of para2bin.py (with its second <s>), or as its README says."""
  inner = [0] * doubled

  def row(a: Row, b: Row) -> Row:
    return [0, *inner, *a, 2, *inner, *b, 2]

  return [row(a, b) for a, b in found] + [row(b, a) for a, b in found]


PAIRS = [([10, 11], [20]), ([12], [21, 22, 3]), ([13] * 5, [23])]


def test_a_file_by_its_bytes(tmp_path):
  (tmp_path / "train.0.bin").write_bytes(
    bytes.fromhex("00000000 05000000 411f0000 02000000 00000000 02000000")
  )
  (tmp_path / "train.0.idx").write_bytes(
    bytes.fromhex(
      "4d4d49444944580000 0100000000000000 04 0200000000000000"
      "04000000 02000000 0000000000000000 1000000000000000"
    )
  )
  corpus = FairseqBinary(str(tmp_path), "mlm", "sw")
  assert texts(corpus) == [("sw", [5, 8001])]
  (example,) = corpus.examples("train")
  assert example["ids"].dtype == np.int32
  example["ids"][0] = 7  # a copy: the file does not change
  assert texts(corpus) == [("sw", [5, 8001])]


def test_mlm_blocks(tmp_path):
  rows = [
    [0, 10, 11, 2, 12, 2],  # README
    [0, 0, 13, 2, 0, 14, 3, 2],  # txt2bin.py
    [0, 0, 15, 16, 17],  # a sentence that was cut, with no end
    [0, 0, 2],  # an empty line
  ]
  save(tmp_path, rows)
  assert [ids for _, ids in texts(FairseqBinary(str(tmp_path)))] == [
    [10, 11],
    [12],
    [13],
    [14, 3],
    [15, 16, 17],
  ]


@pytest.mark.parametrize("doubled", [False, True])
def test_tlm_rows(tmp_path, doubled):
  folder = tmp_path / "en-fr"
  rows = tlm_rows(PAIRS, doubled)
  save(folder, rows)
  corpus = FairseqBinary(str(folder), "tlm")
  assert pairs(corpus) == PAIRS
  (first, *_) = corpus.examples("train")
  assert (first["language_a"], first["language_b"]) == ("en", "fr")
  every = PAIRS + [(b, a) for a, b in PAIRS]
  assert pairs(FairseqBinary(str(folder), "tlm", swapped=False)) == every
  # Rows of one direction only are all read.
  save(folder, rows[: len(PAIRS)])
  assert pairs(corpus) == PAIRS
  save(folder, rows[:2])
  assert pairs(corpus) == PAIRS[:2]


@pytest.mark.parametrize("doubled", [False, True])
def test_xlco_rows(tmp_path, doubled):
  rows = [[*[0] * (1 + doubled), *x, 2] for pair in PAIRS for x in pair]
  save(tmp_path, rows)
  corpus = FairseqBinary(str(tmp_path), "xlco", languages=("en", "de"))
  assert pairs(corpus) == PAIRS
  with pytest.raises(InputError, match="which languages"):
    pairs(FairseqBinary(str(tmp_path), "xlco"))


def test_several_files(tmp_path):
  for number in (0, 2, 10):
    save(tmp_path, [[0, number + 5, 2]], name=f"train.{number}")
  save(tmp_path, [[0, 99, 2]], name="valid.0")
  corpus = FairseqBinary(str(tmp_path))
  assert [ids for _, ids in texts(corpus)] == [[5], [7], [15]]
  assert corpus.size("train") == 3 * 12  # the ids
  assert len(corpus.fingerprint("train")["files"]) == 6
  assert pickle.loads(pickle.dumps(corpus)) == corpus
  assert (corpus.kind, FairseqBinary("x", "xlco").kind) == ("text", "pairs")


SENTENCE = st.lists(st.integers(3, 60_000), max_size=9)
CODES = st.sampled_from([(4, "<i4"), (5, "<i8"), (8, "<u2")])


@given(st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1), CODES)
def test_ids_come_back(tmp_path_factory, rows, code):
  folder = tmp_path_factory.mktemp("ids")
  both = [x for row in rows for x in row]
  for doubled in (False, True):
    save(folder / "tlm", tlm_rows(rows, doubled), *code)
    save(folder / "xlco", [[*[0] * (1 + doubled), *x, 2] for x in both], *code)
    save(folder / "mlm", [[0, *a, 2, *b, 2] for a, b in rows], *code)
    languages = ("mul", "mul")
    for layout in ("tlm", "xlco"):
      corpus = FairseqBinary(str(folder / layout), layout, languages=languages)
      assert pairs(corpus) == rows
    sentences = texts(FairseqBinary(str(folder / "mlm")))
    assert sentences == [("mul", x) for x in both if x]


def _damage(part: str, place: int, value: bytes):
  def change(folder: Path) -> None:
    path = folder / f"train.0.{part}"
    data = bytearray(path.read_bytes())
    data[place : place + len(value)] = value
    path.write_bytes(data)

  return change


def _cut(part: str, size: int):
  def change(folder: Path) -> None:
    path = folder / f"train.0.{part}"
    path.write_bytes(path.read_bytes()[:size])

  return change


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (_damage("idx", 0, b"TNTIDX\0\0"), "begins with b'TNTIDX.*--dataset-impl"),
    (_damage("idx", 9, b"\2"), "version 2"),
    (_damage("idx", 17, b"\6"), "its ids have type 6"),
    (_damage("idx", 18, b"\7"), "has 98 bytes, 7 rows need 110"),
    (_damage("idx", 18, b"\xff" * 8), "98 bytes, 18446744073709551615 rows"),
    (_damage("idx", 26, b"\7"), "row 2: its place is not where"),
    (_damage("idx", 26, b"\xff" * 4), "row 1: its place is not where"),
    (_damage("idx", 50 + 16, b"\1"), "row 3: its place is not where"),
    (_cut("idx", 0), "begins with b''"),
    (_cut("idx", 20), "ends within its header"),
    (_cut("idx", 97), "has 97 bytes, 6 rows need 98"),
    (_cut("bin", 100), r"train.0.bin has 100 bytes, but 176 by its index"),
    (lambda f: (f / "train.0.bin").unlink(), "cannot read .*train.0.bin"),
    (lambda f: (f / "train.0.idx").unlink(), "holds no train.0.idx"),
    (lambda f: save(f, []), "has no rows"),
  ],
)
def test_bad_files(tmp_path, change, message):
  save(tmp_path, tlm_rows(PAIRS, False))
  corpus = FairseqBinary(str(tmp_path), "tlm", languages=("en", "fr"))
  assert pairs(corpus) == PAIRS
  change(tmp_path)
  with pytest.raises(InputError, match=message):
    pairs(corpus)


def test_a_folder_that_is_none(tmp_path):
  with pytest.raises(InputError, match="cannot read .*none"):
    texts(FairseqBinary(str(tmp_path / "none")))


def test_data_of_another_layout(tmp_path):
  options = {"languages": ("en", "fr")}
  tlm = FairseqBinary(str(tmp_path), "tlm", **options)
  xlco = FairseqBinary(str(tmp_path), "xlco", **options)
  save(tmp_path, tlm_rows(PAIRS, True))
  with pytest.raises(InputError, match="row 1: 2 sentences where an XlCo.*tlm"):
    pairs(xlco)
  save(tmp_path, [[0, 5, 2], [0, 6, 2]])
  with pytest.raises(InputError, match="row 1: 1 sentences where a TLM.*xlco"):
    pairs(tlm)
  save(tmp_path, [[0, 5, 2]] * 3)
  with pytest.raises(InputError, match="has 3 rows: XlCo data are pairs"):
    pairs(xlco)


def test_the_tokenizer_must_be_theirs(tmp_path):
  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  size = tokenizer.vocab_size
  corpus = FairseqBinary(str(tmp_path))
  save(tmp_path, [[0, 2], [0, 5, 2], [0, size - 1, 2]])
  corpus.check_tokenizer(tokenizer)
  pieces = tokenizer.pieces(range(4, size - 1))
  lines = [f"{piece} {n}" for n, piece in enumerate(pieces)]
  (tmp_path / "dict.txt").write_text("\n".join(lines) + "\n")
  corpus.check_tokenizer(tokenizer)
  lines[7] = "other 1"
  (tmp_path / "dict.txt").write_text("\n".join(lines) + "\n")
  with pytest.raises(InputError, match="dict.txt, line 8: piece 'other'"):
    corpus.check_tokenizer(tokenizer)
  (tmp_path / "dict.txt").write_text("\n".join(lines[:-1]))
  with pytest.raises(InputError, match=f"has {len(lines) - 1} pieces"):
    corpus.check_tokenizer(tokenizer)
  (tmp_path / "dict.txt").unlink()
  save(tmp_path, [[0, 2], [0, 5, 2], [0, 6, size, 2]])
  with pytest.raises(InputError, match=rf"bin, row 3: id {size} is not in"):
    corpus.check_tokenizer(tokenizer)


def test_rows_consume_their_ids(tmp_path):
  save(tmp_path / "x", [[0, 5, 2, 6, 2], [0, 9, 2]])
  before = bytes_consumed()
  size = FairseqBinary(str(tmp_path / "x"), "mlm").size("train")
  assert size == 8 * np.dtype("<i4").itemsize
  (index,) = fairseq.find_indexes(str(tmp_path / "x"), "train")
  sentences = fairseq.read_sentences(fairseq.Rows(index))
  assert [x.tolist() for x in sentences] == [[5], [6], [9]]
  assert bytes_consumed() - before == size
