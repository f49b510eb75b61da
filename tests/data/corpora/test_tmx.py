"""TMX: units of many makers, in bounded memory; broken and hostile files."""

import tracemalloc
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_open_files import PACK

from infoxlm_jax.data.corpora.sources import Tmx
from infoxlm_jax.errors import InputError

HEAD = (
  '<?xml version="1.0" encoding="UTF-8"?>\n'
  '<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n'
  '<tmx version="1.4"><header srclang="en" segtype="sentence"/>\n<body>\n'
)
TAIL = "</body></tmx>\n"


def unit(*variants: tuple[str, str]) -> str:
  inner = "".join(
    f"<tuv xml:lang={quoteattr(tag)}><seg>{seg}</seg></tuv>"
    for tag, seg in variants
  )
  return f"<tu>{inner}</tu>\n"


def pairs(path, languages=None) -> list[tuple[str, ...]]:
  names = ("language_a", "text_a", "language_b", "text_b")
  examples = Tmx(str(path), languages).examples("train")
  return [tuple(e[n] for n in names) for e in examples]


@pytest.fixture
def write(tmp_path):
  def function(content: str | bytes, name: str = "a.tmx"):
    data = content.encode() if isinstance(content, str) else content
    path = tmp_path / name
    path.write_bytes(PACK.get(path.suffix, bytes)(data))
    return path

  return function


def test_units(write):
  path = write(
    HEAD + '<tu tuid="1"><note>not this</note><prop type="x">nor this</prop>'
    '<tuv xml:lang="FR-ca"><seg>Bonjour</seg></tuv>'
    '<tuv lang="EN-US"><prop type="x">nor</prop>\n<seg>Hello &amp; &lt;b&gt;'
    "\n  you&#x2028;</seg></tuv></tu>\n"
    + unit(
      ("en", 'a <bpt i="1">&lt;i&gt;</bpt>b<ept i="1"/> <hi>c</hi><ph>{0}</ph>')
    )
    + unit(("de", "eins"), ("en", "one"), ("fr", "un"), ("en", "1"))
    + unit(("de", "<![CDATA[<zwei>]]>"), ("fr", ""))
    + TAIL,
    "a.tmx.gz",
  )
  assert pairs(path) == [
    ("en-US", "Hello & <b> you\u2028", "fr-CA", "Bonjour"),
    ("en", "one", "de", "eins"),
    ("en", "one", "fr", "un"),
    ("en", "1", "de", "eins"),
    ("en", "1", "fr", "un"),
    ("de", "eins", "fr", "un"),
    ("de", "<zwei>", "fr", ""),
  ]
  # A code takes all its regions and is what they are called.
  assert pairs(path, ("fr", "en")) == [
    ("fr", "Bonjour", "en", "Hello & <b> you\u2028"),
    ("fr", "un", "en", "one"),
    ("fr", "un", "en", "1"),
  ]
  assert pairs(path, ("en_us", "fr")) == [
    ("en_us", "Hello & <b> you\u2028", "fr", "Bonjour")
  ]
  with pytest.raises(
    InputError, match="no unit has en and it; the file has de"
  ):
    pairs(path, ("en", "it"))


def test_codes_are_left_out(write):
  seg = 'a <bpt i="1">&lt;i&gt;</bpt>b<ept i="1"/> <hi>c</hi><ph>{0}</ph>'
  path = write(HEAD + unit(("en", seg), ("de", "x")) + TAIL)
  assert pairs(path) == [("en", "a b c", "de", "x")]


def test_text_without_seg(write):
  """Some programs leave <seg> out; notes stay outside."""
  body = (
    '<tu><tuv xml:lang="en"><note>no</note>Hello <hi>you</hi>\n</tuv>'
    '<tuv xml:lang="fr">Bonjour</tuv></tu>'
    '<tu><tuv xml:lang="en"><prop type="x">no</prop><seg>One</seg> </tuv>'
    '<tuv xml:lang="fr">Un</tuv></tu>'
  )
  assert pairs(write(HEAD + body + TAIL)) == [
    ("en", "Hello you", "fr", "Bonjour"),
    ("en", "One", "fr", "Un"),
  ]


@pytest.mark.parametrize(
  ("seg", "text"),
  [
    ("First line<ph/>second", "First line second"),
    ("First line<ph>&lt;br/&gt;</ph><ph/>second", "First line second"),
    ("First line <ph/>second", "First line second"),
    ("Hello<ph>{0}</ph>, you", "Hello, you"),
    ("line<it>&lt;br /&gt;</it>second", "line second"),
    ("line<ut>\\par</ut>second", "line second"),
    ('w<bpt i="1">&lt;b&gt;</bpt>or<ept i="1">&lt;/b&gt;</ept>d', "word"),
    ("第一<ph/>第二", "第一 第二"),
  ],
)
def test_codes_that_divide_words(write, seg, text):
  path = write(HEAD + unit(("en", seg), ("de", "x")) + TAIL)
  assert pairs(path) == [("en", text, "de", "x")]


def test_texts_in_no_language(write, capsys):
  path = write(
    HEAD
    + unit(("en", "one"), ("x-none", "1"), ("fr", "un"))
    + unit(("en", "two"), ("German", "zwei"), ("fr", "deux"))
    + unit(("en", "three"))
    + TAIL
  )
  assert pairs(path, ("fr", "en")) == [
    ("fr", "un", "en", "one"),
    ("fr", "deux", "en", "two"),
  ]
  assert capsys.readouterr().out == (
    f"{path}: 1 of 3 units do not have texts in fr and en; 2 texts are in no"
    " language (x-none, or no language's tag)\n"
  )
  with pytest.raises(InputError, match="xml:lang = 'German' is no language"):
    pairs(path)
  path = write(HEAD + unit(("en", "one"), ("x-none", "1"), ("fr", "un")) + TAIL)
  assert pairs(path) == [("en", "one", "fr", "un")]


@pytest.mark.parametrize(
  ("english", "french", "read"),
  [
    ("A whole sentence.", "-", ""),
    ("A whole sentence.", "???", ""),
    ("A whole sentence.", "…", ""),
    ("A whole sentence.", "[untranslated]", ""),
    ("A whole sentence.", "&lt;TODO&gt;", ""),
    ("A whole sentence.", "## missing translation ##", ""),
    ("A sentence of five words.", "Untranslated", ""),
    ("A sentence of five words.", "N/A", ""),
    # These are translations.
    ("Not applicable", "N/A", "N/A"),
    ("Manquant", "Missing", "Missing"),
    ("[missing]", "[missing]", "[missing]"),
    ("- 5 -", "-", "-"),
    ("Chapter one", "1", "1"),
  ],
)
def test_marks_of_a_missing_translation(write, english, french, read):
  path = write(HEAD + unit(("en", english), ("fr", french)) + TAIL)
  assert pairs(path) == [("en", english, "fr", read)]


def test_other_encodings(write):
  body = unit(("en", "cafe"), ("fr", "café")) + "</body></tmx>"
  head = '<?xml version="1.0" encoding="{}"?><tmx><header/><body>'
  for encoding in ("UTF-16", "ISO-8859-1", "UTF-8"):
    path = write((head.format(encoding) + body).encode(encoding))
    assert pairs(path) == [("en", "cafe", "fr", "café")]


# What XML can hold; the reader makes white space of any kind one blank.
XML_TEXT = st.text(
  st.characters(
    codec="utf-8", categories=["L", "M", "N", "P", "S", "Zs", "Zl", "Zp"]
  ),
  max_size=20,
)


@given(
  st.lists(st.tuples(XML_TEXT, XML_TEXT), min_size=1),
  st.sampled_from(list(PACK)),
)
def test_tmx_comes_back(tmp_path_factory, rows, ending):
  path = tmp_path_factory.mktemp("tmx") / f"a.tmx{ending}"
  rows = [(f"a{a}", f"b{b}") for a, b in rows]  # no marks
  units = [unit(("en", escape(a)), ("ja", escape(b))) for a, b in rows]
  path.write_bytes(PACK[ending]((HEAD + "".join(units) + TAIL).encode()))
  plain = [[" ".join(filter(None, x.split(" "))) for x in row] for row in rows]
  assert pairs(path) == [("en", a, "ja", b) for a, b in plain]


LAUGHS = (
  '<?xml version="1.0"?>\n<!DOCTYPE tmx [\n<!ENTITY a "ha">\n'
  '<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">\n]>\n<tmx><body>'
  + unit(("en", "&b;"), ("de", "x"))
  + TAIL
)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (LAUGHS, "line 3: the file declares the entity 'a'"),
    (
      LAUGHS.replace('a "ha"', 'x SYSTEM "file:///etc/passwd"'),
      "line 3: the file declares the entity 'x'",
    ),
    (
      LAUGHS.replace('a "ha"', '% x SYSTEM "file:///etc/passwd"'),
      "line 3: the file declares the entity 'x'",
    ),
    (
      HEAD + unit(("en", "a&nbsp;b"), ("de", "x")) + TAIL,
      "line 5: the entity &nbsp; is not defined",
    ),
    (
      HEAD + unit(("en", "a"), ("de", "x")) + "<tu><note></tu>" + TAIL,
      "line 6: broken XML .*mismatched tag",
    ),
    (HEAD + unit(("en", "a & b"), ("de", "x")) + TAIL, "line 5: broken XML"),
    (HEAD + unit(("en", "a"), ("de", "b")), "line 6: broken XML .*truncated"),
    (HEAD[:60], "broken XML"),
    (
      HEAD.encode() + b"<tu><tuv xml:lang='en'><seg>\xff</seg></tuv></tu>",
      "line 5: broken XML .*invalid token",
    ),
    (
      HEAD + "<tu><tuv><seg>a</seg></tuv></tu>",
      "line 5: a <tuv> without xml:l",
    ),
    (HEAD + unit(("German", "a")), "line 5: xml:lang = 'German' is no"),
    ("<html><body/></html>", "line 1: found <html>, but a TMX"),
    (HEAD + TAIL, "no unit has two languages; the file has no text"),
    (HEAD + unit(("en", "a")) + TAIL, "no unit has two languages; .* has en"),
    ("", "a.tmx is empty"),
    ("plain text\n", "line 1: broken XML"),
  ],
)
def test_bad_files(write, content, message):
  with pytest.raises(InputError, match=f"a.tmx.*{message}") as caught:
    pairs(write(content))
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", [".bz2", ".gz", ".xz", ".zst"])
def test_a_cut_packed_file(tmp_path, ending):
  data = HEAD + "".join(unit(("en", str(n)), ("de", "x")) for n in range(999))
  path = tmp_path / f"a.tmx{ending}"
  packed = PACK[ending]((data + TAIL).encode())
  path.write_bytes(packed[: len(packed) // 2])
  with pytest.raises(InputError, match=r"a.tmx.*, line \d+: the compressed"):
    pairs(path)


def test_memory_does_not_grow_with_the_file(write):
  """Three megabytes of units, about half of one of memory."""
  body = unit(("en", "word " * 20), ("de", "Wort " * 20)) * 12_000
  path = write(HEAD + body + TAIL)
  assert path.stat().st_size > 3_000_000
  tracemalloc.start()
  count = sum(1 for _ in Tmx(str(path)).examples("train"))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert count == 12_000
  assert peak < 600_000
