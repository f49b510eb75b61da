"""Corpora of text files, JSON lines, TSV and Moses pairs, by literal rows."""

import json
import lzma
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_corpus import OPTIONS
from test_open_files import NASTY, PACK

from infoxlm_jax.data.corpora.base import Corpus
from infoxlm_jax.data.corpora.sources import (
  FairseqBinary,
  Moses,
  SeqioTask,
  TextFiles,
  Tmx,
  Tsv,
)
from infoxlm_jax.data.prepare.pipeline import prepare
from infoxlm_jax.errors import InputError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
  """A current folder to put files into."""
  monkeypatch.chdir(tmp_path)
  return tmp_path


def write(files: dict[str, str | bytes]) -> None:
  for name, content in files.items():
    data = content.encode() if isinstance(content, str) else content
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(PACK.get(Path(name).suffix, bytes)(data))


def texts(corpus: Corpus) -> list[tuple[str, ...]]:
  return [(e["language"], e["text"]) for e in corpus.examples("train")]


def pairs(corpus: Corpus) -> list[tuple[str, ...]]:
  names = ("language_a", "text_a", "language_b", "text_b")
  return [tuple(e[n] for n in names) for e in corpus.examples("train")]


def fails(corpus: Corpus, message: str) -> None:
  with pytest.raises(InputError, match=message) as caught:
    list(corpus.examples("train"))
  assert "\n" not in str(caught.value)


def test_text_files(folder):
  write(
    {
      "c/de.txt.gz": "eins\nzwei\n",
      "c/wiki.fr.txt.zst": "un\n\ndeux",
      "c/sw.train.jsonl.xz": '{"text": "moja\\nmbili", "id": 1}\n\n',
    }
  )
  corpus = TextFiles("c/*")
  assert texts(corpus) == [
    ("de", "eins"),
    ("de", "zwei"),
    ("sw", "moja\nmbili"),
    ("fr", "un"),
    ("fr", ""),
    ("fr", "deux"),
  ]
  assert texts(TextFiles("c/de.txt.gz,c/wiki.fr*", language="mul"))[2:3] == [
    ("mul", "un")
  ]
  assert corpus.kind == "text"
  assert corpus.splits() == ("train",)
  fails(TextFiles("c/*.tsv"), r"no file matches 'c/\*.tsv'")


def test_json_fields(folder):
  line = {"content": "hallo", "lang": "de", "text": 5}
  write({"a.txt": json.dumps(line) + "\n", "b.jsonl": '{"tekst": "a"}\n'})
  options = {"format": "jsonl", "text_field": "content"}
  by_field = TextFiles("a.txt", language_field="lang", **options)
  assert texts(by_field) == [("de", "hallo")]
  given_language = TextFiles("a.txt", language="fr", **options)
  assert texts(given_language) == [("fr", "hallo")]
  fails(
    TextFiles("b.jsonl", language="de"),
    "b.jsonl, line 1: no field 'text' among tekst. Did you mean 'tekst'.*"
    "text_field",
  )
  fails(
    TextFiles("b.jsonl", text_field="tekst", language_field="code"),
    "no field 'code'.*language_field",
  )
  fails(
    TextFiles("a.txt", format="jsonl", language="de"),
    "field 'text' is 5, no text",
  )


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ('{"text": "a"', "line 2: broken JSON at place 13 of the line"),
    ("plain text", "line 2: broken JSON at place 1 of the line"),
    ('["a"]', r"line 2: '\[\"a\"\]' is no JSON object"),
    ("[" * 100_000, "line 2: more than 64 levels of nesting"),
    ('{"text": null}', "field 'text' is null, no text"),
    (r'{"text": "\ud83d"}', "line 2: field 'text' has half a surrogate"),
    ('{"text": "a", "lang": "German"}', "line 2: 'German' is no language"),
  ],
)
def test_broken_json_lines(folder, line, message):
  write({"a.jsonl": f'{{"text": "fine", "lang": "de"}}\n{line}\n'})
  fails(TextFiles("a.jsonl", language_field="lang"), message)


@given(st.lists(NASTY, min_size=1, max_size=8), st.sampled_from(list(PACK)))
def test_json_lines_come_back(tmp_path_factory, lines, ending):
  path = tmp_path_factory.mktemp("json") / f"ja.jsonl{ending}"
  for ascii_only in (True, False):
    rows = [json.dumps({"text": x}, ensure_ascii=ascii_only) for x in lines]
    path.write_bytes(PACK[ending]("\n".join(rows).encode()))
    assert texts(TextFiles(path)) == [("ja", text) for text in lines]


def test_tsv(folder):
  write(
    {
      "en-fr.tsv.xz": "Hello\tBonjour\r\n\tvide\n",
      "en-zh.tsv": "Hi\t你好\u2028\n",
      "talks.tsv": "id\ten\tscore\tde\n1\tyes\t.5\tja\n",
      "mined.ar-en.tsv": "1.2\tنعم\tyes\n",
      "named.tsv": "source\ttarget\na\tb\n",
      "head.tsv": "en\tfr\na\tb\n",
      "en-it.tsv": "it\ten\nsi\tyes\n",
    }
  )
  assert pairs(Tsv("en-fr*,en-zh*")) == [
    ("en", "Hello", "fr", "Bonjour"),
    ("en", "", "fr", "vide"),
    ("en", "Hi", "zh", "你好\u2028"),
  ]
  assert pairs(Tsv("talks.tsv", columns=("de", "en"))) == [
    ("de", "ja", "en", "yes")
  ]
  assert pairs(Tsv("mined*", columns=(2, 3))) == [("ar", "نعم", "en", "yes")]
  assert pairs(Tsv("mined*", columns=(3, 2), languages=("en", "ar"))) == [
    ("en", "yes", "ar", "نعم")
  ]
  named = Tsv("named.tsv", ("source", "target"), ("pt-BR", "gl"))
  assert pairs(named) == [("pt-BR", "a", "gl", "b")]
  # A first line that is only the two languages is no sentence.
  assert pairs(Tsv("head.tsv")) == [("en", "a", "fr", "b")]
  assert pairs(Tsv("en-it.tsv")) == [("it", "si", "en", "yes")]


def test_json_pairs(folder):
  inner = {"en": "Hello", "fr": "Bonjour"}
  rows = [{"translation": inner, "id": 1}, {"translation": {"en": "a\nb"}}]
  lines = "\n\n".join(map(json.dumps, rows)) + "\n"
  write(
    {
      "wmt.jsonl.bz2": lines,
      "flat.fr-en.json": json.dumps(inner | {"score": 0.5, "de": None}) + "\n",
      "st.ndjson": json.dumps({"src": "yes", "tgt": "ja", "n": 1}) + "\n",
      "three.jsonl": json.dumps(inner | {"de": "Hallo"}) + "\n",
      "id.jsonl": json.dumps(inner | {"id": "a7"}) + "\n",
      "bad.jsonl": json.dumps(inner | {"en": 5}) + "\n",
    }
  )
  assert pairs(Tsv("wmt.jsonl.bz2")) == [
    ("en", "Hello", "fr", "Bonjour"),
    ("en", "a\nb", "fr", ""),
  ]
  assert pairs(Tsv("id.jsonl")) == [("en", "Hello", "fr", "Bonjour")]
  assert pairs(Tsv("flat.fr-en.json")) == [("fr", "Bonjour", "en", "Hello")]
  assert pairs(Tsv("wmt*", languages=("fr", "en")))[0] == (
    ("fr", "Bonjour", "en", "Hello")
  )
  assert pairs(Tsv("st*", ("tgt", "src"), ("de", "en"))) == [
    ("de", "ja", "en", "yes")
  ]
  assert pairs(Tsv("three*", ("de", "en"))) == [("de", "Hallo", "en", "Hello")]
  fails(Tsv("three.jsonl"), "line 1: which two fields.* en, fr, de.*COLUMNS")
  fails(Tsv("three.jsonl", ("en", "it")), "no field 'it'")
  fails(Tsv("st.ndjson"), "which two fields")
  fails(Tsv("st.ndjson", ("src", "tgt")), "are no languages.*LANGUAGES")
  fails(Tsv("bad.jsonl", ("en", "fr")), "line 1: field 'en' is 5, no text")
  fails(TextFiles("wmt*", language="en"), "a pair of translations.*PAIRS")
  Path("en-fr.tsv").write_text(lines)
  fails(Tsv("en-fr.tsv"), "JSON lines, by the look of it")


@pytest.mark.parametrize(
  ("name", "content", "options", "message"),
  [
    (
      "en-fr.tsv",
      "a\tb\nc\n",
      {},
      "line 2: 1 tab-separated cells, but",
    ),
    ("en-fr.tsv", "a\tb\n\n", {}, "line 2: 1 tab-separated cells"),
    ("en-fr.tsv", "a b\n", {}, "line 1: 1 tab-separated cells where two"),
    ("en-fr.tsv", "a\tb\tc\n", {}, "line 1: 3 tab-separated .* Set columns"),
    ("x.tsv", "a\tb\n", {}, "which languages.*rename it.*x.en-fr.tsv"),
    (
      "x.tsv",
      "en\tde\na\tb\n",
      {"columns": ("en", "fr")},
      r"line 1: no column 'fr' among en \| de",
    ),
    ("en-fr.tsv", "a\tb\n", {"columns": (2, 3)}, "line 1: 2 .* no column 3"),
    ("en-fr.tsv", "a\tb\n", {"columns": (0, 1)}, "columns count from 1"),
    ("x.tsv", "en\tde\n", {"columns": ("en", "de")}, "header and no rows"),
    ("en-fr.tsv", "", {}, "en-fr.tsv is empty"),
    ("en-fr.tsv", b"a\tb\nc\t\xe9\n", {}, "line 2: byte 0xe9 at place 3"),
  ],
)
def test_bad_tsv(folder, name, content, options, message):
  write({name: content})
  fails(Tsv(name, **options), message)


CELL = NASTY.map(lambda text: text.replace("\t", " "))


@given(st.lists(st.tuples(CELL, CELL), min_size=1), st.sampled_from(list(PACK)))
def test_tsv_comes_back(tmp_path_factory, rows, ending):
  path = tmp_path_factory.mktemp("tsv") / f"en-th.tsv{ending}"
  # Windows' line ends: a text may then end in \r itself.
  data = "".join(f"{a}\t{b}\r\n" for a, b in [("first", "row"), *rows])
  path.write_bytes(PACK[ending](data.encode()))
  found = pairs(Tsv(path))
  assert found == [("en", a, "th", b) for a, b in [("first", "row"), *rows]]


def test_moses(folder):
  write(
    {
      "o/MultiUN.ar-en.ar.gz": "نعم\nلا\n",
      "o/MultiUN.ar-en.en.gz": "yes\nno\n",
      "o/TED.en-fr.en": "one\n",
      "o/TED.en-fr.fr": "un\x85e\n",
      "o/TED.en-fr.ids": "7\n",
      "o/en-zh.en.txt": "hi\n",
      "o/en-zh.zh.txt": "你好\n",
      "o/train.en": "a\n",
      "o/train.de": "b\n",
    }
  )
  arabic = [("ar", "نعم", "en", "yes"), ("ar", "لا", "en", "no")]
  french, chinese = ("en", "one", "fr", "un\x85e"), ("en", "hi", "zh", "你好")
  assert pairs(Moses("o/MultiUN.ar-en")) == arabic
  assert pairs(Moses("./o/en-zh")) == [chinese]
  assert pairs(Moses("o/*")) == [*arabic, french, chinese]
  # English first, whatever the order in the name; others' files stay unread.
  turned = [(c, d, a, b) for a, b, c, d in arabic]
  assert pairs(Moses("o/*-*", languages=("en", "ar"))) == turned
  assert pairs(Moses("o/train", ("de", "en"))) == [("de", "b", "en", "a")]
  assert len(Moses("o/*").fingerprint("train")["files"]) == 6
  assert Moses("o/*").size("train") == 80
  assert Moses("o/train", ("de", "en")).size("train") == 4
  fails(
    Moses("o/train"),
    "o/train: which languages.* it is de, en. Set languages .*LANGUAGES",
  )
  fails(Moses("o/none"), "no files o/none.LANGUAGE")
  fails(Moses("o/train", ("de", "it")), "o/train.it is missing: there is")
  write({"o/train.en.gz": "a\n"})
  fails(
    Moses("o/train", ("de", "en")),
    "o/train.en and o/train.en.gz: which one",
  )
  fails(Moses("o/none.en-fr"), "no two files o/none.en-fr.en")


def test_what_a_pattern_matches_and_nobody_reads_is_said(folder, capsys):
  write(
    {
      "o/a.en-fr.en": "one\n",
      "o/a.en-fr.fr": "un\n",
      "o/a.en-fr.ids": "7\n",
      "o/b.en-de.de": "eins\n",
      "o/b.en-de.en": "one\n",
      "o/c.not-named.day": "x\n",
      "o/plain.en": "never matched\n",
      "t/de.txt": "eins\n",
      "t/more/fr.txt": "un\n",
    }
  )
  no_side = {Path("o/a.en-fr.ids"): "no side of en-fr"}
  no_pair = {Path("o/c.not-named.day"): "the name tells no two languages"}
  assert Moses("o/*-*").unused() == no_side | no_pair
  other = dict.fromkeys(
    (Path("o/b.en-de.de"), Path("o/b.en-de.en")), "not of en-fr"
  )
  french = Moses("o/*.*-*", ("en", "fr"))
  rest = dict.fromkeys(no_pair, "no side of en-fr")
  assert french.unused() == no_side | other | rest
  assert Moses("o/a.en-fr").unused() == no_side
  assert TextFiles("t/*").unused() == {Path("t/more"): "a folder"}
  assert TextFiles("t/**/*.txt").unused() == {}
  prepare("out", **OPTIONS | {"corpora": [Moses("o/*-*")]})
  line = "not used, the name tells no two languages: o/c.not-named.day"
  assert line in capsys.readouterr().out
  assert line in Path("out/report.md").read_text()


def test_bad_moses(folder):
  write({"a.en-fr.en": "1\n2\n3", "a.en-fr.fr.xz": "1\n2\n", "b.en-fr.en": ""})
  seen = []
  with pytest.raises(InputError, match="en has 3 lines, .*fr.xz has 2: line n"):
    for example in Moses("a.en-fr").examples("train"):
      seen.append(example)
  assert not seen  # found before the first pair is given
  write({"b.en-fr.fr": "1\n"})
  fails(Moses("b.en-fr"), "b.en-fr.en is empty")
  write({"b.en-fr.en": b"\xff\n"})
  fails(Moses("b.en-fr"), "b.en-fr.en, line 1: byte 0xff")


@given(
  st.lists(st.tuples(NASTY, NASTY), min_size=1),
  st.sampled_from(list(PACK)),
  st.sampled_from(list(PACK)),
)
def test_moses_come_back(tmp_path_factory, rows, ending_a, ending_b):
  place = tmp_path_factory.mktemp("moses")
  for side, (language, ending) in enumerate(
    [("en", ending_a), ("ur", ending_b)]
  ):
    data = "".join(f"{row[side]}\r\n" for row in [("", ""), *rows])
    (place / f"x.en-ur.{language}{ending}").write_bytes(
      PACK[ending](data.encode())
    )
  found = pairs(Moses(place / "x.en-ur"))[1:]
  assert found == [("en", a, "ur", b) for a, b in rows]


def test_bad_options():
  for make, message in (
    (lambda: TextFiles("a", format="xml"), "format = 'xml'"),
    (lambda: TextFiles("a", language="German"), "'German' is no language"),
    (lambda: Tsv("a", columns=("en",)), "must be two names"),
    (lambda: Tsv("a", columns=("en", 1)), "must be two names"),
    (lambda: Tsv("a", languages="en"), "must be two codes"),
    (lambda: Moses("a", languages=("en", "d")), "'d' is no language"),
    (lambda: Tmx("a", languages=("en",)), "two codes or more"),
    (lambda: FairseqBinary("a", "bpe"), "layout = 'bpe' is not one of mlm"),
    (lambda: SeqioTask("a", (), "texts"), "kind = 'texts'"),
    (lambda: list(Tsv("a").examples("dev")), "has no split 'dev'"),
    (lambda: Tsv("a").fingerprint("dev"), "has no split 'dev'"),
  ):
    with pytest.raises(InputError, match=message):
      make()


def test_names_and_fingerprints(folder):
  write({"de.txt": "a\n", "sub/de.txt": "a\n"})
  names = [
    TextFiles(x).name for x in ("de.txt", "sub/de.txt", "sub_de.txt", "s*/de*")
  ]
  assert names[0] == "text_files-de.txt"
  assert len(set(names)) == len(names)
  assert all(set(name).isdisjoint("/*,? ") for name in names)
  assert TextFiles("de.txt", name="mine").name == "mine"
  corpus = TextFiles("de.txt", language="de")
  assert pickle.loads(pickle.dumps(corpus)) == corpus
  assert corpus.size("train") == 2
  before = corpus.fingerprint("train")
  assert json.loads(json.dumps(before)) == before
  assert before == corpus.fingerprint("train")
  assert before != TextFiles("de.txt", language="fr").fingerprint("train")
  write({"de.txt": "a\nb\n"})
  assert before != corpus.fingerprint("train")


def test_the_texts_that_are_shared(shared):
  """The last file of 463k pairs, against a reading of three lines."""
  path = shared / "data" / "parallel" / "en-el.tsv.xz"
  lines = lzma.open(path).read().decode().split("\n")[:-1]
  found = pairs(Tsv(str(path)))
  assert len(lines) > 9000
  assert ["\t".join((a, b)) for _, a, _, b in found] == lines
  assert {(a, b) for a, _, b, _ in found} == {("en", "el")}


def test_nothing_here_needs_tensorflow(root):
  code = (
    "import sys, infoxlm_jax.data.corpora.sources;"
    "sys.exit(bool({'tensorflow', 'seqio', 'jax'} & set(sys.modules)))"
  )
  subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
