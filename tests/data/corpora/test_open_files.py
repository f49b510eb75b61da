"""Files of input: found, unpacked, split into lines, told by their names."""

import bz2
import gzip
import lzma
import os
import shutil
from pathlib import Path, PurePath

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from infoxlm_jax.data.corpora import (
  file_names,
  open_files,
  seqio_reader,
  sources,
  tsv,
  unpacking,
)
from infoxlm_jax.errors import InputError

PACK = {
  "": bytes,
  ".bz2": bz2.compress,
  ".gz": gzip.compress,
  ".xz": lzma.compress,
  ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}
# Every other way that programs know to end a line, and what breaks others.
NASTY = st.text(
  st.one_of(
    st.characters(codec="utf-8", exclude_characters="\n"),
    st.sampled_from("\r\x0b\x0c\x1c\x85\u2028\u2029\x00\ufeff\t\"'\\ \u0301"),
  ),
  max_size=20,
)


@pytest.mark.parametrize("ending", PACK)
def test_lines(tmp_path, ending):
  path = tmp_path / f"a.txt{ending}"
  data = "\ufeffone\u2028still\r\ntwo\x0c\rtwo\n\nlast".encode()
  path.write_bytes(PACK[ending](data))
  assert list(open_files.read_lines(path)) == [
    (1, "one\u2028still"),
    (2, "two\x0c\rtwo"),
    (3, ""),
    (4, "last"),
  ]
  assert open_files.count_lines(path) == 4


@given(st.lists(NASTY, min_size=1), st.sampled_from(list(PACK)), st.booleans())
def test_lines_come_back(tmp_path_factory, lines, ending, final):
  path = tmp_path_factory.mktemp("lines") / f"a{ending}"
  data = "\n".join(lines) + "\n" * final
  path.write_bytes(PACK[ending](data.encode()))
  if not data:
    with pytest.raises(InputError, match="is empty"):
      list(open_files.read_lines(path))
    return
  if not lines[-1] and not final:
    lines = lines[:-1]  # "a\n" is one line
  expected = [line.removesuffix("\r") for line in lines]
  expected[0] = expected[0].removeprefix("\ufeff")
  found = list(open_files.read_lines(path))
  assert [text for _, text in found] == expected
  assert [number for number, _ in found] == list(range(1, len(lines) + 1))
  assert open_files.count_lines(path) == len(lines)


@pytest.mark.parametrize("ending", [".bz2", ".gz", ".xz", ".zst"])
def test_parts_packed_one_after_the_other(tmp_path, ending):
  """As `cat a.gz b.gz` and parallel compressors make them."""
  path = tmp_path / f"a{ending}"
  parts = [b"one\ntw", b"o\n", b"", b"three\n" * 100_000]
  path.write_bytes(b"".join(map(PACK[ending], parts)))
  found = [text for _, text in open_files.read_lines(path)]
  assert found == ["one", "two", *["three"] * 100_000]


@pytest.mark.parametrize("ending", [".bz2", ".gz", ".xz", ".zst"])
def test_a_cut_file_is_never_taken_for_whole(tmp_path, ending):
  path = tmp_path / f"a{ending}"
  data = b"".join(b"%d line\n" % (n * n) for n in range(300))
  packed = PACK[ending](data)
  for size in range(1, len(packed)):
    path.write_bytes(packed[:size])
    with pytest.raises(InputError, match=r"after line \d+: .* truncated or"):
      list(open_files.read_lines(path))
  path.write_bytes(packed[:-1])
  with pytest.raises(InputError, match="truncated or damaged"):
    open_files.count_lines(path)
  for content in (b"no such packing at all", packed + b"and more"):
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"a{ending}, after line .* damaged"):
      list(open_files.read_lines(path))


@pytest.mark.parametrize("ending", [".bz2", ".gz", ".xz", ".zst"])
def test_packed_under_another_name(tmp_path, ending):
  for name in ("a.txt", "a.gz", "a.tsv.xz"):
    path = tmp_path / name
    path.write_bytes(PACK[ending](b"one\ntwo\n"))
    found = [text for _, text in open_files.read_lines(path)]
    assert found == ["one", "two"]
    assert open_files.count_lines(path) == 2


def test_files_of_another_kind_are_called_by_their_name(tmp_path):
  (tmp_path / "en.txt").write_text("one\n")
  made = {}
  for kind in ("zip", "tar", "gztar"):
    made[kind] = shutil.make_archive(
      str(tmp_path / f"a-{kind}"), kind, tmp_path
    )
  for path, what in (
    (made["zip"], "is a zip archive"),
    (made["tar"], "is a tar archive"),
    (made["gztar"], "is a tar archive"),
    (tmp_path / "a.txt", "is a Parquet table"),
    (tmp_path / "b.jsonl", "is an SQLite database"),
  ):
    if not Path(path).exists():
      start = {".txt": b"PAR1", ".jsonl": b"SQLite format 3\0"}
      Path(path).write_bytes(start[Path(path).suffix] + bytes(600))
    with pytest.raises(InputError, match=f"{path} {what}.*, not text"):
      list(open_files.read_lines(path))


@pytest.mark.parametrize("ending", PACK)
def test_an_empty_file(tmp_path, ending):
  path = tmp_path / f"a{ending}"
  for content in (b"", PACK[ending](b"")):
    path.write_bytes(content)
    with pytest.raises(InputError, match="is empty|truncated"):
      list(open_files.read_lines(path))
  with pytest.raises(InputError, match="cannot read .*No such file"):
    list(open_files.read_lines(tmp_path / f"none{ending}"))


def test_a_byte_that_is_not_utf8(tmp_path):
  path = tmp_path / "a.txt"
  path.write_bytes(b"fine\nna\xefve\n")
  with pytest.raises(InputError, match=r"a.txt, line 2: byte 0xef at place 3"):
    list(open_files.read_lines(path))


def test_files_are_found(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ("b.txt", "a.txt", "deep/er/c.txt", "x,y.txt", "n[1].txt"):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(name)
  found = open_files.find_files
  assert found("a.txt") == [Path("a.txt")]
  assert found("[ab].txt") == [Path("a.txt"), Path("b.txt")]
  assert found("**/c.txt") == [Path("deep/er/c.txt")]
  assert found("b.txt, a.*") == [Path("b.txt"), Path("a.txt")]
  assert found(["b.txt", Path("*.txt")]) == [
    Path(name) for name in ("b.txt", "a.txt", "n[1].txt", "x,y.txt")
  ]
  # A name is a name first, whatever is in it.
  assert found("x,y.txt") == [Path("x,y.txt")]
  assert found("n[1].txt") == [Path("n[1].txt")]
  assert found(tmp_path / "a.txt") == [tmp_path / "a.txt"]
  for patterns, message in (
    ("c*.txt", f"no file matches 'c.*from the folder {tmp_path}"),
    (["a.txt", "none"], "no file matches 'none'"),
    ("deep", r"deep is a folder: name its files.*deep/\*.txt"),
    ("", "no input files are named"),
    ([], "no input files are named"),
  ):
    with pytest.raises(InputError, match=message):
      found(patterns)


@pytest.mark.parametrize(
  ("name", "language"),
  [
    ("de.txt.gz", "de"),
    ("wiki.de.txt", "de"),
    ("de.train.jsonl", "de"),
    ("ceb.txt.xz", "ceb"),
    ("news.dev.de.txt.zst", "de"),
    ("zh-Hans.txt.xz", "zh-Hans"),
    ("pt_BR.train.txt", "pt_BR"),
    ("bn_rom.txt", "bn_rom"),
    ("deu_Latn/1.jsonl.zst", "deu_Latn"),
    ("de/part-00000.jsonl.gz", "de"),
  ],
)
def test_languages_of_names(name, language):
  assert file_names.language_of(Path("corpora") / name) == language


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("train.txt", r"has no language; rename it, .* train.de.txt"),
    ("en-fr.txt", "has no language"),
    ("de_part_1.txt", "has no language"),
    ("de.en.txt", "has de and en; set language"),
  ],
)
def test_names_that_tell_no_language(name, message):
  with pytest.raises(InputError, match=message):
    file_names.language_of(Path("corpora") / name)


@pytest.mark.parametrize(
  ("name", "pair"),
  [
    ("en-fr.tsv.xz", ("en", "fr")),
    ("WikiMatrix.ar-en.tsv", ("ar", "en")),
    ("a.en-pt_br.tsv", ("en", "pt_br")),
    ("en-zh-Hans.tsv", ("en", "zh-Hans")),
    ("en-pt-BR.train.tsv", ("en", "pt-BR")),
    ("pairs.tsv", None),
    ("multi-way.tsv", None),
  ],
)
def test_pairs_of_names(name, pair):
  assert file_names.pair_of(file_names.stem(PurePath(name))) == pair


def test_a_changed_file_changes_its_description(tmp_path):
  path = tmp_path / "a.txt"
  path.write_text("one\n")
  before = open_files.describe([path])
  assert before == open_files.describe([path])
  assert before[0]["bytes"] == 4
  os.utime(path, ns=(0, 0))
  assert before != open_files.describe([path])
  with pytest.raises(InputError, match="cannot read"):
    open_files.describe([tmp_path / "none"])


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "is empty"),
    (b"id\ten\tde\n", "no rows"),
    (b"Gal.1\tPaul\tPaulus\nGal.2\tand\tund\n", "line 1: not a header"),
    (b"id\n1\n", "line 1: not a header"),
    (b"id\ten\ten\n1\ta\tb\n", "two columns have one name"),
    (b"id\ten\tde\n1\ta\tb\n2\ta\n", "line 3: 2 tab-separated cells"),
    (b"id\ten\tde\n1\ta\tb\tc\n", "line 2: 4 tab-separated cells"),
    (b"id\ten\tde\n1\ta\tb\n\n", "line 3: 1 tab-separated"),
    (b"id\ten\tde\n1\ta\tb\n2\ta\xff\tb\n", "line 3: byte 0xff at place 4"),
  ],
)
def test_bad_tables(tmp_path, content, message):
  path = tmp_path / "bad.tsv"
  path.write_bytes(content)
  with pytest.raises(InputError, match=f"bad.tsv.*{message}"):
    list(tsv.read_table(path, ["id"]))


def test_unknown_module(tmp_path, monkeypatch):
  monkeypatch.setattr(seqio_reader, "import_seqio", lambda: None)
  with pytest.raises(InputError, match="did you mean 'tasks.verses'"):
    seqio_reader.import_tasks(["tasks.verse"])
  # A module that itself lacks something is not called missing.
  (tmp_path / "my_tasks.py").write_text("import no_such_package\n")
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ModuleNotFoundError, match="no_such_package"):
    seqio_reader.import_tasks(["my_tasks"])


def test_readers_consume_their_sizes(tmp_path):
  """Whatever the format, packed or not: only then is an ETA one."""
  pair = "a\tb\n" * 900
  (tmp_path / "en-fr.tsv").write_text(pair)
  (tmp_path / "en-de.tsv.gz").write_bytes(gzip.compress(pair.encode()))
  for x in ("en", "fr"):
    (tmp_path / f"m.en-fr.{x}").write_text("text\n" * 70_000)
  body = '<tu><tuv xml:lang="en"><seg>a</seg></tuv></tu>' * 50
  body += body.replace("en", "fr")
  both = '<tu><tuv xml:lang="en"><seg>a</seg></tuv><tuv xml:lang="fr">'
  both += "<seg>b</seg></tuv></tu>"
  (tmp_path / "a.tmx").write_text(f"<tmx><body>{body}{both}</body></tmx>")
  for corpus in (
    sources.Tsv(f"{tmp_path}/*.tsv*"),
    sources.Moses(f"{tmp_path}/m.en-fr"),
    sources.Tmx(f"{tmp_path}/a.tmx"),
  ):
    before = unpacking.bytes_consumed()
    assert sum(1 for _ in corpus.examples("train"))
    assert unpacking.bytes_consumed() - before == corpus.size("train"), corpus
