"""TMX: translation memories in XML, read as a stream.

    <tu><tuv xml:lang="en"><seg>Hello</seg></tuv>
        <tuv xml:lang="fr"><seg>Bonjour</seg></tuv></tu>

Only the unit that is being read is in memory, and it is bounded: its texts
together by limits.LINE, their number, of which all pairs are examples, by
limits.VARIANTS, and a tag by limits.TAG. A file may name a DTD, as many do,
which is not opened. Entities that a file declares are refused (defusedxml): a
few lines of them can expand to gigabytes, or fetch other files.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax import SAXParseException
from xml.sax.handler import (
  ContentHandler,
  LexicalHandler,
  feature_external_ges,
  property_lexical_handler,
)

from defusedxml.common import DefusedXmlException
from defusedxml.expatreader import create_parser

from infoxlm_jax.data.corpora import tmx_text
from infoxlm_jax.data.corpora.open_files import reading
from infoxlm_jax.data.corpora.unpacking import unpacked
from infoxlm_jax.data.languages import parse
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import limits

# (language, text) of each variant of a unit.
Unit = list[tuple[str, str]]

_PIECE = 1 << 16
# Elements inside a text that hold formatting codes of a program, not language.
_CODES = frozenset(("bpt", "ept", "it", "ph", "ut"))
# Elements of a variant whose text is about it.
_ASIDE = frozenset(("note", "prop"))


def read_units(path: Path, strict: bool = True) -> Iterator[tuple[str, Unit]]:
  """Yields (the header's source language or "", variants) of each <tu>.

  A variant's text is that of its <seg>, or what stands in the <tuv> itself.
  White space becomes one blank, as XML files break lines anywhere. Formatting
  codes of programs inside a text (<bpt>, <ph>, ...) are left out; <ph>, and
  codes of a line's or a cell's end, divide words.

  Args:
    path: the file, plain or compressed.
    strict: whether a text without a language's tag is an error; else its
      language is "".

  Raises:
    InputError: the file is missing, empty, damaged, or not TMX; broken XML, an
      encoding that expat cannot read, an entity, a text without language, or
      something above its limit.
  """
  parser = create_parser(forbid_entities=True, forbid_external=False)
  parser.setFeature(feature_external_ges, False)  # a DTD stays unopened
  units = _Units(path, parser, strict)
  parser.setContentHandler(units)
  parser.setProperty(property_lexical_handler, units)
  empty = True

  def line() -> str:
    return f"line {parser.getLineNumber()}"

  with reading(path, line), unpacked(path) as file:
    try:
      while piece := file.read(_PIECE):
        empty = False
        units.feed(piece)
        yield from units.take()
      if not empty:
        parser.close()
        yield from units.take()
    except SAXParseException as error:
      raise InputError(
        f"{path}, line {error.getLineNumber()}: broken XML"
        f" ({error.getMessage()}). If the file ends there, it is truncated:"
        " copy or download it again; else correct the line."
      ) from None
    except DefusedXmlException as error:
      name = getattr(error, "name", None)
      raise InputError(
        f"{path}, {line()}: the file declares the entity {name!r}; entities"
        " can expand without end or fetch other files, so none are read."
        " If you trust the file, replace them by their text, for example with"
        " `xmllint --noent`."
      ) from None
    except (LookupError, ValueError) as error:  # of Python's codecs
      raise InputError(
        f"{path}, {line()}: its XML declaration names an encoding that cannot"
        f" be read here ({error}). Convert the file to UTF-8."
      ) from None
  if empty:
    raise InputError(f"{path} is empty: expected a TMX file.")


class _Units(ContentHandler, LexicalHandler):
  """Collects the units that expat parses.

  expat keeps a tag, comment or declaration in memory until its end comes, and
  looks through all of it again with each piece that it is given. So the bytes
  are counted from one end of something to the next.
  """

  def __init__(self, path: Path, parser: Any, strict: bool):
    super().__init__()
    self._path = path
    self._parser = parser
    self._strict = strict
    self._ready: list[tuple[str, Unit]] = []
    self._source = ""
    self._is_tmx = False
    self._unit: Unit = []
    self._language = ""
    self._text: list[str] | None = None  # a list inside <seg>, and <tuv>
    self._codes = 0  # open elements of formatting codes
    self._code: list[str] = []  # what the outermost of these holds
    self._aside = 0  # open <note> and <prop>
    self._size = 0  # characters of the unit's texts
    self._depth = 0
    self._attributes = 0  # characters of all attributes so far
    self._quiet = 0  # bytes since expat read something whole
    self._read = 0  # bytes of the file
    # Each is looked at very often.
    self._variants = limits.VARIANTS.value
    self._most_text = limits.LINE.value
    self._most_tag = limits.TAG.value
    self._nesting = limits.NESTING.value

  def feed(self, piece: bytes) -> None:
    """Parses the next bytes of the file."""
    self._read += len(piece)
    self._quiet += len(piece)
    self._parser.feed(piece)
    if self._quiet > self._most_tag:
      raise limits.TAG.exceeded(self._place())

  def take(self) -> list[tuple[str, Unit]]:
    """The units completed since the last call."""
    ready, self._ready = self._ready, []
    return ready

  def startElement(self, name: str, attrs: Any) -> None:
    self._quiet = 0
    self._depth += 1
    if self._depth > self._nesting:
      raise limits.NESTING.exceeded(self._place())
    self._attributes += sum(map(len, attrs.values()))
    # A DTD's defaults can make millions of each tag's few bytes.
    if self._attributes > self._read + self._most_tag:
      raise self._error(
        "the attributes are longer than the file: its DTD declares defaults"
        " for them. Remove these declarations"
      )
    if not self._is_tmx:
      if name != "tmx":
        raise self._error(f"found <{name}>, but a TMX file begins with <tmx>")
      self._is_tmx = True
    elif name in _CODES:
      self._code = self._code if self._codes else [attrs.get("type", "")]
      self._codes += 1
    elif name in _ASIDE:
      self._aside += 1
    elif name == "header":
      self._source = str(parse(attrs.get("srclang", "").strip()) or "")
    elif name == "tu":
      self._unit = []
      self._size = 0
    elif name == "tuv":
      self._language = self._tag(attrs.get("xml:lang") or attrs.get("lang"))
      self._text = []
    elif name == "seg":
      self._text = []

  def endElement(self, name: str) -> None:
    self._quiet = 0
    self._depth -= 1
    if name in _CODES:
      self._codes -= 1
      if self._text is not None and not self._codes:
        self._text.append(tmx_text.of_code(name, "".join(self._code)))
    elif name in _ASIDE:
      self._aside -= 1
    elif name in ("seg", "tuv") and self._text is not None:
      text = tmx_text.joined(self._text)
      if text or name == "seg":
        self._unit.append((self._language, text))
      self._text = None
      if len(self._unit) > self._variants:
        raise limits.VARIANTS.exceeded(self._place())
    elif name == "tu":
      self._ready.append((self._source, self._unit))

  def characters(self, content: str) -> None:
    self._quiet = 0
    if self._text is not None and not self._aside:
      (self._code if self._codes else self._text).append(content)
      self._size += len(content)
      if self._size > self._most_text:
        raise limits.LINE.exceeded(self._place())

  def comment(self, content: str) -> None:
    self._quiet = 0

  def processingInstruction(self, target: str, data: str) -> None:
    self._quiet = 0

  def startDTD(
    self, name: str, public_id: str | None, system_id: str | None
  ) -> None:
    self._quiet = 0

  def endDTD(self) -> None:
    self._quiet = 0

  def skippedEntity(self, name: str) -> None:
    raise self._error(
      f"the entity &{name}; is not defined in the file. Replace it by its text"
    )

  def _tag(self, given: str | None) -> str:
    if not self._strict and not parse((given or "").strip()):
      return ""
    if not given:
      raise self._error("a <tuv> without xml:lang. Add its language")
    tag = parse(given.strip())
    if tag is None:
      raise self._error(f"xml:lang = {given!r} is no language code. Correct it")
    return str(tag)

  def _place(self) -> str:
    return f"{self._path}, line {self._parser.getLineNumber()}"

  def _error(self, what: str) -> InputError:
    return InputError(f"{self._place()}: {what}.")
